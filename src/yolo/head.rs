//! Head decoding: output tensors → candidates.

/// A family of output layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadKind {
    /// `1 x boxes x (5 + classes)`: centre, size in input pixels, objectness, class scores (YOLOv5, YOLOv7).
    Yolov5,
    /// `1 x (4 + classes) x boxes`: centre, size in input pixels, class scores (YOLOv8/9/11/12).
    Yolov8,
    /// `1 x boxes x (5 + classes)` on a raw grid of strides 8, 16, 32 (YOLOX).
    Yolox,
    /// `1 x boxes x 6`: x1, y1, x2, y2 in input pixels, score, class; NMS inside (YOLOv10, YOLO26).
    EndToEnd,
    /// `num_dets`, `det_boxes`, `det_scores`, `det_classes` of TensorRT's EfficientNMS.
    EfficientNms,
    /// `labels`, `boxes`, `scores` with an `orig_target_sizes` input (RT-DETR, D-FINE deployed), or
    /// `logits` and `pred_boxes` (0..1 centre and size).
    Detr,
}

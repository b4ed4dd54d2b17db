use super::*;
use crate::engine::HeadChoice;

fn spec(name: &str, shape: &[Option<usize>], integer: bool) -> TensorSpec {
    TensorSpec { name: name.to_owned(), shape: shape.to_vec(), integer }
}

fn yolov8(shape: &[Option<usize>]) -> (Head, Vec<TensorSpec>) {
    let outputs = vec![spec("output0", shape, false)];
    let inputs = [spec("images", &[Some(1), Some(3), Some(64), Some(96)], false)];
    let head = Head::resolve(HeadChoice::Named(HeadKind::Yolov8), false, &inputs, &outputs, (96, 64), 6).unwrap();
    (head, outputs)
}

fn refused(head: &Head, outputs: &[TensorSpec], elements: &[Element]) -> String {
    match HeadPlan::new(head, outputs, elements, 0.25).map(|_| ()) {
        Err(GpuError::Config(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_plan_knows_the_sizes_of_its_buffers() {
    let (head, outputs) = yolov8(&[Some(4), Some(10), Some(300)]);
    let plan = HeadPlan::new(&head, &outputs, &[Element::F16], 0.25).unwrap();
    assert_eq!((plan.boxes(), plan.kernel, plan.lanes), (300, "head_planes_f16", 4));
    assert_eq!([plan.header_bytes(1), plan.header_bytes(4), plan.header_bytes(5)], [16, 32, 48]);
    assert_eq!(plan.found_bytes(4), 32 + 4 * 256 * 24);
    assert_eq!(plan.overflow_bytes(4), 4 * 44 * 24);
    let (head, outputs) = yolov8(&[Some(4), Some(10), Some(200)]);
    assert_eq!(HeadPlan::new(&head, &outputs, &[Element::F32], 0.25).unwrap().overflow_bytes(4), 0);
}

#[test]
fn outputs_that_are_not_what_the_head_was_found_in_are_refused_in_words() {
    let (head, outputs) = yolov8(&[Some(4), Some(10), Some(300)]);
    assert!(refused(&head, &outputs, &[Element::I8]).contains("float32"));
    assert!(refused(&head, &outputs, &[]).contains("Other"));
    assert!(refused(&head, &[], &[]).contains("missing"));
    let open = [spec("output0", &[Some(4), Some(10), None], false)];
    assert!(refused(&head, &open, &[Element::F32]).contains("fixed shape"));
    for shape in [&[Some(4), Some(11), Some(300)][..], &[Some(4), Some(10)], &[Some(4), Some(10), Some(3), Some(3)]]
    {
        let text = refused(&head, &[spec("output0", shape, false)], &[Element::F32]);
        assert!(text.contains("yolov8"), "{text}");
    }
}

#[test]
fn counts_beyond_the_boxes_are_not_believed() {
    let (head, outputs) = yolov8(&[Some(1), Some(10), Some(300)]);
    let plan = HeadPlan::new(&head, &outputs, &[Element::F32], 0.25).unwrap();
    let mut found = vec![0; plan.found_bytes(1)];
    found[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
    assert_eq!(plan.overflowed_in(&found, 1, 0), 44);
    let mut out = Candidates::default();
    plan.read_bytes(&found, &vec![0; plan.overflow_bytes(1)], 1, 0, 1000, &mut out).unwrap();
    assert_eq!(out.boxes.len(), 300);
    assert!(!out.final_boxes);
    let short = plan.read_bytes(&found[..100], &[], 1, 0, 1000, &mut out);
    assert!(matches!(short, Err(GpuError::Failed(_))));
    assert!(out.boxes.is_empty());
}

//! What a decoder's buffer is: the loan behind an [`Image`].

use gstreamer as gst;
use gstreamer_video::prelude::*;
use gstreamer_video::{VideoColorMatrix, VideoColorRange, VideoFormat, VideoFrame, VideoInfo};

use super::pipeline::CameraError;
use crate::frame::{Colour, Image, PixelFormat, Planes, SystemImage};

/// A mapped buffer of the decoder's pool; unmapped and given back when dropped.
struct Mapped(VideoFrame<gstreamer_video::video_frame::Readable>);

impl Planes for Mapped {
    fn plane(&self, index: usize) -> &[u8] {
        // `image` has checked the format, so that planes 0..n_planes exist.
        self.0.plane_data(index as u32).unwrap_or_default()
    }
}

/// The pixels of `buffer` as an [`Image`], not copied.
///
/// # Errors
///
/// A sentence where the pipeline gives memory or a format that no backend reads.
pub fn image(buffer: gst::Buffer, info: &VideoInfo) -> Result<Image, CameraError> {
    let format = match info.format() {
        VideoFormat::I420 => PixelFormat::I420,
        VideoFormat::Nv12 => PixelFormat::Nv12,
        other => {
            return Err(CameraError::Setup(format!(
                "the pipeline delivers {other} frames: end its description with video/x-raw,format={{I420,NV12}}"
            )));
        }
    };
    let mapped = VideoFrame::from_buffer_readable(buffer, info)
        .map_err(|_| CameraError::Stream("a frame could not be mapped into host memory".to_owned()))?;
    let mut strides = [0; 3];
    for (stride, plane) in strides.iter_mut().zip(mapped.plane_stride()) {
        *stride = usize::try_from(*plane).map_err(|_| {
            CameraError::Setup("the pipeline delivers bottom-up frames: flip them before".to_owned())
        })?;
    }
    Ok(Image::System(SystemImage {
        format,
        width: info.width(),
        height: info.height(),
        strides,
        colour: colour(info),
        planes: Box::new(Mapped(mapped)),
    }))
}

/// From the caps; what they leave open is guessed as players do: BT.709 from 720 lines on, limited range.
fn colour(info: &VideoInfo) -> Colour {
    let colorimetry = info.colorimetry();
    let bt709 = match colorimetry.matrix() {
        VideoColorMatrix::Bt709 => true,
        VideoColorMatrix::Unknown | VideoColorMatrix::Rgb => info.height() >= 720,
        _ => false,
    };
    Colour { bt709, full_range: colorimetry.range() == VideoColorRange::Range0_255 }
}

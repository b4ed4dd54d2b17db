//! What a decoder's buffer is: the loan behind an [`Image`].

pub mod cuda;
mod nvmm;

use gstreamer as gst;
use gstreamer_video::prelude::*;
use gstreamer_video::{VideoColorMatrix, VideoColorRange, VideoFormat, VideoFrame, VideoInfo};

use super::pipeline::CameraError;
use crate::frame::{Colour, Image, PixelFormat, Planes, SystemImage};

/// Where frames lie, as caps and descriptions name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Memory that the host can map.
    System,
    /// `memory:CUDAMemory`.
    Cuda,
    /// `memory:NVMM`.
    Nvmm,
}

impl Memory {
    const CUDA: &str = "memory:CUDAMemory";
    const NVMM: &str = "memory:NVMM";

    /// Of frames with these caps.
    pub fn of_caps(caps: &gst::CapsRef) -> Self {
        let has = |feature: &str| caps.features(0).is_some_and(|features| features.contains(feature));
        match () {
            () if has(Self::CUDA) => Self::Cuda,
            () if has(Self::NVMM) => Self::Nvmm,
            () => Self::System,
        }
    }

    /// What a description gives to its sink: the last memory that it names.
    pub fn of_description(text: &str) -> Self {
        match (text.rfind(Self::CUDA), text.rfind(Self::NVMM)) {
            (None, None) => Self::System,
            (cuda, nvmm) if cuda > nvmm => Self::Cuda,
            _ => Self::Nvmm,
        }
    }

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "host memory",
            Self::Cuda => "CUDA memory",
            Self::Nvmm => "NVMM surfaces",
        }
    }
}

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
pub fn image(buffer: gst::Buffer, caps: &gst::CapsRef, info: &VideoInfo) -> Result<Image, CameraError> {
    let format = match info.format() {
        VideoFormat::I420 => PixelFormat::I420,
        VideoFormat::Nv12 => PixelFormat::Nv12,
        other => {
            return Err(CameraError::Setup(format!(
                "the pipeline delivers {other} frames: end its description with video/x-raw,format={{I420,NV12}}"
            )));
        }
    };
    match Memory::of_caps(caps) {
        Memory::System => system(buffer, info, format),
        Memory::Cuda => cuda::image(buffer, info, format, colour(info)).map(Image::Cuda),
        Memory::Nvmm => nvmm::image(buffer, (info.width(), info.height()), colour(info)),
    }
}

fn system(buffer: gst::Buffer, info: &VideoInfo, format: PixelFormat) -> Result<Image, CameraError> {
    let mapped = VideoFrame::from_buffer_readable(buffer, info)
        .map_err(|_| CameraError::Stream("a frame could not be mapped into host memory".to_owned()))?;
    let strides = strides(mapped.plane_stride())?;
    Ok(Image::System(SystemImage {
        format,
        width: info.width(),
        height: info.height(),
        strides,
        colour: colour(info),
        planes: Box::new(Mapped(mapped)),
    }))
}

fn strides(of_planes: &[i32]) -> Result<[usize; 3], CameraError> {
    let mut strides = [0; 3];
    for (stride, plane) in strides.iter_mut().zip(of_planes) {
        *stride = usize::try_from(*plane).map_err(|_| {
            CameraError::Setup("the pipeline delivers bottom-up frames: flip them before".to_owned())
        })?;
    }
    Ok(strides)
}

/// Bytes that planes of these offsets and strides reach to, the last row without its padding.
fn end(format: PixelFormat, size: (u32, u32), offsets: [usize; 3], strides: [usize; 3]) -> Option<usize> {
    let mut end = 0;
    let has = |plane: &(usize, (usize, usize))| plane.0 == 0 || plane.1 != (0, 0);
    for (plane, (bytes, rows)) in format.planes(size).into_iter().enumerate().filter(has) {
        if strides[plane] < bytes {
            return None;
        }
        let last_row = strides[plane].checked_mul(rows.checked_sub(1)?)?;
        end = end.max(offsets[plane].checked_add(last_row)?.checked_add(bytes)?);
    }
    Some(end)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_end_within_their_memory() {
        let nv12 = |strides| end(PixelFormat::Nv12, (5, 3), [0, 24, 0], strides);
        assert_eq!(nv12([8, 8, 0]), Some(24 + 8 + 6));
        assert_eq!(nv12([8, 5, 0]), None, "chroma rows overlap");
        assert_eq!(end(PixelFormat::I420, (4, 4), [0, 16, 20], [4, 2, 2]), Some(24));
        assert_eq!(end(PixelFormat::Nv12, (4, 4), [0, usize::MAX, 0], [4, 4, 0]), None);
        assert_eq!(end(PixelFormat::Nv12, (0, 0), [0, 0, 0], [0, 0, 0]), None);
    }

    #[test]
    fn memory_is_named_by_caps_and_descriptions() {
        gst::init().unwrap();
        let caps = |text: &str| Memory::of_caps(&text.parse::<gst::Caps>().unwrap());
        assert_eq!(caps("video/x-raw,format=NV12"), Memory::System);
        assert_eq!(caps("video/x-raw(memory:CUDAMemory),format=NV12"), Memory::Cuda);
        assert_eq!(caps("video/x-raw(memory:NVMM),format=NV12"), Memory::Nvmm);
        let text =
            "nvarguscamerasrc ! video/x-raw(memory:NVMM) ! nvvidconv ! video/x-raw(memory:CUDAMemory) ! appsink";
        assert_eq!(Memory::of_description(text), Memory::Cuda);
        assert_eq!(Memory::of_description("videotestsrc ! appsink"), Memory::System);
    }
}

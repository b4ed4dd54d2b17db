//! A decoded frame: who made it, when its light was caught, and a loan of its pixels.
//!
//! Pixels belong to the decoder's pool. A [`Frame`] is a loan that goes back when it is dropped; it lives no
//! longer than its slot and its batch, and nothing copies it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::mask::RegionMask;
use crate::motion::Pass;

/// The configured name of a camera: a topic level, so `[A-Za-z0-9_-]` only. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct CameraId(Arc<str>);

impl CameraId {
    /// Wraps a name that the configuration has already checked.
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CameraId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CameraId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which clock a capture time was read from, the most trustworthy first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClockSource {
    /// The camera's own clock, through RTCP sender reports.
    RtcpSr,
    /// This host's clock when the access unit arrived.
    HostArrival,
    /// The position in a file, on this host's clock.
    File,
}

/// When the light of a frame was caught, and how far that may be off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Wall time. Never goes backward within one boot of one camera.
    pub wall: SystemTime,
    /// The clock it was read from.
    pub clock: ClockSource,
    /// Bound of the error known to us, in milliseconds.
    pub err_ms: u32,
}

/// Everything about a frame but its pixels: what outlives the loan.
#[derive(Clone, Debug)]
pub struct FrameInfo {
    /// Its camera.
    pub camera: CameraId,
    /// Number of the decoded frame, from 0 at the start of the daemon, without gaps.
    pub seq: u64,
    /// Number of the camera's connection, from 0, with gaps. A file that begins again stays in its own.
    pub connection: u32,
    /// When its access unit arrived, before decoding (files: when it was due).
    pub arrived: Instant,
    /// When it left the decoder.
    pub decoded: Instant,
    /// Capture time.
    pub captured: Captured,
    /// Presentation time stamp of the stream, in nanoseconds.
    pub pts_ns: Option<u64>,
    /// Width and height of the source, in pixels.
    pub size: (u32, u32),
    /// The motion gate that it passes; `None`: its camera has none.
    pub gate: Option<Pass>,
}

impl FrameInfo {
    /// Time since some moment (`epoch`, which must stay the same): of arrival, which no camera's clock moves; of a file its own
    /// time, since it may be read faster.
    pub fn time(&self, epoch: Instant) -> Duration {
        match self.captured.clock {
            ClockSource::File => self.captured.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
            ClockSource::RtcpSr | ClockSource::HostArrival => self.arrived.saturating_duration_since(epoch),
        }
    }
}

/// A decoded frame on loan from its decoder's pool.
pub struct Frame {
    /// What outlives the loan.
    pub info: FrameInfo,
    /// The pixels.
    pub image: Image,
    /// Polygons whose pixels must not be looked at.
    pub mask: Option<Arc<RegionMask>>,
}

/// Where the pixels lie. Each memory is an arm of its own: backends match on it and say which they take.
pub enum Image {
    /// In the host's memory, planar YUV.
    System(SystemImage),
    /// In the memory of a CUDA device, planar YUV.
    Cuda(CudaImage),
    /// A surface of NVIDIA's multimedia memory that only the GPU can map (Jetson).
    Nvmm(NvmmImage),
}

impl Image {
    /// Where it lies, in words.
    pub fn memory(&self) -> &'static str {
        match self {
            Self::System(_) => "host memory",
            Self::Cuda(_) => "CUDA memory",
            Self::Nvmm(_) => "NVMM surfaces",
        }
    }

    /// `CUstream` that may still be working on it.
    pub fn stream(&self) -> Option<usize> {
        match self {
            Self::Cuda(image) if image.stream != 0 => Some(image.stream),
            _ => None,
        }
    }

    /// YUV to RGB.
    pub fn colour(&self) -> Colour {
        match self {
            Self::System(image) => image.colour,
            Self::Cuda(image) => image.colour,
            Self::Nvmm(image) => image.colour,
        }
    }
}

/// The GPU that the engine runs on: decoders put their frames into its memory, reached from its primary context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuShare {
    /// `CUcontext` of the device: its primary context, which must outlive every camera.
    pub context: usize,
    /// Ordinal of the device.
    pub device: i32,
    /// Most frames of one camera that are out at once: in its slot (a batch for a file read fast, else one), in
    /// staging, in batches in flight. Those on their way past a motion gate come on top, for a camera that has one.
    pub frames: u32,
}

/// A frame in device memory, readable from the device's primary context.
pub struct CudaImage {
    /// Plane layout.
    pub format: PixelFormat,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Device addresses of the planes; the third is 0 for NV12.
    pub planes: [u64; 3],
    /// Bytes from one row to the next, a plane; the third is 0 for NV12.
    pub strides: [usize; 3],
    /// YUV to RGB.
    pub colour: Colour,
    /// `CUstream` of the decoder, on which its work on this frame may still be under way; 0: there is none. Valid while
    /// `loan` lives.
    pub stream: usize,
    /// Keeps the buffer mapped; dropping it gives the buffer back to the decoder.
    pub loan: Box<dyn Send>,
}

/// A frame in an `NvBufSurface` whose planes have no address before the GPU maps them.
pub struct NvmmImage {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// YUV to RGB.
    pub colour: Colour,
    /// Address of the `NvBufSurface`; the same for each frame of one decoder buffer, valid while `loan` lives.
    pub surface: usize,
    /// Which of its surfaces.
    pub index: u32,
    /// Keeps the buffer mapped; dropping it gives the buffer back to the decoder.
    pub loan: Box<dyn Send>,
}

/// Layout of 8-bit 4:2:0 planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PixelFormat {
    /// Three planes: Y, U, V.
    I420,
    /// Two planes: Y, then U and V interleaved.
    Nv12,
}

impl PixelFormat {
    /// Bytes of a row and rows of each plane, of `size` pixels; no bytes and no rows where the format has no third plane.
    pub fn planes(self, (width, height): (u32, u32)) -> [(usize, usize); 3] {
        let (half_width, half_height) = (width.div_ceil(2) as usize, height.div_ceil(2) as usize);
        let luma = (width as usize, height as usize);
        match self {
            Self::I420 => [luma, (half_width, half_height), (half_width, half_height)],
            Self::Nv12 => [luma, (2 * half_width, half_height), (0, 0)],
        }
    }
}

/// How YUV values map to RGB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour {
    /// ITU-R BT.709 coefficients, else BT.601.
    pub bt709: bool,
    /// Luma 0..255, else 16..235.
    pub full_range: bool,
}

impl Colour {
    /// For red, green and blue: factors of Y, U and V, and the constant; the sum is 0..255 before clamping.
    pub fn matrix(self) -> [[f32; 4]; 3] {
        // ITU-R BT.601-7 and BT.709-6, section 3: red and blue weights of luma.
        let (kr, kb) = if self.bt709 { (0.2126, 0.0722) } else { (0.299, 0.114) };
        let kg = 1.0 - kr - kb;
        let (black, luma, chroma) =
            if self.full_range { (0.0, 1.0, 1.0) } else { (16.0, 255.0 / 219.0, 255.0 / 224.0) };
        let (rv, bu) = (2.0 * (1.0 - kr) * chroma, 2.0 * (1.0 - kb) * chroma);
        let (gu, gv) = (-bu * kb / kg, -rv * kr / kg);
        let row = |u: f32, v: f32| [luma, u, v, -luma * black - 128.0 * (u + v)];
        [row(0.0, rv), row(gu, gv), row(bu, 0.0)]
    }
}

/// The planes of a frame in host memory, whoever owns them.
pub trait Planes: Send {
    /// Bytes of plane `index` (0 = Y), at least `stride × rows` but for the last row's padding.
    fn plane(&self, index: usize) -> &[u8];
}

/// A frame in host memory.
pub struct SystemImage {
    /// Plane layout.
    pub format: PixelFormat,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Bytes from one row to the next, a plane; the third is 0 for NV12.
    pub strides: [usize; 3],
    /// YUV to RGB.
    pub colour: Colour,
    /// The loan.
    pub planes: Box<dyn Planes>,
}

/// Planes in memory of our own: synthetic frames of tests and of `bench`.
pub struct OwnedPlanes(pub [Vec<u8>; 3]);

impl Planes for OwnedPlanes {
    fn plane(&self, index: usize) -> &[u8] {
        &self.0[index]
    }
}

impl SystemImage {
    /// An I420 image of one colour (`y`, `u`, `v`), full range BT.601; for tests and warm-up.
    pub fn solid(width: u32, height: u32, yuv: [u8; 3]) -> Self {
        let chroma = (width.div_ceil(2) as usize, height.div_ceil(2) as usize);
        let luma = vec![yuv[0]; width as usize * height as usize];
        let planes = [luma, vec![yuv[1]; chroma.0 * chroma.1], vec![yuv[2]; chroma.0 * chroma.1]];
        Self {
            format: PixelFormat::I420,
            width,
            height,
            strides: [width as usize, chroma.0, chroma.0],
            colour: Colour { bt709: false, full_range: true },
            planes: Box::new(OwnedPlanes(planes)),
        }
    }

    /// Bytes that a plane needs: its rows with their padding, but for the last one's. 0 where the format has no such plane.
    pub fn plane_bytes(&self, index: usize) -> usize {
        let (row, rows) = self.format.planes((self.width, self.height))[index];
        rows.checked_sub(1).map_or(0, |full| self.strides[index] * full + row)
    }

    /// The bytes of a plane, as many as it needs.
    ///
    /// # Errors
    ///
    /// A sentence where there are fewer.
    pub fn plane(&self, index: usize) -> Result<&[u8], String> {
        let bytes = self.planes.plane(index).get(..self.plane_bytes(index));
        bytes.ok_or_else(|| format!("plane {index} of a frame is shorter than its caps say"))
    }
}

impl Frame {
    /// The motion gate has yet to judge it, once its cells have been read on the device.
    pub fn is_unjudged(&self) -> bool {
        self.info.gate.is_some() && !matches!(self.image, Image::System(_))
    }

    /// A frame of one colour that belongs to no stream: the backends' warm-up, benches and tests.
    pub fn solid(camera: &CameraId, size: (u32, u32), now: Instant) -> Self {
        let captured = Captured { wall: SystemTime::UNIX_EPOCH, clock: ClockSource::File, err_ms: 0 };
        let info = FrameInfo {
            camera: camera.clone(),
            seq: 0,
            connection: 0,
            arrived: now,
            decoded: now,
            captured,
            pts_ns: None,
            size,
            gate: None,
        };
        Self { info, image: Image::System(SystemImage::solid(size.0, size.1, [114, 128, 128])), mask: None }
    }
}

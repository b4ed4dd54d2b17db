//! Thumbnails: what is left of a frame when its pixels have gone back to the decoder.
//!
//! While a backend holds a frame, it writes a small copy of one in which something is likely to be seen, or that was
//! [`Asked`] for: snapshots are made of it, off the data path, and a track that has left still has its best picture. A copy is
//! a few hundred kilobytes from a pool that bounds them all, and a camera gives few a second, so that they cost next to nothing.

mod shrink;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::frame::{CameraId, Colour, FrameInfo, SystemImage};
use crate::letterbox::{Fit, Letterbox};
use crate::mask::RegionMask;
use crate::metrics::ThumbnailMetrics;

pub use shrink::Shrink;

/// Longest side in pixels.
pub const SIDE_MAX: u32 = 640;
/// A camera gives at most one in this time.
const EVERY: Duration = Duration::from_millis(200);
/// Thumbnails that may exist at once, for each camera, and in all.
const A_CAMERA: usize = 8;
const IN_ALL: usize = 256;
/// Luma and chroma of what a mask covers: the grey of the letterbox's padding.
const GREY: [u8; 3] = [114, 128, 128];

/// A frame in small: planar YUV 4:2:0 without padding.
pub struct Thumbnail {
    size: (u32, u32),
    colour: Colour,
    place: Blank,
}

impl Thumbnail {
    /// Width and height in pixels.
    pub fn size(&self) -> (u32, u32) {
        self.size
    }

    /// YUV to RGB.
    pub fn colour(&self) -> Colour {
        self.colour
    }

    /// Somebody asked for it, whatever is in it.
    pub fn is_asked(&self) -> bool {
        self.place.is_asked
    }

    /// Y, U and V; rows of U and V are half as long, rounded up.
    pub fn planes(&self) -> [&[u8]; 3] {
        let [luma, chroma, _] = plane_bytes(self.size);
        let (y, rest) = self.place.pixels.split_at(luma);
        let (u, v) = rest.split_at(chroma);
        [y, u, v]
    }
}

impl std::fmt::Debug for Thumbnail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Thumbnail({}x{})", self.size.0, self.size.1)
    }
}

/// Width and height of a frame's thumbnail.
pub fn size_of(source: (u32, u32)) -> (u32, u32) {
    if source.0.max(source.1) <= SIDE_MAX {
        return source;
    }
    Letterbox::new(source, (SIDE_MAX, SIDE_MAX), Fit::TopLeft).picture
}

/// Bytes of Y, U and V.
pub fn plane_bytes((width, height): (u32, u32)) -> [usize; 3] {
    let chroma = width.div_ceil(2) as usize * height.div_ceil(2) as usize;
    [width as usize * height as usize, chroma, chroma]
}

/// Memory for thumbnails: bounded, and no more of it than were ever there at once. Clones share.
#[derive(Clone)]
pub struct Pool {
    room: Arc<Mutex<Room>>,
    metrics: ThumbnailMetrics,
}

struct Room {
    /// Buffers that may still be taken; those never used have no memory yet.
    left: usize,
    /// Used before: the latest is taken first.
    spare: Vec<Vec<u8>>,
}

impl Pool {
    /// Room for `most` thumbnails at once.
    pub fn new(most: usize, metrics: ThumbnailMetrics) -> Self {
        Self { room: Arc::new(Mutex::new(Room { left: most, spare: Vec::new() })), metrics }
    }

    /// A place for a thumbnail; `None`, which is counted, where all are out.
    pub fn take(&self) -> Option<Blank> {
        let mut room = self.lock();
        let Some(left) = room.left.checked_sub(1) else {
            self.metrics.missed.inc();
            return None;
        };
        room.left = left;
        let pixels = room.spare.pop().unwrap_or_default();
        Some(Blank { pixels, pool: self.clone(), is_asked: false })
    }

    fn put(&self, pixels: Vec<u8>) {
        let mut room = self.lock();
        room.left += 1;
        if pixels.capacity() > 0 {
            room.spare.push(pixels);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place for a thumbnail, taken before the pixels are there. Dropping it, or the thumbnail in it, gives it back.
pub struct Blank {
    pixels: Vec<u8>,
    pool: Pool,
    is_asked: bool,
}

impl Blank {
    /// The thumbnail of a frame in host memory. What `mask` covers is grey.
    pub fn write(mut self, image: &SystemImage, mask: Option<&RegionMask>, shrink: &mut Shrink) -> Thumbnail {
        let start = Instant::now();
        let source = (image.width, image.height);
        let size = size_of(source);
        shrink.shrink(image, size, &mut self.pixels);
        self.finish(start, source, size, image.colour, mask)
    }

    /// The thumbnail of a frame of `source` pixels that the GPU has made small: `pixels` in `size`, Y, U and V one after the
    /// other. What `mask` covers is grey.
    pub fn copy(
        mut self,
        pixels: &[u8],
        size: (u32, u32),
        source: (u32, u32),
        colour: Colour,
        mask: Option<&RegionMask>,
    ) -> Thumbnail {
        let start = Instant::now();
        self.pixels.clear();
        self.pixels.extend_from_slice(pixels);
        self.finish(start, source, size, colour, mask)
    }

    fn finish(
        mut self,
        start: Instant,
        source: (u32, u32),
        size: (u32, u32),
        colour: Colour,
        mask: Option<&RegionMask>,
    ) -> Thumbnail {
        if let Some(mask) = mask {
            cover(mask, source, size, &mut self.pixels);
        }
        self.pool.metrics.time.record(start.elapsed());
        Thumbnail { size, colour, place: self }
    }

    /// Somebody asked for it, whatever is in it.
    pub fn is_asked(&self) -> bool {
        self.is_asked
    }
}

impl Drop for Blank {
    fn drop(&mut self) {
        self.pool.put(std::mem::take(&mut self.pixels));
    }
}

/// Blanks what a mask covers. A pixel of chroma goes with each of its four pixels of luma.
fn cover(mask: &RegionMask, source: (u32, u32), size: (u32, u32), pixels: &mut [u8]) {
    let [luma, chroma, _] = plane_bytes(size);
    let (y, rest) = pixels.split_at_mut(luma);
    let (u, v) = rest.split_at_mut(chroma);
    let (width, half) = (size.0 as usize, size.0.div_ceil(2) as usize);
    for span in mask.spans(&Letterbox::new(source, size, Fit::Stretch)) {
        let (row, from, to) = (span.y as usize, span.x0 as usize, span.x1 as usize);
        y[row * width + from..row * width + to].fill(GREY[0]);
        for (plane, grey) in [(&mut *u, GREY[1]), (&mut *v, GREY[2])] {
            plane[row / 2 * half + from / 2..row / 2 * half + to.div_ceil(2)].fill(grey);
        }
    }
}

/// Cameras whose next frame that may have one gets a thumbnail whatever is in it. Clones share: whoever asks does so on another thread.
#[derive(Clone, Default)]
pub struct Asked(Arc<Asking>);

#[derive(Default)]
struct Asking {
    /// There is a camera: looked at with each frame, so that the lock is taken for few.
    any: AtomicBool,
    cameras: Mutex<HashSet<CameraId>>,
}

impl Asked {
    /// The camera's next frame is wanted, or the first one [`EVERY`] after the latest thumbnail.
    pub fn ask(&self, camera: &CameraId) {
        self.change(|cameras| cameras.insert(camera.clone()));
    }

    /// It is wanted no longer.
    pub fn forget(&self, camera: &CameraId) {
        self.change(|cameras| cameras.remove(camera));
    }

    fn has(&self, camera: &CameraId) -> bool {
        self.0.any.load(Ordering::Relaxed) && self.lock().contains(camera)
    }

    fn change(&self, how: impl FnOnce(&mut HashSet<CameraId>) -> bool) {
        let mut cameras = self.lock();
        how(&mut cameras);
        self.0.any.store(!cameras.is_empty(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<CameraId>> {
        self.0.cameras.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Decides which frames get one: the backend's own, on the thread that submits and collects.
#[derive(Clone)]
pub struct Thumbnails {
    pool: Pool,
    epoch: Instant,
    cameras: HashMap<CameraId, Camera>,
    asked: Asked,
}

/// What is remembered of a camera.
#[derive(Clone, Copy, Default)]
struct Camera {
    /// When the frame was taken that got the latest one.
    latest: Option<Duration>,
    /// There was something in its latest frame: what the one under way holds is known only when its pixels have gone.
    is_busy: bool,
}

impl Thumbnails {
    /// For so many `cameras`.
    pub fn new(cameras: usize, metrics: ThumbnailMetrics) -> Self {
        let pool = Pool::new((A_CAMERA * cameras.max(4)).min(IN_ALL), metrics);
        Self { pool, epoch: Instant::now(), cameras: HashMap::new(), asked: Asked::default() }
    }

    /// Asks for frames whatever is in them.
    pub fn asked(&self) -> Asked {
        self.asked.clone()
    }

    /// A place for the thumbnail of a frame, if it is to have one.
    pub fn due(&mut self, frame: &FrameInfo) -> Option<Blank> {
        let is_asked = self.asked.has(&frame.camera);
        let camera = self.cameras.get(&frame.camera).copied().unwrap_or_default();
        let at = frame.time(self.epoch);
        // A clock that went back begins anew.
        let is_soon = camera.latest.is_some_and(|latest| at >= latest && at - latest < EVERY);
        if is_soon || !(camera.is_busy || is_asked) {
            return None;
        }
        let mut blank = self.pool.take()?;
        if is_asked {
            blank.is_asked = true;
            self.asked.forget(&frame.camera);
        }
        self.cameras.insert(frame.camera.clone(), Camera { latest: Some(at), ..camera });
        Some(blank)
    }

    /// Whether there was anything in a camera's frame.
    pub fn found(&mut self, camera: &CameraId, anything: bool) {
        match self.cameras.get_mut(camera) {
            Some(known) => known.is_busy = anything,
            None => {
                self.cameras.insert(camera.clone(), Camera { latest: None, is_busy: anything });
            }
        }
    }
}

#[cfg(test)]
mod tests;

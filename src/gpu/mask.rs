//! Region masks on the device: a bitmap of the input pixels to blank, made once a mask and geometry.

use std::sync::Arc;

use super::device::Device;
use super::error::GpuError;
use super::letterbox::mask_bits;
use super::memory::{DeviceBuffer, Pinned};
use super::stream::Stream;
use crate::letterbox::Letterbox;
use crate::mask::RegionMask;

/// Bitmaps remembered: one a camera, as long as its geometry stays.
const MASKS: usize = 256;

/// The bitmaps of the masks seen so far.
pub struct MaskCache {
    device: Device,
    stream: Stream,
    known: Vec<Known>,
    /// Times that one was asked for.
    calls: u64,
}

struct Known {
    mask: Arc<RegionMask>,
    letterbox: Letterbox,
    bitmap: DeviceBuffer,
    /// The call that asked for it last.
    used: u64,
}

impl MaskCache {
    /// An empty one.
    ///
    /// # Errors
    ///
    /// [`GpuError::Failed`] where the device gives no stream.
    pub fn new(device: &Device) -> Result<Self, GpuError> {
        Ok(Self { device: device.clone(), stream: Stream::new(device)?, known: Vec::new(), calls: 0 })
    }

    /// Device address of the bitmap of `mask` under `letterbox` (see [`mask_bits`]), valid for the next batch. The first
    /// time it is made and waited for.
    ///
    /// # Errors
    ///
    /// [`GpuError::Memory`] where the device is full.
    pub fn address(&mut self, mask: &Arc<RegionMask>, letterbox: &Letterbox) -> Result<u64, GpuError> {
        self.calls += 1;
        let used = self.calls;
        let known = self.known.iter_mut().find(|k| Arc::ptr_eq(&k.mask, mask) && k.letterbox == *letterbox);
        if let Some(known) = known {
            known.used = used;
            return Ok(known.bitmap.address());
        }
        let bits = mask_bits(&mask.spans(letterbox), letterbox.input);
        let bytes = bits.len() * size_of::<u32>();
        let (mut host, buffer) = (Pinned::new(&self.device, bytes)?, DeviceBuffer::new(&self.device, bytes)?);
        host.slice_mut(0, bits.len()).copy_from_slice(&bits);
        self.stream.upload(&host, 0, &buffer, 0, bytes)?;
        self.stream.synchronize()?;
        if self.known.len() == MASKS {
            // Never one of this batch, which has fewer lanes. Freeing waits for the batches that may still read it.
            let oldest = (0..MASKS).min_by_key(|at| self.known[*at].used).unwrap_or(0);
            self.known.swap_remove(oldest);
        }
        let address = buffer.address();
        self.known.push(Known { mask: Arc::clone(mask), letterbox: *letterbox, bitmap: buffer, used });
        Ok(address)
    }
}

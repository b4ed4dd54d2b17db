//! Memory of the device, and host memory that the device reads and writes by itself.

use std::ffi::c_void;
use std::ptr::NonNull;

use cudarc::driver::sys;

use super::device::Device;
use super::error::{GpuError, check};
use super::head::GpuBox;
use super::letterbox::LaneEntry;

/// Types of which every bit pattern is a value and which have no padding.
pub trait Pod: Copy + sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
}

macro_rules! pod {
    ($($name:ty),*) => { $(impl sealed::Sealed for $name {} impl Pod for $name {})* };
}
pod!(u8, u16, u32, u64, i32, i64, f32, LaneEntry, GpuBox);

/// Memory of a device. Freed on drop: what works on it must have finished by then.
#[derive(Debug)]
pub struct DeviceBuffer {
    device: Device,
    address: u64,
    bytes: usize,
}

impl DeviceBuffer {
    /// `bytes` of zeroes, aligned to 256. No bytes are no allocation.
    ///
    /// # Errors
    ///
    /// [`GpuError::Memory`] where the device is full.
    pub fn new(device: &Device, bytes: usize) -> Result<Self, GpuError> {
        let mut buffer = Self { device: device.clone(), address: 0, bytes };
        if bytes == 0 {
            return Ok(buffer);
        }
        device.bind()?;
        let doing = format!("allocating {bytes} bytes on GPU {}", device.ordinal());
        // SAFETY: the context is current and the address lives over the call; freed by `drop`.
        check(unsafe { sys::cuMemAlloc_v2(&mut buffer.address, bytes) }, &doing)?;
        // The stream 0 is waited for: the streams that will use the buffer do not wait for it themselves.
        let null = std::ptr::null_mut();
        // SAFETY: the allocation has `bytes` bytes.
        check(unsafe { sys::cuMemsetD8Async(buffer.address, 0, bytes, null) }, "clearing memory")?;
        // SAFETY: the context is current.
        check(unsafe { sys::cuStreamSynchronize(null) }, "clearing memory")?;
        Ok(buffer)
    }

    /// Its address on the device, 0 where it is empty.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The address `offset` bytes in, from where `bytes` more lie within the buffer.
    pub(super) fn range(&self, offset: usize, bytes: usize) -> Result<u64, GpuError> {
        within(offset, bytes, self.bytes)?;
        Ok(self.address + offset as u64)
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        if self.address != 0 && self.device.bind().is_ok() {
            // SAFETY: allocated by `new`, freed once. An error means that the device is gone, and the memory with it.
            let _ = unsafe { sys::cuMemFree_v2(self.address) };
        }
    }
}

/// Page-locked memory of the host: copies from and to the device run beside the host's work.
///
/// A stream may still read or write it after [`super::stream::Stream::upload`] or `download` has returned: leave it
/// alone, and alive, until an event or a synchronisation says that the copy is done.
#[derive(Debug)]
pub struct Pinned {
    device: Device,
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: plain memory with one owner.
unsafe impl Send for Pinned {}
// SAFETY: shared references only read.
unsafe impl Sync for Pinned {}

impl Pinned {
    /// `bytes` of zeroes, aligned to a page.
    ///
    /// # Errors
    ///
    /// [`GpuError::Memory`] where so much cannot be locked.
    pub fn new(device: &Device, bytes: usize) -> Result<Self, GpuError> {
        device.bind()?;
        let mut start: *mut c_void = std::ptr::null_mut();
        let doing = format!("locking {bytes} bytes of host memory");
        // SAFETY: the context is current and the pointer lives over the call; freed by `drop`. One byte at least: none
        // are refused.
        let code = unsafe { sys::cuMemHostAlloc(&mut start, bytes.max(1), sys::CU_MEMHOSTALLOC_PORTABLE) };
        check(code, &doing)?;
        let start = NonNull::new(start.cast::<u8>())
            .ok_or_else(|| GpuError::Memory(format!("the driver gave no memory while {doing}: free some")))?;
        // SAFETY: the allocation has `bytes` bytes.
        unsafe { start.write_bytes(0, bytes) };
        Ok(Self { device: device.clone(), start, bytes })
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the allocation has `bytes` initialised bytes and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }

    /// All of it, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }

    /// `count` values from byte `offset` on.
    ///
    /// # Panics
    ///
    /// Where they do not lie within, or `offset` is not aligned for `T`.
    pub fn slice<T: Pod>(&self, offset: usize, count: usize) -> &[T] {
        self.assert_holds::<T>(offset, count);
        // SAFETY: within the allocation and aligned, as asserted; any bytes are a `T`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(offset).cast::<T>(), count) }
    }

    /// `count` values from byte `offset` on, to write.
    ///
    /// # Panics
    ///
    /// As [`Pinned::slice`].
    pub fn slice_mut<T: Pod>(&mut self, offset: usize, count: usize) -> &mut [T] {
        self.assert_holds::<T>(offset, count);
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(offset).cast::<T>(), count) }
    }

    fn assert_holds<T>(&self, offset: usize, count: usize) {
        let end = count.checked_mul(size_of::<T>()).and_then(|bytes| bytes.checked_add(offset));
        assert!(end.is_some_and(|end| end <= self.bytes), "{count} values at {offset} of {} bytes", self.bytes);
        assert!(offset.is_multiple_of(align_of::<T>()), "offset {offset} is not aligned");
    }

    /// The pointer `offset` bytes in, from where `bytes` more lie within.
    pub(super) fn range(&self, offset: usize, bytes: usize) -> Result<*mut c_void, GpuError> {
        within(offset, bytes, self.bytes)?;
        // SAFETY: within the allocation, or one past its end.
        Ok(unsafe { self.start.as_ptr().add(offset) }.cast())
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: allocated by `new`, freed once. An error means that the device is gone.
            let _ = unsafe { sys::cuMemFreeHost(self.start.as_ptr().cast()) };
        }
    }
}

fn within(offset: usize, bytes: usize, length: usize) -> Result<(), GpuError> {
    match offset.checked_add(bytes) {
        Some(end) if end <= length => Ok(()),
        _ => Err(GpuError::Config(format!(
            "{bytes} bytes at offset {offset} do not lie within a buffer of {length}: the engine's shapes and the buffers \
             disagree; build the engine anew"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_beyond_a_buffer_are_refused() {
        assert!(within(0, 16, 16).is_ok());
        assert!(within(16, 0, 16).is_ok());
        for (offset, bytes) in [(1, 16), (17, 0), (usize::MAX, 1), (8, usize::MAX)] {
            assert!(matches!(within(offset, bytes, 16), Err(GpuError::Config(_))), "{offset} {bytes}");
        }
    }
}

//! Work in order on a device: streams, graphs of it, and events to see how far it is.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::sys::{
    self, CUevent, CUevent_flags, CUgraph, CUgraphExec, CUresult, CUstream, CUstream_flags, CUstreamCaptureMode,
    CUstreamCaptureStatus,
};

use super::device::Device;
use super::error::{GpuError, check};
use super::memory::{DeviceBuffer, Pinned};
use crate::frame::Image;

/// A queue of work on a device that does not wait for the device's stream 0. Clones are the same one.
///
/// All calls return before the work is done. Buffers given to them must live, and pinned ones be left alone, until an
/// [`Event`] or [`Stream::synchronize`] says that it is.
#[derive(Clone, Debug)]
pub struct Stream {
    queue: Arc<Queue>,
}

#[derive(Debug)]
struct Queue {
    device: Device,
    raw: CUstream,
}

// SAFETY: a handle that the driver lets every thread use.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

impl Stream {
    /// A new stream, of the highest priority: decoders' copies fill the gaps of the engine's work, not the other way
    /// round.
    ///
    /// # Errors
    ///
    /// [`GpuError::Memory`] or [`GpuError::Failed`], as the driver says.
    pub fn new(device: &Device) -> Result<Self, GpuError> {
        Self::with_priority(device, |(_, highest)| highest)
    }

    /// A new stream, of the lowest priority: its work fills the gaps of all other work.
    ///
    /// # Errors
    ///
    /// As [`Stream::new`].
    pub fn in_background(device: &Device) -> Result<Self, GpuError> {
        Self::with_priority(device, |(lowest, _)| lowest)
    }

    fn with_priority(device: &Device, choose: impl FnOnce((i32, i32)) -> i32) -> Result<Self, GpuError> {
        device.bind()?;
        let (mut lowest, mut highest, mut raw) = (0, 0, std::ptr::null_mut());
        // SAFETY: the context is current, both numbers live over the call.
        let code = unsafe { sys::cuCtxGetStreamPriorityRange(&mut lowest, &mut highest) };
        check(code, "asking for its priorities")?;
        let flags = CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        let priority = choose((lowest, highest));
        // SAFETY: the context is current, `raw` lives over the call; destroyed by `Queue::drop`.
        let code = unsafe { sys::cuStreamCreateWithPriority(&mut raw, flags, priority) };
        check(code, "making a stream")?;
        Ok(Self { queue: Arc::new(Queue { device: device.clone(), raw }) })
    }

    /// The `CUstream`. Valid while this or a clone lives.
    pub fn raw(&self) -> usize {
        self.queue.raw as usize
    }

    /// Its device.
    pub fn device(&self) -> &Device {
        &self.queue.device
    }

    /// Waits until all work is done; the thread sleeps or spins as [`super::device::Waits`] says.
    ///
    /// # Errors
    ///
    /// [`GpuError::Failed`] where any of the work failed.
    pub fn synchronize(&self) -> Result<(), GpuError> {
        let raw = self.bind()?;
        // SAFETY: the stream is alive.
        check(unsafe { sys::cuStreamSynchronize(raw) }, "working")
    }

    /// Copies `bytes` to the device.
    ///
    /// # Errors
    ///
    /// [`GpuError::Config`] where a range does not lie within its buffer, else as the driver says.
    pub fn upload(
        &self,
        from: &Pinned,
        from_offset: usize,
        to: &DeviceBuffer,
        to_offset: usize,
        bytes: usize,
    ) -> Result<(), GpuError> {
        let (from, to) = (from.range(from_offset, bytes)?, to.range(to_offset, bytes)?);
        let raw = self.bind()?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: both ranges lie within their buffers, which outlive the copy as the type's contract says.
        check(unsafe { sys::cuMemcpyHtoDAsync_v2(to, from, bytes, raw) }, "copying to it")
    }

    /// Copies `bytes` from the device.
    ///
    /// # Errors
    ///
    /// As [`Stream::upload`].
    pub fn download(
        &self,
        from: &DeviceBuffer,
        from_offset: usize,
        to: &mut Pinned,
        to_offset: usize,
        bytes: usize,
    ) -> Result<(), GpuError> {
        let (from, to) = (from.range(from_offset, bytes)?, to.range(to_offset, bytes)?);
        let raw = self.bind()?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: both ranges lie within their buffers, which outlive the copy as the type's contract says.
        check(unsafe { sys::cuMemcpyDtoHAsync_v2(to, from, bytes, raw) }, "copying from it")
    }

    /// Sets `bytes` to 0.
    ///
    /// # Errors
    ///
    /// As [`Stream::upload`].
    pub fn clear(&self, buffer: &DeviceBuffer, offset: usize, bytes: usize) -> Result<(), GpuError> {
        let address = buffer.range(offset, bytes)?;
        let raw = self.bind()?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the range lies within the buffer, which outlives the work as the type's contract says.
        check(unsafe { sys::cuMemsetD8Async(address, 0, bytes, raw) }, "clearing memory")
    }

    /// Later work waits for what `event` has recorded, on whichever stream.
    ///
    /// # Errors
    ///
    /// [`GpuError::Failed`], as the driver says.
    pub fn wait(&self, event: &Event) -> Result<(), GpuError> {
        let raw = self.bind()?;
        // SAFETY: both handles are alive; the flags must be 0.
        check(unsafe { sys::cuStreamWaitEvent(raw, event.raw, 0) }, "waiting for another stream")
    }

    /// Later work waits for what the frame's decoder may still be doing. `mark` is free again afterwards: a wait is for where
    /// a mark was when it began.
    ///
    /// # Errors
    ///
    /// [`GpuError::Failed`], as the driver says.
    pub fn follow(&self, image: &Image, mark: &Event) -> Result<(), GpuError> {
        let Some(decoder) = image.stream() else { return Ok(()) };
        self.bind()?;
        mark.put(decoder as CUstream)?;
        self.wait(mark)
    }

    /// Calls `done` on a thread of the driver once all work so far is done. It must not call CUDA, nor wait for
    /// anything that does: that thread drives the stream. After a failure of the device it may never be called.
    ///
    /// # Errors
    ///
    /// [`GpuError::Failed`], as the driver says, and while the stream is captured: a graph would call it twice.
    pub fn notify(&self, done: Box<dyn FnOnce() + Send>) -> Result<(), GpuError> {
        let raw = self.bind()?;
        let mut status = CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        // SAFETY: the stream is alive, `status` lives over the call.
        check(unsafe { sys::cuStreamIsCapturing(raw, &mut status) }, "looking at a stream")?;
        if status != CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE {
            return Err(GpuError::Failed("a notice cannot be part of a graph: ask for it after the launch".into()));
        }
        let data = Box::into_raw(Box::new(done)).cast::<c_void>();
        // SAFETY: the stream is alive; `call` takes the box back, once.
        let code = unsafe { sys::cuLaunchHostFunc(raw, Some(call), data) };
        if code != CUresult::CUDA_SUCCESS {
            // SAFETY: the driver refused it, so the box is still ours.
            drop(unsafe { Box::from_raw(data.cast::<Box<dyn FnOnce() + Send>>()) });
        }
        check(code, "asking for a notice")
    }

    /// Records what `work` puts on this stream, without running it. Other threads' calls of CUDA (decoders) do not
    /// disturb it, and `work` may allocate.
    ///
    /// # Errors
    ///
    /// What `work` returns, and [`GpuError::Failed`] where something in it cannot be part of a graph.
    pub fn capture(&self, work: impl FnOnce() -> Result<(), GpuError>) -> Result<Graph, GpuError> {
        let raw = self.bind()?;
        let relaxed = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream is alive.
        check(unsafe { sys::cuStreamBeginCapture_v2(raw, relaxed) }, "recording a graph")?;
        let done = work();
        let mut graph: CUgraph = std::ptr::null_mut();
        // SAFETY: the stream is alive, `graph` lives over the call. Ends the recording whatever became of `work`.
        let code = unsafe { sys::cuStreamEndCapture(raw, &mut graph) };
        let graph = Recorded(graph);
        done?;
        check(code, "recording a graph")?;
        let mut exec: CUgraphExec = std::ptr::null_mut();
        // SAFETY: the graph is whole; `exec` lives over the call and is destroyed by `Graph::drop`.
        check(unsafe { sys::cuGraphInstantiateWithFlags(&mut exec, graph.0, 0) }, "making a graph")?;
        Ok(Graph { device: self.queue.device.clone(), exec })
    }

    /// Makes the context current; the raw handle for the call that follows.
    pub(super) fn bind(&self) -> Result<CUstream, GpuError> {
        self.queue.device.bind()?;
        Ok(self.queue.raw)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: made by `Stream::new`, destroyed once; work under way is finished by the driver.
            let _ = unsafe { sys::cuStreamDestroy_v2(self.raw) };
        }
    }
}

/// What [`Stream::notify`] puts on the stream. A panic in it ends the process.
extern "C" fn call(data: *mut c_void) {
    // SAFETY: `data` is the box that `notify` gave away; the driver calls this once.
    let done = unsafe { Box::from_raw(data.cast::<Box<dyn FnOnce() + Send>>()) };
    done();
}

/// A graph as recorded; what is launched is made from it.
struct Recorded(CUgraph);

impl Drop for Recorded {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: made by the end of a capture, destroyed once; graphs made from it are on their own.
            let _ = unsafe { sys::cuGraphDestroy(self.0) };
        }
    }
}

/// Recorded work, launched as one. The buffers it works on must outlive its last launch.
#[derive(Debug)]
pub struct Graph {
    device: Device,
    exec: CUgraphExec,
}

// SAFETY: a handle that any one thread at a time may use.
unsafe impl Send for Graph {}

impl Graph {
    /// Puts the work on a stream of the same device.
    ///
    /// # Errors
    ///
    /// [`GpuError::Failed`], as the driver says.
    pub fn launch(&self, on: &Stream) -> Result<(), GpuError> {
        let raw = on.bind()?;
        // SAFETY: both handles are alive.
        check(unsafe { sys::cuGraphLaunch(self.exec, raw) }, "launching a graph")
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: made by `Stream::capture`, destroyed once; a launch under way is finished by the driver.
            let _ = unsafe { sys::cuGraphExecDestroy(self.exec) };
        }
    }
}

/// A mark in a stream, with the time at which the device passed it.
#[derive(Debug)]
pub struct Event {
    device: Device,
    raw: CUevent,
}

// SAFETY: a handle that the driver lets every thread use.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    /// A mark that is nowhere yet.
    ///
    /// # Errors
    ///
    /// [`GpuError::Failed`], as the driver says.
    pub fn new(device: &Device) -> Result<Self, GpuError> {
        Self::with_flags(device, CUevent_flags::CU_EVENT_DEFAULT)
    }

    /// The same without its time, for streams that wait for one another.
    ///
    /// # Errors
    ///
    /// As [`Event::new`].
    pub fn timeless(device: &Device) -> Result<Self, GpuError> {
        Self::with_flags(device, CUevent_flags::CU_EVENT_DISABLE_TIMING)
    }

    fn with_flags(device: &Device, flags: CUevent_flags) -> Result<Self, GpuError> {
        device.bind()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the context is current, `raw` lives over the call; destroyed by `drop`.
        let code = unsafe { sys::cuEventCreate(&mut raw, flags as u32) };
        check(code, "making an event")?;
        Ok(Self { device: device.clone(), raw })
    }

    /// Puts the mark behind all work so far; a mark put before is forgotten.
    ///
    /// # Errors
    ///
    /// [`GpuError::Failed`], as the driver says.
    pub fn record(&self, on: &Stream) -> Result<(), GpuError> {
        self.put(on.bind()?)
    }

    /// The same on the raw handle, whose context is current: ours, or that of a decoder, which its frame keeps.
    fn put(&self, on: CUstream) -> Result<(), GpuError> {
        // SAFETY: both handles are alive.
        check(unsafe { sys::cuEventRecord(self.raw, on) }, "marking a stream")
    }

    /// Whether the device has passed the mark; true where it was never put.
    ///
    /// # Errors
    ///
    /// [`GpuError::Failed`] where the work before it failed.
    pub fn done(&self) -> Result<bool, GpuError> {
        self.device.bind()?;
        // SAFETY: the event is alive.
        match unsafe { sys::cuEventQuery(self.raw) } {
            CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            code => check(code, "working").map(|()| true),
        }
    }

    /// Milliseconds on the device from `earlier` to this mark; the device must have passed both.
    ///
    /// # Errors
    ///
    /// [`GpuError::Failed`] where it has not.
    pub fn ms_since(&self, earlier: &Event) -> Result<f32, GpuError> {
        self.device.bind()?;
        let mut ms = 0.0;
        // SAFETY: both events are alive, `ms` lives over the call.
        check(unsafe { sys::cuEventElapsedTime(&mut ms, earlier.raw, self.raw) }, "reading its clock")?;
        Ok(ms)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: made by `new`, destroyed once.
            let _ = unsafe { sys::cuEventDestroy_v2(self.raw) };
        }
    }
}

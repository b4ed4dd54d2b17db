//! Engines and what runs them.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Arc;

use tensorrt_sys as sys;

use super::log::Call;
use super::{IoTensor, Layout, Library, TrtError};

/// A deserialized engine. It can be given to another thread, and is used on one at a time.
pub struct Engine {
    inner: Arc<Loaded>,
    one_thread: PhantomData<Cell<()>>,
}

struct Loaded {
    engine: *mut sys::Engine,
    library: Library,
}

// SAFETY: an engine is bound to no thread (TensorRT's documentation: its functions are thread-safe but for the setters,
// of which none is called after loading).
unsafe impl Send for Loaded {}
// SAFETY: as above.
unsafe impl Sync for Loaded {}

impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: made by this slice, freed once; contexts hold the `Arc`, so none is left.
        unsafe { (self.library.table().engine_free)(self.engine) };
    }
}

impl Engine {
    /// Deserializes an engine file's bytes onto the GPU that is bound on this thread, or a core of its accelerator.
    /// Bytes that nobody vouches for are loaded in a process of their own: TensorRT trusts what it reads.
    ///
    /// # Errors
    ///
    /// [`TrtError::Engine`]: not for this TensorRT or GPU, or no engine. [`TrtError::Unavailable`]: no GPU.
    pub fn load(library: &Library, bytes: &[u8], dla_core: Option<u32>) -> Result<Self, TrtError> {
        let name = library.name();
        let refuse = |reason: &str| {
            TrtError::Engine(format!(
                "{name} does not take this engine: {reason}: build it again on this machine, with this TensorRT"
            ))
        };
        if bytes.is_empty() {
            return Err(refuse("the file is empty"));
        }
        let core =
            dla_core.map_or(Ok(-1), i32::try_from).map_err(|_| refuse("there is no such accelerator core"))?;
        let call = Call::begin(None);
        let mut engine = ptr::null_mut();
        // SAFETY: the entry is this library's, the bytes outlive the call (TensorRT copies), `engine` is written on OK.
        let status = unsafe {
            (library.table().engine_load)(library.entry(), bytes.as_ptr().cast(), bytes.len(), core, &mut engine)
        };
        match status {
            sys::OK => {
                let inner = Arc::new(Loaded { engine, library: library.clone() });
                Ok(Self { inner, one_thread: PhantomData })
            }
            sys::UNAVAILABLE => Err(no_gpu(library, "runtime", &call)),
            sys::REFUSED => Err(match why(&call.reason()) {
                Why::Gpu => no_gpu(library, "GPU", &call),
                Why::Memory => TrtError::Failed(format!(
                    "{name} has too little GPU memory for this engine of {} MiB: {}: free some, or build for a smaller \
                     batch",
                    bytes.len() >> 20,
                    call.reason()
                )),
                Why::Engine => refuse(&call.reason()),
            }),
            _ => Err(refuse(&thrown(library))),
        }
    }

    /// Inputs and outputs, in the engine's order.
    pub fn tensors(&self) -> Vec<IoTensor> {
        let mut count = 0;
        // SAFETY: the engine lives, `count` is written.
        unsafe { (self.table().engine_tensors)(self.inner.engine, &mut count) };
        (0..count).filter_map(|index| self.tensor(index)).collect()
    }

    fn tensor(&self, index: i32) -> Option<IoTensor> {
        let mut tensor = MaybeUninit::<sys::Tensor>::zeroed();
        // SAFETY: the engine lives, and the struct is written; all zeroes are a value of it.
        let (status, tensor) = unsafe {
            let status = (self.table().engine_tensor)(self.inner.engine, index, tensor.as_mut_ptr());
            (status, tensor.assume_init())
        };
        if status != sys::OK {
            return None;
        }
        // SAFETY: on OK the name is a string of the engine's.
        let name = unsafe { CStr::from_ptr(tensor.name) }.to_string_lossy().into_owned();
        let element = super::element(tensor.element);
        let layout = match tensor.layout {
            0 => Layout::Linear,
            1 => Layout::Packed,
            _ => Layout::Other,
        };
        Some(IoTensor { name, input: tensor.input != 0, shape: shape_of(&tensor), element, layout })
    }

    /// What the inspector says of the layers, as JSON: kernels, precisions, shapes. Engines built elsewhere may hold
    /// only their names.
    ///
    /// # Errors
    ///
    /// [`TrtError::Failed`]: the inspector does not work.
    pub fn layers(&self) -> Result<String, TrtError> {
        let call = Call::begin(None);
        let mut json = Vec::new();
        // SAFETY: the engine lives; `take_bytes` gets the vector it expects.
        let status = unsafe {
            (self.table().engine_layers)(self.inner.engine, take_bytes, (&raw mut json).cast::<c_void>())
        };
        if status == sys::OK {
            return Ok(String::from_utf8_lossy(&json).into_owned());
        }
        Err(TrtError::Failed(format!(
            "{} cannot tell the engine's layers: {}: build it again, with this TensorRT",
            self.inner.library.name(),
            call.reason()
        )))
    }

    /// Bytes that one [`Context`] takes of the GPU's memory, beside the weights.
    pub fn device_memory(&self) -> u64 {
        let mut bytes = 0;
        // SAFETY: the engine lives, `bytes` is written.
        unsafe { (self.table().engine_memory)(self.inner.engine, &mut bytes) };
        bytes
    }

    fn table(&self) -> &'static sys::Table {
        self.inner.library.table()
    }
}

/// Runs an [`Engine`], one batch at a time. It can be given to another thread, and is used on one at a time.
pub struct Context {
    context: *mut sys::Context,
    // The engine lives as long as its contexts.
    engine: Arc<Loaded>,
}

// SAFETY: a context is bound to no thread; not `Sync`, so one thread uses it at a time.
unsafe impl Send for Context {}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by this slice, freed once, and before its engine.
        unsafe { (self.table().context_free)(self.context) };
    }
}

impl Context {
    /// With memory of its own, see [`Engine::device_memory`].
    ///
    /// # Errors
    ///
    /// [`TrtError::Failed`]: mostly too little GPU memory.
    pub fn new(engine: &Engine) -> Result<Self, TrtError> {
        let call = Call::begin(None);
        let mut context = ptr::null_mut();
        // SAFETY: the engine lives, `context` is written on OK.
        let status = unsafe { (engine.table().context_new)(engine.inner.engine, &mut context) };
        if status == sys::OK {
            return Ok(Self { context, engine: engine.inner.clone() });
        }
        let library = &engine.inner.library;
        if status == sys::EXCEPTION {
            return Err(TrtError::Failed(format!("{} cannot run the engine: {}", library.name(), thrown(library))));
        }
        Err(TrtError::Failed(format!(
            "{} cannot run the engine, which needs {} MiB of GPU memory: {}: free some, or build for a smaller batch",
            library.name(),
            engine.device_memory() >> 20,
            call.reason()
        )))
    }

    /// The shape of an input whose shape varies.
    ///
    /// # Errors
    ///
    /// [`TrtError::Failed`]: no such input, or a shape outside the engine's profile.
    pub fn set_shape(&mut self, name: &str, dims: &[usize]) -> Result<(), TrtError> {
        let wide: Vec<i64> = dims.iter().map(|dim| i64::try_from(*dim).unwrap_or(i64::MAX)).collect();
        let rank = i32::try_from(wide.len()).unwrap_or(i32::MAX);
        let what = || format!("input {name:?} cannot be of shape {dims:?}");
        self.call(name, what, |table, context, name| {
            // SAFETY: context and name live; `wide` has `rank` numbers.
            unsafe { (table.context_set_shape)(context, name, wide.as_ptr(), rank) }
        })
    }

    /// The shape of a tensor as it will be computed, once all inputs have theirs. `None` for an unknown dimension or an
    /// unknown tensor.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let name = CString::new(name).ok()?;
        let mut tensor = MaybeUninit::<sys::Tensor>::zeroed();
        // SAFETY: context and name live, and the struct is written; all zeroes are a value of it.
        let (status, tensor) = unsafe {
            let status = (self.table().context_shape)(self.context, name.as_ptr(), tensor.as_mut_ptr());
            (status, tensor.assume_init())
        };
        if status == sys::OK { shape_of(&tensor).into_iter().collect() } else { None }
    }

    /// Where a tensor's bytes are in GPU memory. They must be there, and of the tensor's size, whenever the batch runs.
    ///
    /// # Errors
    ///
    /// [`TrtError::Failed`]: no such tensor, or an address that TensorRT cannot use.
    pub fn set_address(&mut self, name: &str, address: u64) -> Result<(), TrtError> {
        self.call(
            name,
            || format!("tensor {name:?} cannot be at {address:#x}"),
            |table, context, name| {
                // SAFETY: context and name live; the address is only noted.
                unsafe { (table.context_set_address)(context, name, address) }
            },
        )
    }

    /// Puts one batch on a stream (a `CUstream` as a number) of the GPU that is bound on this thread; returns at once,
    /// but while layers are profiled.
    ///
    /// # Errors
    ///
    /// [`TrtError::Failed`]: a shape or address is missing, or the GPU has failed.
    pub fn enqueue(&mut self, stream: usize) -> Result<(), TrtError> {
        let stream: *mut c_void = ptr::with_exposed_provenance_mut(stream);
        self.call(
            "",
            || "the batch was not started".to_owned(),
            |table, context, _| {
                // SAFETY: the context lives; the stream is the caller's, of the GPU that it bound.
                unsafe { (table.context_enqueue)(context, stream) }
            },
        )
    }

    /// Times each layer of each batch from now on, or no more. Makes [`Context::enqueue`] wait for the GPU.
    pub fn profile_layers(&mut self, on: bool) {
        // SAFETY: the context lives.
        unsafe { (self.table().context_profile)(self.context, i32::from(on)) };
    }

    /// The layers of the newest batch with their times in milliseconds, in the order in which they ran.
    pub fn layer_times(&self) -> Vec<(String, f32)> {
        let mut times: Vec<(String, f32)> = Vec::new();
        // SAFETY: the context lives; `take_time` gets the vector it expects.
        unsafe { (self.table().context_times)(self.context, take_time, (&raw mut times).cast::<c_void>()) };
        times
    }

    /// A call that can fail, with a tensor's name.
    fn call(
        &mut self,
        name: &str,
        what: impl Fn() -> String,
        make: impl FnOnce(&sys::Table, *mut sys::Context, *const c_char) -> sys::Status,
    ) -> Result<(), TrtError> {
        let library = &self.engine.library;
        let failed = |reason: String| {
            TrtError::Failed(format!("{}: {}: {reason}: open the engine again", library.name(), what()))
        };
        let name = CString::new(name).map_err(|_| failed("the name has a zero byte".to_owned()))?;
        let call = Call::begin(None);
        match make(library.table(), self.context, name.as_ptr()) {
            sys::OK => Ok(()),
            sys::REFUSED => Err(failed(call.reason())),
            _ => Err(failed(thrown(library))),
        }
    }

    fn table(&self) -> &'static sys::Table {
        self.engine.library.table()
    }
}

/// What is to blame for an engine that does not load.
#[derive(Debug, PartialEq, Eq)]
enum Why {
    Gpu,
    Memory,
    Engine,
}

/// By TensorRT's words: it gives no number. Pure.
fn why(reason: &str) -> Why {
    let has = |words: &[&str]| words.iter().any(|word| reason.to_ascii_lowercase().contains(word));
    if has(&["out of memory", "outofmemory"]) {
        Why::Memory
    } else if has(&["cuda runtime", "cuda driver", "cuda initialization", "cuda failure"]) {
        Why::Gpu
    } else {
        Why::Engine
    }
}

/// No runtime, or no builder.
pub(super) fn no_gpu(library: &Library, part: &str, call: &Call) -> TrtError {
    TrtError::Unavailable(format!(
        "{} has no {part} here: {}: see that nvidia-smi shows the GPU, and that its driver is new enough",
        library.name(),
        call.reason()
    ))
}

/// The text of what the last call on this thread threw.
pub(super) fn thrown(library: &Library) -> String {
    // SAFETY: the shim's own text of this thread, which lives as long as the thread.
    unsafe { CStr::from_ptr((library.table().last_error)()) }.to_string_lossy().into_owned()
}

fn shape_of(tensor: &sys::Tensor) -> Vec<Option<usize>> {
    let rank = usize::try_from(tensor.rank).unwrap_or(0).min(sys::DIMS);
    tensor.dims[..rank].iter().map(|dim| usize::try_from(*dim).ok()).collect()
}

/// Appends to the `Vec<u8>` behind `user`.
pub(super) unsafe extern "C" fn take_bytes(user: *mut c_void, bytes: *const c_void, length: usize) {
    // SAFETY: `user` is the vector that the caller passed, and nothing else uses it during the call; the bytes are valid.
    unsafe { (*user.cast::<Vec<u8>>()).extend_from_slice(std::slice::from_raw_parts(bytes.cast(), length)) };
}

unsafe extern "C" fn take_time(user: *mut c_void, layer: *const c_char, ms: f32) {
    // SAFETY: `user` is the vector that `layer_times` passed; the name is valid during the call.
    let (times, layer) = unsafe { (&mut *user.cast::<Vec<(String, f32)>>(), CStr::from_ptr(layer)) };
    times.push((layer.to_string_lossy().into_owned(), ms));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_and_contexts_can_be_given_to_another_thread() {
        fn given<T: Send>() {}
        given::<Engine>();
        given::<Context>();
    }

    #[test]
    fn an_engine_is_not_blamed_for_the_gpu() {
        for (reason, blamed) in [
            ("Error Code 1: Cuda Runtime (CUDA driver version is insufficient for CUDA runtime version)", Why::Gpu),
            ("CUDA initialization failure with error: 35", Why::Gpu),
            ("1: [defaultAllocator.cpp::allocate::20] Error Code 1: Cuda Runtime (out of memory)", Why::Memory),
            ("Requested amount of GPU memory (8 bytes) could not be allocated: OutOfMemory", Why::Memory),
            (
                "Error Code 1: Serialization (Serialization assertion stdVersionRead == serializationVersion",
                Why::Engine,
            ),
        ] {
            assert_eq!(why(reason), blamed, "{reason}");
        }
    }
}

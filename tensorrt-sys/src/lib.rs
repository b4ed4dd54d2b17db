//! The few TensorRT calls that watchpost makes, behind a C ABI of our own.
//!
//! shim/slice.cpp is compiled once for each TensorRT header set at hand; each of these slices is one [`Table`] of
//! functions. Nothing of TensorRT is linked: whoever opens the library hands its entry points over in an [`Entry`].
//! The types here are those of shim/shim.h, which says what each part means.

use std::ffi::{c_char, c_void};

/// Most dimensions of a shape.
pub const DIMS: usize = 8;

/// How a call ended. A plain number: what C++ returns is not trusted to be one of a Rust enum's values.
pub type Status = i32;
/// Done.
pub const OK: Status = 0;
/// TensorRT said no; its log has the reason.
pub const REFUSED: Status = 1;
/// No runtime or no builder: mostly no GPU.
pub const UNAVAILABLE: Status = 2;
/// The ONNX file was not understood; [`Callbacks::refused`] was called with the reasons.
pub const MODEL: Status = 3;
/// Something was thrown; [`Table::last_error`] has its text.
pub const EXCEPTION: Status = 4;

/// Takes a line of TensorRT's log: 0 internal error, 1 error, 2 warning, 3 information, 4 chatter. From any thread.
pub type LogFn = unsafe extern "C" fn(severity: i32, text: *const c_char);
/// Takes bytes that are valid during the call.
pub type BytesFn = unsafe extern "C" fn(user: *mut c_void, bytes: *const c_void, length: usize);
/// Takes a layer's time in milliseconds.
pub type TimeFn = unsafe extern "C" fn(user: *mut c_void, layer: *const c_char, ms: f32);
/// Takes a node's index in the ONNX graph.
pub type NodeFn = unsafe extern "C" fn(user: *mut c_void, node: i64);

/// Where the libraries' functions are, as the loader found them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// `createInferRuntime_INTERNAL`.
    pub create_runtime: *mut c_void,
    /// `createInferBuilder_INTERNAL`; null: no building.
    pub create_builder: *mut c_void,
    /// `getPluginRegistry`; null: none.
    pub plugin_registry: *mut c_void,
    /// `createNvOnnxParser_INTERNAL`; null until the parser is open.
    pub create_parser: *mut c_void,
    /// `getInferLibVersion()`.
    pub version: i32,
    /// `getNvOnnxParserVersion()`.
    pub parser_version: i32,
}

/// An input or output.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Tensor {
    /// The engine's.
    pub name: *const c_char,
    /// -1: varies.
    pub dims: [i64; DIMS],
    /// How many of `dims` count.
    pub rank: i32,
    /// `nvinfer1::DataType`.
    pub element: i32,
    /// 1: an input.
    pub input: i32,
    /// 0: row by row; 1: channels of a place side by side, in fours (CHW4); -1: another.
    pub layout: i32,
}

/// Shapes that an input may have.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// The input's name.
    pub input: *const c_char,
    /// Smallest.
    pub min: [i64; DIMS],
    /// The one to be fast at.
    pub opt: [i64; DIMS],
    /// Largest.
    pub max: [i64; DIMS],
    /// How many dimensions count.
    pub rank: i32,
    /// Nothing.
    pub reserved: i32,
}

/// What to build.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Inputs whose shape varies.
    pub profiles: *const Profile,
    /// How many.
    pub profile_count: usize,
    /// An earlier build's.
    pub timing_cache: *const c_void,
    /// Its length; 0: begin a new one.
    pub timing_cache_bytes: usize,
    /// 0: TensorRT's own limit.
    pub workspace_bytes: u64,
    /// 0 FP32, 1 FP16, 2 INT8.
    pub precision: i32,
    /// -1: GPU.
    pub dla_core: i32,
    /// 1: layers that DLA cannot run go to the GPU.
    pub gpu_fallback: i32,
    /// 1: use 2:4 sparsity where the weights have it.
    pub sparse: i32,
    /// 1: FP16 inputs and outputs.
    pub half_io: i32,
    /// Between two calls of [`Callbacks::timing_cache`] while building.
    pub cache_interval_ms: i32,
}

/// What a build tells and asks. All but `phase` are called on the building thread only.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Callbacks {
    /// Handed back as it is.
    pub user: *mut c_void,
    /// A phase begins (`done` 0, `total` its steps), goes on (`done` steps, `total` -1) or ends (both -1).
    pub phase: unsafe extern "C" fn(user: *mut c_void, name: *const c_char, done: i32, total: i32),
    /// The timing cache so far, and at the end.
    pub timing_cache: BytesFn,
    /// The engine.
    pub engine: BytesFn,
    /// What the parser has against the model; `node` is -1 where no node is to blame.
    pub refused: unsafe extern "C" fn(
        user: *mut c_void,
        node: i64,
        name: *const c_char,
        op: *const c_char,
        reason: *const c_char,
    ),
    /// 1: the four below are asked.
    pub calibrate: i32,
    /// Images in a calibration batch.
    pub batch_size: i32,
    /// The device address of an input's next batch; returns 0 when there is none.
    pub next: unsafe extern "C" fn(user: *mut c_void, input: *const c_char, address: *mut u64) -> i32,
    /// An earlier calibration, valid until the next call; null: none.
    pub read_cache: unsafe extern "C" fn(user: *mut c_void, length: *mut usize) -> *const c_void,
    /// The calibration, to be kept.
    pub write_cache: BytesFn,
}

/// A deserialized engine with its runtime; opaque.
#[repr(C)]
pub struct Engine {
    opaque: [u8; 0],
}

/// An execution context; opaque.
#[repr(C)]
pub struct Context {
    opaque: [u8; 0],
}

/// One slice.
#[repr(C)]
#[allow(missing_docs, reason = "said in shim.h and by the names")]
pub struct Table {
    /// Of its headers: major, minor, patch, build.
    pub headers: [i32; 4],
    /// 1: TensorRT-RTX.
    pub rtx: i32,
    /// 1: precision comes from the model, and there is no calibrator.
    pub strongly_typed: i32,
    /// 1: [`Callbacks::phase`] is called.
    pub tells_progress: i32,
    /// Nothing.
    pub reserved: i32,

    /// What the last call on this thread threw.
    pub last_error: unsafe extern "C" fn() -> *const c_char,
    /// Where all log lines up to a severity go, from now on.
    pub log: unsafe extern "C" fn(log: LogFn, most: i32),

    pub engine_load: unsafe extern "C" fn(
        entry: *const Entry,
        bytes: *const c_void,
        length: usize,
        dla_core: i32,
        out: *mut *mut Engine,
    ) -> Status,
    pub engine_free: unsafe extern "C" fn(engine: *mut Engine),
    pub engine_tensors: unsafe extern "C" fn(engine: *const Engine, count: *mut i32) -> Status,
    pub engine_tensor: unsafe extern "C" fn(engine: *const Engine, index: i32, out: *mut Tensor) -> Status,
    pub engine_memory: unsafe extern "C" fn(engine: *const Engine, bytes: *mut u64) -> Status,
    pub engine_layers: unsafe extern "C" fn(engine: *const Engine, json: BytesFn, user: *mut c_void) -> Status,

    pub context_new: unsafe extern "C" fn(engine: *mut Engine, out: *mut *mut Context) -> Status,
    pub context_free: unsafe extern "C" fn(context: *mut Context),
    pub context_set_shape:
        unsafe extern "C" fn(context: *mut Context, name: *const c_char, dims: *const i64, rank: i32) -> Status,
    pub context_shape:
        unsafe extern "C" fn(context: *const Context, name: *const c_char, out: *mut Tensor) -> Status,
    pub context_set_address:
        unsafe extern "C" fn(context: *mut Context, name: *const c_char, address: u64) -> Status,
    pub context_enqueue: unsafe extern "C" fn(context: *mut Context, stream: *mut c_void) -> Status,
    pub context_profile: unsafe extern "C" fn(context: *mut Context, on: i32) -> Status,
    pub context_times: unsafe extern "C" fn(context: *const Context, tell: TimeFn, user: *mut c_void) -> Status,

    pub build: unsafe extern "C" fn(
        entry: *const Entry,
        onnx: *const c_void,
        length: usize,
        path: *const c_char,
        options: *const Options,
        callbacks: *const Callbacks,
    ) -> Status,
    pub supports: unsafe extern "C" fn(
        entry: *const Entry,
        onnx: *const c_void,
        length: usize,
        path: *const c_char,
        supported: NodeFn,
        callbacks: *const Callbacks,
    ) -> Status,
    pub load_plugins: unsafe extern "C" fn(entry: *const Entry, path: *const c_char, init: *mut c_void) -> Status,
}

unsafe extern "C" {
    #[cfg(tensorrt_v8)]
    safe static watchpost_tensorrt_v8: Table;
    #[cfg(tensorrt_v10)]
    safe static watchpost_tensorrt_v10: Table;
    #[cfg(tensorrt_v11)]
    safe static watchpost_tensorrt_v11: Table;
    #[cfg(tensorrt_rtx1)]
    safe static watchpost_tensorrt_rtx1: Table;
}

/// The slices that this build has.
pub fn slices() -> Vec<&'static Table> {
    vec![
        #[cfg(tensorrt_v8)]
        &watchpost_tensorrt_v8,
        #[cfg(tensorrt_v10)]
        &watchpost_tensorrt_v10,
        #[cfg(tensorrt_v11)]
        &watchpost_tensorrt_v11,
        #[cfg(tensorrt_rtx1)]
        &watchpost_tensorrt_rtx1,
    ]
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    #[test]
    fn layouts_are_those_that_the_shim_asserts() {
        assert_eq!((size_of::<Entry>(), size_of::<Tensor>(), size_of::<Profile>()), (40, 88, 208));
        assert_eq!((size_of::<Options>(), size_of::<Callbacks>(), size_of::<Table>()), (64, 72, 184));
        assert_eq!((offset_of!(Options, cache_interval_ms), offset_of!(Callbacks, write_cache)), (60, 64));
        assert_eq!((offset_of!(Table, last_error), offset_of!(Table, load_plugins)), (32, 176));
    }

    #[test]
    fn each_slice_is_of_the_version_that_it_is_named_after() {
        let mut wanted: Vec<(i32, i32)> = Vec::new();
        wanted.extend(cfg!(tensorrt_v8).then_some((8, 0)));
        wanted.extend(cfg!(tensorrt_v10).then_some((10, 0)));
        wanted.extend(cfg!(tensorrt_v11).then_some((11, 0)));
        wanted.extend(cfg!(tensorrt_rtx1).then_some((1, 1)));
        let found: Vec<(i32, i32)> = slices().iter().map(|slice| (slice.headers[0], slice.rtx)).collect();
        assert_eq!(found, wanted);
        for slice in slices() {
            assert_eq!(slice.strongly_typed, i32::from(slice.rtx == 1 || slice.headers[0] >= 11));
            assert_eq!(slice.tells_progress, i32::from(slice.rtx == 1 || slice.headers[0] >= 10));
        }
    }
}

//! Builds engines from ONNX, and says what of an ONNX model TensorRT does not take.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{CStr, CString, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use tensorrt_sys as sys;

use super::layers::Layers;
use super::log::{self, Call};
use super::nodes::{Node, nodes};
use super::run::{no_gpu, take_bytes, thrown};
use super::{BuildOptions, Built, Calibrator, Library, Precision, Progress, Refused, TrtError};
use crate::engine::onnx;

/// Between two timing caches handed out while building.
const CACHE_INTERVAL_MS: i32 = 10_000;
/// Steps of other threads that wait to be told; more are dropped.
const WAITING_MAX: usize = 256;
/// Nodes named in an error sentence.
const REFUSED_SHOWN: usize = 3;

/// One build at a time: two would time each other's kernels.
static BUILDING: Mutex<()> = Mutex::new(());

thread_local! {
    /// The build of this thread, for the log, which knows of none.
    static SESSION: Cell<*const Session<'static>> = const { Cell::new(ptr::null()) };
}

/// Builds an engine for the GPU that is bound on this thread; takes minutes, and blocks. `calibrator` is for INT8 with
/// TensorRT 8 and 10. `progress` and `calibrator` are called on this thread; a panic in them ends the process.
///
/// # Errors
///
/// [`TrtError::Model`]: the ONNX file is broken or has nodes that TensorRT cannot run. [`TrtError::Unavailable`]: no
/// GPU, builder or parser. [`TrtError::Failed`]: all else, with TensorRT's reason.
pub fn build(
    library: &Library,
    onnx: &Path,
    options: &BuildOptions,
    calibrator: Option<&mut dyn Calibrator>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Built, TrtError> {
    let one_at_a_time = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    if library.is_strongly_typed() && calibrator.is_some() {
        return Err(TrtError::Failed(format!(
            "{} has no calibration: give a model that is quantized already (Q/DQ nodes), or build without one",
            library.name()
        )));
    }
    for plugins in &options.plugins {
        library.load_plugins(plugins)?;
    }
    let source = Source::read(library, onnx)?;
    let shapes = Shapes::new(library, options)?;
    let sys_options = shapes.options(library, options)?;
    let session = Session::new(Some(progress), calibrator.map(|calibrator| calibrator as &mut dyn Calibrator));
    let callbacks = session.callbacks()?;
    let call = Call::begin(Some(tell_line));
    let listening = Listening::begin(&session, library);
    // SAFETY: all pointers are to things above that outlive the call: the entry's functions, the bytes, the path, the
    // options with their profiles, the session behind `callbacks`.
    let status = unsafe {
        (library.table().build)(
            &source.entry,
            source.bytes.as_ptr().cast(),
            source.bytes.len(),
            source.path.as_ptr(),
            &sys_options,
            &callbacks,
        )
    };
    drop(listening);
    session.tell_waiting();
    drop(one_at_a_time);
    let engine = session.engine.take();
    match status {
        sys::OK if !engine.is_empty() => Ok(Built { engine, timing_cache: session.cache.take() }),
        sys::UNAVAILABLE => Err(no_gpu(library, "builder", &call)),
        sys::MODEL => Err(model_error(library, onnx, &refused_nodes(&source, &session, None))),
        sys::EXCEPTION => Err(build_error(library, onnx, &thrown(library))),
        _ => Err(build_error(library, onnx, &call.reason_of_build())),
    }
}

/// The nodes of an ONNX model that TensorRT cannot run; none if it can run all. Wants the GPU, like [`build`].
///
/// # Errors
///
/// [`TrtError::Model`]: the file is no ONNX model. [`TrtError::Unavailable`]: no GPU, builder or parser.
pub fn unsupported(library: &Library, onnx: &Path) -> Result<Vec<Refused>, TrtError> {
    let _one_at_a_time = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let source = Source::read(library, onnx)?;
    let session = Session::new(None, None);
    let callbacks = session.callbacks()?;
    let call = Call::begin(None);
    // SAFETY: as in `build`; `supported` gets the session that it expects.
    let status = unsafe {
        (library.table().supports)(
            &source.entry,
            source.bytes.as_ptr().cast(),
            source.bytes.len(),
            source.path.as_ptr(),
            supported,
            &callbacks,
        )
    };
    match status {
        sys::OK => Ok(Vec::new()),
        sys::MODEL => Ok(refused_nodes(&source, &session, Some(&session.supported.borrow()))),
        sys::UNAVAILABLE => Err(no_gpu(library, "builder", &call)),
        sys::EXCEPTION => Err(build_error(library, onnx, &thrown(library))),
        _ => Err(build_error(library, onnx, &call.reason())),
    }
}

/// An ONNX file, read.
struct Source {
    bytes: Vec<u8>,
    /// Weights may be in files beside it.
    path: CString,
    entry: sys::Entry,
}

impl Source {
    fn read(library: &Library, path: &Path) -> Result<Self, TrtError> {
        let broken = |fault: String| TrtError::Model(format!("{}: {fault}", path.display()));
        onnx::check(path).map_err(|fault| broken(fault.to_string()))?;
        let bytes = std::fs::read(path)
            .map_err(|error| broken(format!("{error}: put the model there, or give another path")))?;
        let entry = library.entry_with_parser()?;
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let path = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| broken("its path has a zero byte: give another path".to_owned()))?;
        Ok(Self { bytes, path, entry })
    }
}

/// The profiles as the shim takes them, with the names that they point to.
struct Shapes {
    _names: Vec<CString>,
    profiles: Vec<sys::Profile>,
}

impl Shapes {
    fn new(library: &Library, options: &BuildOptions) -> Result<Self, TrtError> {
        let wrong = |input: &str, what: &str| {
            TrtError::Failed(format!("{}: the shapes of input {input:?} {what}", library.name()))
        };
        let (mut names, mut profiles) = (Vec::new(), Vec::new());
        for (input, [min, opt, max]) in &options.profile {
            if min.len() != opt.len() || opt.len() != max.len() || opt.len() > sys::DIMS {
                return Err(wrong(
                    input,
                    "have different lengths, or more than 8 numbers: give three of the same length",
                ));
            }
            let wide = |shape: &[usize]| {
                let mut dims = [0; sys::DIMS];
                for (to, from) in dims.iter_mut().zip(shape) {
                    *to = i64::try_from(*from).unwrap_or(i64::MAX);
                }
                dims
            };
            let name =
                CString::new(input.as_str()).map_err(|_| wrong(input, "belong to a name with a zero byte"))?;
            profiles.push(sys::Profile {
                input: name.as_ptr(),
                min: wide(min),
                opt: wide(opt),
                max: wide(max),
                rank: i32::try_from(opt.len()).unwrap_or(0),
                reserved: 0,
            });
            names.push(name);
        }
        Ok(Self { _names: names, profiles })
    }

    /// Points into `self` and `options`.
    fn options(&self, library: &Library, options: &BuildOptions) -> Result<sys::Options, TrtError> {
        let dla_core = options.dla_core.map_or(Ok(-1), i32::try_from).map_err(|_| {
            TrtError::Failed(format!("{}: there is no such accelerator core: give 0 or 1", library.name()))
        })?;
        let cache = options.timing_cache.as_deref().unwrap_or_default();
        Ok(sys::Options {
            profiles: self.profiles.as_ptr(),
            profile_count: self.profiles.len(),
            timing_cache: if cache.is_empty() { ptr::null() } else { cache.as_ptr().cast() },
            timing_cache_bytes: cache.len(),
            workspace_bytes: options.workspace_bytes.unwrap_or(0),
            precision: match options.precision {
                Precision::F32 => 0,
                Precision::F16 => 1,
                Precision::Int8 => 2,
            },
            dla_core,
            gpu_fallback: options.gpu_fallback.into(),
            sparse: options.sparse.into(),
            half_io: options.half_io.into(),
            cache_interval_ms: CACHE_INTERVAL_MS,
        })
    }
}

type Listener<'a> = &'a mut dyn FnMut(Progress);

/// What the callbacks of one build work on. Callbacks of other threads touch only `thread`, `waiting` and `totals`.
struct Session<'a> {
    thread: ThreadId,
    progress: RefCell<Option<Listener<'a>>>,
    waiting: Mutex<VecDeque<Step>>,
    /// Steps of each phase that runs.
    totals: Mutex<BTreeMap<String, u32>>,
    calibrator: RefCell<Option<&'a mut dyn Calibrator>>,
    /// What `read_cache` handed out last.
    calibration: RefCell<Vec<u8>>,
    engine: RefCell<Vec<u8>>,
    cache: RefCell<Vec<u8>>,
    /// The user knows what TensorRT makes of the timing cache: it says so in two lines.
    cache_told: Cell<bool>,
    layers: RefCell<Layers>,
    refused: RefCell<Vec<(i64, Refused)>>,
    supported: RefCell<BTreeSet<i64>>,
}

struct Step {
    phase: String,
    done: u32,
    total: u32,
}

impl<'a> Session<'a> {
    fn new(progress: Option<Listener<'a>>, calibrator: Option<&'a mut dyn Calibrator>) -> Self {
        Self {
            thread: thread::current().id(),
            progress: RefCell::new(progress),
            waiting: Mutex::default(),
            totals: Mutex::default(),
            calibrator: RefCell::new(calibrator),
            calibration: RefCell::default(),
            engine: RefCell::default(),
            cache: RefCell::default(),
            cache_told: Cell::default(),
            layers: RefCell::default(),
            refused: RefCell::default(),
            supported: RefCell::default(),
        }
    }

    /// Points to `self`.
    fn callbacks(&self) -> Result<sys::Callbacks, TrtError> {
        let calibrator = self.calibrator.borrow();
        let batch = calibrator.as_ref().map_or(0, |calibrator| calibrator.batch_size());
        let batch_size = i32::try_from(batch).map_err(|_| {
            TrtError::Failed(format!("a calibration batch of {batch} pictures is too large: use fewer"))
        })?;
        Ok(sys::Callbacks {
            user: ptr::from_ref(self).cast_mut().cast(),
            phase,
            timing_cache,
            engine,
            refused,
            calibrate: calibrator.is_some().into(),
            batch_size,
            next,
            read_cache,
            write_cache,
        })
    }

    /// Tells at once on the building thread, else when that thread next tells something.
    fn tell_step(&self, step: Step) {
        if thread::current().id() == self.thread {
            self.tell_waiting();
            self.tell(Progress::Phase { name: &step.phase, done: step.done, total: step.total });
            return;
        }
        let mut waiting = lock(&self.waiting);
        if waiting.len() < WAITING_MAX {
            waiting.push_back(step);
        }
    }

    fn tell_waiting(&self) {
        for line in log::take_elsewhere() {
            self.tell(Progress::Message(&line.text));
        }
        let steps = std::mem::take(&mut *lock(&self.waiting));
        for step in steps {
            self.tell(Progress::Phase { name: &step.phase, done: step.done, total: step.total });
        }
    }

    /// On the building thread. What is said while `progress` runs is not told: it would be within itself.
    fn tell(&self, what: Progress) {
        if let Ok(mut progress) = self.progress.try_borrow_mut()
            && let Some(progress) = progress.as_mut()
        {
            progress(what);
        }
    }
}

/// While it lives, the log of this thread goes to a session; with its details where that is how progress is told.
struct Listening<'a>(&'a Library);

impl<'a> Listening<'a> {
    fn begin(session: &Session<'_>, library: &'a Library) -> Self {
        SESSION.set(ptr::from_ref(session).cast());
        log::tell_details(library.table(), library.has_no_progress());
        Self(library)
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        log::tell_details(self.0.table(), false);
        SESSION.set(ptr::null());
    }
}

/// Called by the log on the thread that builds.
fn tell_line(line: &str, is_detail: bool) {
    let session = SESSION.get();
    if session.is_null() {
        return;
    }
    // SAFETY: set by `Listening`, which is dropped before the session; the lifetime it lost is not handed on.
    let session = unsafe { &*session };
    if is_detail {
        let told = session.layers.borrow_mut().hear(line);
        if let Some((done, total)) = told {
            session.tell_step(Step { phase: "layers".to_owned(), done, total });
        }
        return;
    }
    if log::is_of_cache(line) && !session.cache_told.replace(true) {
        tracing::info!("TensorRT uses the timing cache but for its Myelin part, which it times anew");
    }
    session.tell_waiting();
    session.tell(Progress::Message(line));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// # Safety
///
/// `user` is what [`Session::callbacks`] put there, during the call that it was made for.
unsafe fn session<'a>(user: *mut c_void) -> &'a Session<'a> {
    // SAFETY: see above.
    unsafe { &*user.cast_const().cast::<Session<'a>>() }
}

/// # Safety
///
/// `text` is a string that is valid during the call.
unsafe fn text(text: *const c_char) -> String {
    // SAFETY: see above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

unsafe extern "C" fn phase(user: *mut c_void, name: *const c_char, done: i32, total: i32) {
    // SAFETY: the shim passes on what it got, and a name; on any thread, where only what is locked is touched.
    let (session, name) = unsafe { (session(user), text(name)) };
    let mut totals = lock(&session.totals);
    let steps = match u32::try_from(total) {
        Ok(steps) => {
            totals.insert(name.clone(), steps);
            steps
        }
        Err(_) => totals.get(&name).copied().unwrap_or(0),
    };
    if done < 0 {
        totals.remove(&name);
    }
    drop(totals);
    session.tell_step(Step { phase: name, done: u32::try_from(done).unwrap_or(steps), total: steps });
}

unsafe extern "C" fn timing_cache(user: *mut c_void, bytes: *const c_void, length: usize) {
    // SAFETY: the shim passes on what it got, on the building thread, and bytes valid during the call.
    let (session, bytes) = unsafe { (session(user), std::slice::from_raw_parts(bytes.cast::<u8>(), length)) };
    session.cache.replace(bytes.to_vec());
    session.tell(Progress::Cache(bytes));
}

unsafe extern "C" fn engine(user: *mut c_void, bytes: *const c_void, length: usize) {
    // SAFETY: as in `timing_cache`; the vector is used by nothing else during the call.
    unsafe { take_bytes(session(user).engine.as_ptr().cast(), bytes, length) };
}

unsafe extern "C" fn refused(
    user: *mut c_void,
    node: i64,
    name: *const c_char,
    op: *const c_char,
    reason: *const c_char,
) {
    // SAFETY: the shim passes on what it got, on the building thread, and strings valid during the call.
    let (session, name, op, reason) = unsafe { (session(user), text(name), text(op), text(reason)) };
    let reason = reason.trim().trim_end_matches('.').to_owned();
    session.refused.borrow_mut().push((node, Refused { node: name, op, reason }));
}

unsafe extern "C" fn supported(user: *mut c_void, node: i64) {
    // SAFETY: the shim passes on what it got, on this thread.
    unsafe { session(user) }.supported.borrow_mut().insert(node);
}

unsafe extern "C" fn next(user: *mut c_void, input: *const c_char, address: *mut u64) -> i32 {
    // SAFETY: the shim passes on what it got, on the building thread, and a name.
    let (session, input) = unsafe { (session(user), text(input)) };
    let mut calibrator = session.calibrator.borrow_mut();
    let Some(batch) = calibrator.as_mut().and_then(|calibrator| calibrator.next(&input)) else {
        return 0;
    };
    // SAFETY: the shim's own variable.
    unsafe { *address = batch };
    1
}

unsafe extern "C" fn read_cache(user: *mut c_void, length: *mut usize) -> *const c_void {
    // SAFETY: the shim passes on what it got, on the building thread.
    let session = unsafe { session(user) };
    let read = session.calibrator.borrow_mut().as_mut().and_then(|calibrator| calibrator.read_cache());
    let mut kept = session.calibration.borrow_mut();
    *kept = read.unwrap_or_default();
    // SAFETY: the shim's own variable.
    unsafe { *length = kept.len() };
    if kept.is_empty() { ptr::null() } else { kept.as_ptr().cast() }
}

unsafe extern "C" fn write_cache(user: *mut c_void, bytes: *const c_void, length: usize) {
    // SAFETY: as in `timing_cache`.
    let (session, bytes) = unsafe { (session(user), std::slice::from_raw_parts(bytes.cast::<u8>(), length)) };
    if let Some(calibrator) = session.calibrator.borrow_mut().as_mut() {
        calibrator.write_cache(bytes);
    }
}

/// What the parser said, with names for the nodes; then the nodes that no part has that TensorRT takes, of which it said
/// nothing.
fn refused_nodes(source: &Source, session: &Session<'_>, taken: Option<&BTreeSet<i64>>) -> Vec<Refused> {
    let graph = nodes(&source.bytes);
    let node_at = |index: i64| usize::try_from(index).ok().and_then(|index| graph.get(index));
    let mut told = BTreeSet::new();
    let mut all = Vec::new();
    for (index, refused) in session.refused.take() {
        told.insert(index);
        let Node { name, op } = node_at(index).cloned().unwrap_or_default();
        let or = |own: String, of_graph: String| if own.is_empty() { of_graph } else { own };
        all.push(Refused { node: or(refused.node, name), op: or(refused.op, op), reason: refused.reason });
    }
    for (node, index) in graph.iter().zip(0..) {
        if taken.is_some_and(|taken| !taken.contains(&index)) && !told.contains(&index) {
            let reason = "TensorRT cannot run it".to_owned();
            all.push(Refused { node: node.name.clone(), op: node.op.clone(), reason });
        }
    }
    all
}

fn model_error(library: &Library, onnx: &Path, refused: &[Refused]) -> TrtError {
    let shown: Vec<String> = refused.iter().take(REFUSED_SHOWN).map(ToString::to_string).collect();
    let more = match refused.len().saturating_sub(REFUSED_SHOWN) {
        0 => String::new(),
        more => format!("; {more} more"),
    };
    TrtError::Model(format!(
        "{}: {} cannot run this model: {}{more}: export it anew without these, or give a library of plugins that has them",
        onnx.display(),
        library.name(),
        shown.join("; ")
    ))
}

fn build_error(library: &Library, onnx: &Path, reason: &str) -> TrtError {
    TrtError::Failed(format!(
        "{}: {} could not build an engine: {reason}: see TensorRT's whole log with --log debug",
        onnx.display(),
        library.name()
    ))
}

//! What TensorRT says: one logger for the whole process, told apart here by the thread that is in a call.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::{CStr, c_char};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tensorrt_sys::Table;

/// Most severe that counts as an error.
const ERROR: i32 = 1;
/// Least severe that is passed on; what follows is thousands of lines a build.
const INFORMATION: i32 = 3;
/// Lines kept of one call, and of threads that are in none.
const LINES_MAX: usize = 64;
/// Characters of a reason in an error sentence.
const REASON_CHARS: usize = 400;

/// A line.
#[derive(Clone)]
pub(super) struct Line {
    at: Instant,
    severity: i32,
    /// Without the line's end.
    pub(super) text: String,
}

thread_local! {
    /// Whether this thread is in a call, and what was said during it.
    static HEARD: RefCell<Option<VecDeque<Line>>> = const { RefCell::new(None) };
    /// Who wants to know of each line at once.
    static LISTENER: Cell<Option<fn()>> = const { Cell::new(None) };
}

/// Said on TensorRT's own threads.
static ELSEWHERE: Mutex<VecDeque<Line>> = Mutex::new(VecDeque::new());

/// From now on this slice's lines come here.
pub(super) fn install(table: &Table) {
    // SAFETY: `receive` lives as long as the process and takes what the shim documents.
    unsafe { (table.log)(receive, INFORMATION) };
}

/// While it lives, this thread's lines are kept for [`Call::reason`].
pub(super) struct Call {
    began: Instant,
}

impl Call {
    /// With a function to be told after each line.
    pub(super) fn begin(listener: Option<fn()>) -> Self {
        HEARD.with_borrow_mut(|heard| *heard = Some(VecDeque::new()));
        LISTENER.set(listener);
        Self { began: Instant::now() }
    }

    /// The first error of this call, which is mostly the cause of the others; else what TensorRT's threads have said
    /// meanwhile; else the last warning.
    pub(super) fn reason(&self) -> String {
        let text = HEARD.with_borrow(|heard| {
            let own = || heard.iter().flatten();
            let elsewhere = ELSEWHERE.lock().unwrap_or_else(PoisonError::into_inner);
            let meanwhile = elsewhere.iter().filter(|line| line.at >= self.began);
            let mut errors =
                own().chain(meanwhile).filter(|line| line.severity <= ERROR && !is_of_cache(&line.text));
            let found = errors.next().or_else(|| own().rfind(|line| line.severity < INFORMATION));
            found.map_or_else(|| "it does not say why".to_owned(), |line| line.text.clone())
        });
        text.trim().trim_end_matches('.').chars().take(REASON_CHARS).collect()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        LISTENER.set(None);
        HEARD.with_borrow_mut(|heard| *heard = None);
    }
}

/// TensorRT 8.5 calls it an error where a part of the timing cache is of no use to it, and goes on.
fn is_of_cache(text: &str) -> bool {
    text.contains("myelinCache.h") || text.contains("timing cache will not be used")
}

/// What TensorRT's threads said since the last time. Their errors are this thread's call's from now on.
pub(super) fn take_elsewhere() -> VecDeque<Line> {
    let taken = std::mem::take(&mut *ELSEWHERE.lock().unwrap_or_else(PoisonError::into_inner));
    HEARD.with_borrow_mut(|heard| {
        if let Some(lines) = heard {
            taken.iter().filter(|line| line.severity <= ERROR).for_each(|line| push(lines, line.clone()));
        }
    });
    taken
}

/// The newest line of this thread's call.
pub(super) fn newest() -> Option<String> {
    HEARD.with_borrow(|heard| heard.as_ref().and_then(|lines| lines.back()).map(|line| line.text.clone()))
}

/// Called by TensorRT, on any thread.
unsafe extern "C" fn receive(severity: i32, text: *const c_char) {
    // SAFETY: the shim passes a string that is valid during the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy().trim_end().to_owned();
    tracing::debug!("TensorRT: {text}");
    let line = Line { at: Instant::now(), severity, text };
    let mut left = Some(line);
    // A thread that ends has none any more.
    let kept = HEARD.try_with(|heard| {
        if let Some(lines) = heard.borrow_mut().as_mut()
            && let Some(line) = left.take()
        {
            push(lines, line);
        }
    });
    match (kept, left) {
        (_, Some(line)) => push(&mut ELSEWHERE.lock().unwrap_or_else(PoisonError::into_inner), line),
        (Ok(()), None) => LISTENER.get().into_iter().for_each(|listener| listener()),
        (Err(_), None) => {}
    }
}

/// The oldest line that is no error makes room: the first error is worth more than what came after it.
fn push(lines: &mut VecDeque<Line>, line: Line) {
    if lines.len() == LINES_MAX {
        let place = lines.iter().position(|line| line.severity > ERROR).unwrap_or(LINES_MAX - 1);
        lines.remove(place);
    }
    lines.push_back(line);
}

//! What TensorRT says: one logger for the whole process, told apart here by the thread that is in a call.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::{CStr, c_char};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tensorrt_sys::Table;

/// Most severe that counts as an error.
const ERROR: i32 = 1;
const WARNING: i32 = 2;
/// Least severe that is kept; what follows are details, thousands of lines a build.
const INFORMATION: i32 = 3;
const DETAIL: i32 = 4;
/// What our shim says in TensorRT's log begins so.
const OURS: &str = "watchpost: ";
/// Lines kept of one call, and of threads that are in none.
const LINES_MAX: usize = 64;
/// Errors of a build in its error sentence, and characters of all of them.
const ERRORS_TOLD: usize = 2;
const REASON_CHARS: usize = 400;

/// A line.
#[derive(Clone)]
pub(super) struct Line {
    at: Instant,
    severity: i32,
    /// Without the line's end.
    pub(super) text: String,
}

/// Is told of a line, on the thread that is in the call, and whether it is a detail.
pub(super) type Listener = fn(text: &str, is_detail: bool);

thread_local! {
    /// Whether this thread is in a call, and what was said during it.
    static HEARD: RefCell<Option<VecDeque<Line>>> = const { RefCell::new(None) };
    /// Who wants to know of each line at once.
    static LISTENER: Cell<Option<Listener>> = const { Cell::new(None) };
}

/// Said on TensorRT's own threads.
static ELSEWHERE: Mutex<VecDeque<Line>> = Mutex::new(VecDeque::new());

/// From now on this slice's lines come here.
pub(super) fn install(table: &Table) {
    // SAFETY: `receive` lives as long as the process and takes what the shim documents.
    unsafe { (table.log)(receive, INFORMATION) };
}

/// From now on its details come, too, or no longer.
pub(super) fn tell_details(table: &Table, wanted: bool) {
    // SAFETY: as in `install`.
    unsafe { (table.log)(receive, if wanted { DETAIL } else { INFORMATION }) };
}

/// While it lives, this thread's lines are kept for [`Call::reason`] and [`Call::reason_of_build`].
pub(super) struct Call {
    began: Instant,
}

impl Call {
    /// With a function to be told of each line.
    pub(super) fn begin(listener: Option<Listener>) -> Self {
        HEARD.with_borrow_mut(|heard| *heard = Some(VecDeque::new()));
        LISTENER.set(listener);
        Self { began: Instant::now() }
    }

    /// Why this call failed: the first error, which is mostly the cause of the others.
    pub(super) fn reason(&self) -> String {
        reason_in(&self.lines(), |errors| errors.truncate(1))
    }

    /// Why a build failed: the last errors. What it could live with it said earlier, minutes before perhaps.
    pub(super) fn reason_of_build(&self) -> String {
        reason_in(&self.lines(), keep_last)
    }

    /// All of this call, with the errors of TensorRT's threads meanwhile.
    fn lines(&self) -> Vec<Line> {
        let mut lines: Vec<Line> = HEARD.with_borrow(|heard| heard.iter().flatten().cloned().collect());
        let elsewhere = ELSEWHERE.lock().unwrap_or_else(PoisonError::into_inner);
        lines.extend(elsewhere.iter().filter(|line| line.at >= self.began && line.severity <= ERROR).cloned());
        drop(elsewhere);
        lines.sort_by_key(|line| line.at);
        lines
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        LISTENER.set(None);
        HEARD.with_borrow_mut(|heard| *heard = None);
    }
}

/// The errors that `choose` leaves. What only repeats that there is no engine stands for want of others; the last warning
/// for want of errors.
fn reason_in(lines: &[Line], choose: impl Fn(&mut Vec<&str>)) -> String {
    let told = || lines.iter().filter(|line| !is_of_cache(&line.text));
    let (generic, mut errors): (Vec<&str>, Vec<&str>) = told()
        .filter(|line| line.severity <= ERROR)
        .map(|line| bare(&line.text))
        .partition(|text| is_generic(text));
    choose(&mut errors);
    let warning = || told().rfind(|line| line.severity < INFORMATION).map(|line| bare(&line.text));
    let text = match errors.as_slice() {
        [] => generic.last().copied().or_else(warning).unwrap_or("it does not say why").to_owned(),
        errors => errors.join("; "),
    };
    text.chars().take(REASON_CHARS).collect()
}

fn keep_last(errors: &mut Vec<&str>) {
    errors.drain(..errors.len().saturating_sub(ERRORS_TOLD));
}

fn bare(text: &str) -> &str {
    text.trim().trim_end_matches('.')
}

/// TensorRT 8.5 calls it an error where a part of the timing cache is of no use to it, and goes on.
pub(super) fn is_of_cache(text: &str) -> bool {
    text.contains("myelinCache.h") || text.contains("timing cache will not be used")
}

/// What each build that fails ends with.
fn is_generic(text: &str) -> bool {
    text.contains("engine != nullptr")
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

/// Called by TensorRT, on any thread.
unsafe extern "C" fn receive(severity: i32, text: *const c_char) {
    // SAFETY: the shim passes a string that is valid during the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy().trim_end().to_owned();
    // What our shim says is for people; of what TensorRT warns of much means nothing.
    match text.strip_prefix(OURS) {
        Some(text) if severity <= WARNING => tracing::warn!("{text}"),
        _ => tracing::debug!("TensorRT: {text}"),
    }
    // A thread that ends has none any more.
    let listener = LISTENER.try_with(Cell::get).ok().flatten();
    let is_detail = severity > INFORMATION;
    if !is_detail {
        keep(Line { at: Instant::now(), severity, text: text.clone() });
    }
    if let Some(listener) = listener {
        listener(&text, is_detail);
    }
}

/// With this thread's call, else with what was said elsewhere.
fn keep(line: Line) {
    let mut left = Some(line);
    // A thread that ends has none any more.
    let _ = HEARD.try_with(|heard| {
        if let Some(lines) = heard.borrow_mut().as_mut()
            && let Some(line) = left.take()
        {
            push(lines, line);
        }
    });
    if let Some(line) = left {
        push(&mut ELSEWHERE.lock().unwrap_or_else(PoisonError::into_inner), line);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(lines: &[(i32, &str)]) -> String {
        let line = |&(severity, text): &(i32, &str)| Line { at: Instant::now(), severity, text: text.to_owned() };
        reason_in(&lines.iter().map(line).collect::<Vec<_>>(), keep_last)
    }

    const CACHE: [(i32, &str); 2] = [
        (
            ERROR,
            "1: [myelinCache.h::deserializeFromBuffer::52] Error Code 1: Myelin (Myelin error from unknown graph)",
        ),
        (ERROR, "4: The timing cache will not be used!"),
    ];
    const NO_ENGINE: (i32, &str) = (
        ERROR,
        "2: [builder.cpp::buildSerializedNetwork::751] Error Code 2: Internal Error (Assertion engine != nullptr failed. )",
    );

    /// What TensorRT 8.5.3 said of a quantized model.
    #[test]
    fn a_refused_timing_cache_is_not_why_a_build_failed() {
        let assertion = "2: [graphOptimizer.cpp::chooseHigherPrecision::6867] Error Code 2: Internal Error (Assertion \
                         dt1 == DataType::kFLOAT || dt1 == DataType::kHALF failed. )";
        let mut lines = CACHE.to_vec();
        lines.extend([(INFORMATION, "Local timing cache in use."), (ERROR, assertion), NO_ENGINE]);
        assert_eq!(reason(&lines), assertion);
    }

    #[test]
    fn the_last_errors_are_told_in_their_order() {
        assert_eq!(
            reason(&[(ERROR, "early"), (2, "late"), (ERROR, "cause."), (0, "effect."), NO_ENGINE]),
            "cause; effect"
        );
    }

    #[test]
    fn without_errors_that_say_something_the_next_best_line_is_told() {
        assert_eq!(reason(&[(2, "a warning"), NO_ENGINE]), NO_ENGINE.1);
        assert_eq!(reason(&[(2, "a warning"), (INFORMATION, "news"), CACHE[0], CACHE[1]]), "a warning");
        assert_eq!(reason(&CACHE), "it does not say why");
    }
}

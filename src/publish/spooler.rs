//! The threads `spool` and `disk`. `spool` takes what must not be lost and has it written in groups; `disk` writes, and alone
//! waits for the disk: where that fails or hangs, what comes is kept in memory within bounds, and nobody who gives it waits.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::fault::Complaints;
use super::spool::Batch;
use super::store::SpoolError;
use super::{Input, Shared};
use crate::event::{EventKind, NoticeKind};
use crate::worker;

/// `spool` looks at the clock this often; acknowledgements reach the disk within it.
const TICK: Duration = Duration::from_secs(1);
/// A write that takes longer is complained of.
const HANGS: Duration = Duration::from_secs(5);
/// Most entries in one commit.
const GROUP_MAX: usize = 512;
/// Most entries kept in memory while the disk takes nothing, looked at once a [`TICK`].
const BACKLOG_MAX: usize = 4096;

/// What was given and is not yet in a commit.
struct Waiting<'a> {
    input: &'a Receiver<Input>,
    disk: Disk,
    /// What came while the disk took nothing, so that nobody waits for it.
    backlog: VecDeque<Input>,
    /// Messages dropped of it that no notice has told of.
    dropped: u64,
    /// The stop's time was over before the disk took anything.
    given_up: bool,
}

impl Waiting<'_> {
    fn next(&mut self) -> Result<Input, RecvTimeoutError> {
        self.backlog.pop_front().map_or_else(|| self.input.recv_timeout(TICK), Ok)
    }

    fn try_next(&mut self) -> Option<Input> {
        self.backlog.pop_front().or_else(|| self.input.try_recv().ok())
    }

    /// Takes what comes, the oldest messages making room; how many of them were dropped.
    fn gather(&mut self, until: Instant) -> u64 {
        // As many again, whatever could not be dropped before: else the disk would be asked without a pause.
        let full = self.backlog.len().max(BACKLOG_MAX) + BACKLOG_MAX;
        while self.backlog.len() < full {
            match self.input.recv_deadline(until) {
                Ok(input) => self.backlog.push_back(input),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(until.saturating_duration_since(Instant::now()));
                    break;
                }
            }
        }
        let dropped = shed(&mut self.backlog, BACKLOG_MAX);
        self.dropped += dropped;
        dropped
    }
}

/// Of each retained topic the latest stays, and of the messages so many that no more than `most` entries wait: how many
/// messages, the oldest, were dropped. What begins and ends tracks goes last, and of whole tracks only, so that each `new` on
/// disk has its `end`: beyond `most` there may be two messages for each track that lives.
fn shed(backlog: &mut VecDeque<Input>, most: usize) -> u64 {
    let mut later = HashSet::new();
    let is_latest = |input: &Input| match input {
        Input::Retain(topic, _) => later.insert(topic.as_str().to_owned()),
        Input::Count(topic, _) | Input::Forget(topic) => later.insert(topic.clone()),
        Input::Message(_) | Input::RetainFirst(..) | Input::ForgetThose(_) => true,
    };
    let mut latest: Vec<bool> = backlog.iter().rev().map(is_latest).collect();
    backlog.retain(|_| latest.pop().unwrap_or(true));
    let before = backlog.len();
    let mut excess = before.saturating_sub(most);
    backlog.retain(|input| {
        let goes = excess > 0
            && matches!(input, Input::Message(draft) if !matches!(draft.track(), Some((_, EventKind::New | EventKind::End))));
        excess -= usize::from(goes);
        !goes
    });
    let whole = whole_tracks(backlog, excess);
    backlog.retain(
        |input| !matches!(input, Input::Message(draft) if draft.track().is_some_and(|(id, _)| whole.contains(id))),
    );
    (before - backlog.len()) as u64
}

/// The oldest tracks that begin and end in the backlog, so many that they have `excess` messages, if there are.
fn whole_tracks(backlog: &VecDeque<Input>, excess: usize) -> HashSet<String> {
    let of_kind = |wanted: EventKind| {
        backlog.iter().filter_map(move |input| match input {
            Input::Message(draft) => draft.track().filter(|(_, kind)| *kind == wanted).map(|(id, _)| id),
            _ => None,
        })
    };
    let ended: HashSet<&str> = of_kind(EventKind::End).collect();
    of_kind(EventKind::New).filter(|id| ended.contains(id)).take(excess.div_ceil(2)).map(str::to_owned).collect()
}

/// The `disk` thread: a batch in, the batch and what came of it out. It hangs where the disk does.
struct Disk {
    batches: Sender<Batch>,
    written: Receiver<(Batch, Result<(), SpoolError>)>,
}

impl Disk {
    /// Starts it; `alive` is held until it has ended.
    fn start(shared: Arc<Shared>, alive: Sender<()>) -> Self {
        let (batches, given) = bounded::<Batch>(1);
        let (done, written) = bounded(1);
        worker::spawn("disk", move || {
            // Bound first, dropped last: the end is told when the spool's file is closed.
            let _alive = alive;
            let shared = shared;
            for batch in given {
                let result = shared.spool.commit(&batch);
                if done.send((batch, result)).is_err() {
                    break;
                }
            }
        });
        Self { batches, written }
    }
}

/// The `spool` thread: ends when every [`super::Publisher`] is gone and all they gave is on disk.
pub fn run(shared: &Arc<Shared>, input: &Receiver<Input>, alive: &Sender<()>) {
    let disk = Disk::start(Arc::clone(shared), alive.clone());
    let mut waiting = Waiting { input, disk, backlog: VecDeque::new(), dropped: 0, given_up: false };
    while !waiting.given_up {
        let mut batch = Batch::default();
        match waiting.next() {
            Ok(first) => {
                take(shared, &mut waiting, &mut batch, first);
                while batch.len() < GROUP_MAX
                    && let Some(next) = waiting.try_next()
                {
                    take(shared, &mut waiting, &mut batch, next);
                }
            }
            Err(RecvTimeoutError::Timeout) if shared.spool.is_behind() => {}
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
        }
        commit(shared, &mut waiting, batch);
        shared.wake.notify_one();
    }
    shared.inputs_ended();
}

fn take(shared: &Shared, waiting: &mut Waiting<'_>, batch: &mut Batch, input: Input) {
    match input {
        Input::Message(draft) => batch.messages.push(draft),
        Input::Retain(topic, body) => batch.retained.push((topic.as_str().to_owned(), Some(body))),
        Input::RetainFirst(topic, body) => {
            let of_batch =
                batch.retained.iter().rfind(|(of, _)| of == topic.as_str()).map(|(_, body)| body.is_some());
            // What an event of this batch retains goes before all else of it.
            if !of_batch.unwrap_or_else(|| shared.spool.retained_body(topic.as_str()).is_some()) {
                batch.retained.push((topic.as_str().to_owned(), Some(body)));
            }
        }
        Input::Count(topic, value) => batch.retained.push((topic, Some(value.to_string().into()))),
        Input::Forget(topic) => batch.retained.push((topic, None)),
        Input::ForgetThose(which) => {
            // What events retain is known once they are written.
            if !batch.messages.is_empty() {
                commit(shared, waiting, std::mem::take(batch));
            }
            // Those of this batch, too.
            for (topic, body) in &mut batch.retained {
                *body = body.take().filter(|_| !which(topic));
            }
            batch.retained.extend(shared.spool.retained_topics(&which).into_iter().map(|topic| (topic, None)));
        }
    }
}

/// Has a batch written, again and again where the disk fails. Nobody waits for the disk meanwhile: what comes is kept in memory,
/// the oldest messages are dropped and counted, and a notice says so once there is room again.
fn commit(shared: &Shared, waiting: &mut Waiting<'_>, batch: Batch) {
    let (mut complaints, size, begun) = (Complaints::default(), batch.len(), Instant::now());
    let mut given = waiting.disk.batches.send(batch).is_ok();
    // Once it has hung so long, what comes meanwhile is waited for instead.
    let mut patience = TICK;
    while given {
        let failed = match waiting.disk.written.recv_timeout(patience) {
            Ok((_, Ok(()))) => break,
            Ok((batch, Err(error))) => {
                complain(&mut complaints, &error.to_string());
                Some(batch)
            }
            Err(RecvTimeoutError::Timeout) => {
                if begun.elapsed() >= HANGS {
                    complain(&mut complaints, "the disk does not answer");
                }
                None
            }
            Err(RecvTimeoutError::Disconnected) => break,
        };
        if shared.stop_at().is_some_and(|at| Instant::now() >= at) {
            let lost = size + waiting.backlog.len() + waiting.input.len();
            tracing::error!("{lost} messages could not be spooled before the stop");
            waiting.given_up = true;
            return;
        }
        shared.metrics.spool_dropped.inc_by(waiting.gather(Instant::now() + TICK));
        patience = if failed.is_some() { TICK } else { Duration::ZERO };
        given = failed.is_none_or(|batch| waiting.disk.batches.send(batch).is_ok());
    }
    if waiting.dropped > 0 {
        let text = format!(
            "The disk of state_dir took nothing: {} messages were dropped, the oldest that waited for it. Free or \
             repair it.",
            std::mem::take(&mut waiting.dropped)
        );
        waiting.backlog.push_front(Input::Message(shared.notices.draft(NoticeKind::SpoolOverflow, None, text)));
    }
}

fn complain(complaints: &mut Complaints, text: &str) {
    if let Some(line) = complaints.hear(text, Instant::now()) {
        tracing::error!("the spool cannot be written: {line}: free or repair the disk of state_dir");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::CameraId;
    use crate::publish::draft::Draft;
    use crate::publish::notice::{Identity, Notices};
    use crate::publish::topic::Topics;

    #[test]
    fn a_backlog_keeps_the_latest_of_each_topic_and_drops_the_oldest_messages() {
        let identity = Identity { node: "n".to_owned(), boot: "0123ab".to_owned() };
        let topics = Topics::new("w", "n").unwrap();
        let notices = Notices::new(identity, topics.notice());
        let message = |n: u32| Input::Message(notices.draft(NoticeKind::Started, None, n.to_string()));
        let retain = |body: &[u8]| Input::Retain(topics.info(), body.to_vec());
        let mut backlog =
            VecDeque::from([retain(b"1"), message(0), message(1), Input::Count("a".to_owned(), 1), message(2)]);
        backlog.extend([retain(b"2"), Input::Forget("a".to_owned()), message(3)]);
        assert_eq!(shed(&mut backlog, 4), 2);
        let texts: Vec<String> = backlog
            .iter()
            .map(|input| match input {
                Input::Message(draft) => {
                    let (body, _) = draft.body(0).unwrap();
                    serde_json::from_slice::<crate::event::Notice>(&body).unwrap().text
                }
                Input::Retain(_, body) => format!("retained {}", body.escape_ascii()),
                Input::Forget(topic) => format!("forget {topic}"),
                _ => "another".to_owned(),
            })
            .collect();
        assert_eq!(texts, ["2", "retained 2", "forget a", "3"]);
        assert_eq!(shed(&mut backlog, 1), 2, "what is retained stays");
        assert_eq!(backlog.len(), 2);
    }

    #[test]
    fn of_events_whole_tracks_are_dropped_and_no_beginning_or_end_alone() {
        use crate::formats::samples;
        let topics = Topics::new("w", "n").unwrap();
        let event = |id: &str, event: crate::event::Event| {
            let event = crate::event::Event { id: id.to_owned(), ..event };
            Input::Message(Draft::event(topics.events(&CameraId::new("gate")), event))
        };
        // `a` began before; `b` and `c` begin and end, `d` goes on.
        let mut backlog = VecDeque::from([event("b", samples::new()), event("a", samples::update())]);
        backlog.extend([event("a", samples::end()), event("b", samples::update()), event("d", samples::new())]);
        backlog.extend([event("b", samples::end()), event("c", samples::new()), event("c", samples::end())]);
        let left = |backlog: &VecDeque<Input>| -> String {
            let tracks = backlog.iter().filter_map(|input| match input {
                Input::Message(draft) => draft.track(),
                _ => None,
            });
            tracks.map(|(id, kind)| format!("{id} {kind:?} ").to_lowercase()).collect()
        };
        assert_eq!(shed(&mut backlog, 6), 2);
        assert_eq!(left(&backlog), "b new a end d new b end c new c end ");
        assert_eq!(shed(&mut backlog, 5), 2);
        assert_eq!(left(&backlog), "a end d new c new c end ");
        assert_eq!(shed(&mut backlog, 0), 2);
        assert_eq!(left(&backlog), "a end d new ", "each has its other half elsewhere");
    }
}

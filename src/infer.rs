//! The inference loop: slots in, batches out. Decides nothing about pixels, boxes or topics.

mod inlet;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, TryRecvError, never};

use crate::backend::{Backend, BackendError, Batch, Building, ModelSpec};
use crate::batch::{Decision, Fairness};
use crate::event::Model;
use crate::frame::{CameraId, Frame};
use crate::metrics::{CameraMetrics, Metrics};
use crate::slot::{Arrivals, SlotReader, SlotView};
use crate::worker::Heartbeat;

use inlet::Inlet;

/// Longest wait without a look at the heartbeat.
const TICK: Duration = Duration::from_millis(500);
/// Wait before a failed backend is opened anew.
const REOPEN_AFTER: Duration = Duration::from_secs(1);
/// A second failure within this time is fatal: the process starts again instead.
const REOPEN_ONCE_IN: Duration = Duration::from_secs(60);
/// How long news of an opened backend may wait for the main loop, which looks at least once a second.
const NEWS_WAIT: Duration = Duration::from_secs(2);
/// Counters of cameras that were taken down are kept for frames in flight; beyond so many they are dropped.
const COUNTERS_MAX: usize = 1024;
/// Dropped batches are logged at most this often.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Opens the backend on the inference thread; the sender is its way to wake the loop.
pub type Open = Box<dyn Fn(Sender<()>) -> Result<Box<dyn Backend>, BackendError> + Send>;

/// What the loop is connected to.
pub struct Inference {
    /// Opens the backend, now and after a failure.
    pub open: Open,
    /// Told when the backend is to be opened anew beside the one that runs: there is a newer engine.
    pub swaps: Receiver<()>,
    /// New cameras' slots; its end is the end of the loop, once every slot has ended, or at once where it is to stop.
    pub roster: Receiver<SlotReader>,
    /// Woken by slots and by the backend.
    pub wake: (Sender<()>, Receiver<()>),
    /// When frames wake.
    pub arrivals: Arc<Arrivals>,
    /// Finished batches.
    pub out: Sender<Batch>,
    /// Batches to be used again.
    pub free: Receiver<Batch>,
    /// How long a frame may wait for its batch to fill.
    pub deadline: Duration,
    /// Frames that wait when the cameras are gone are not worth the time of a stop: they are dropped.
    pub stopping: Arc<AtomicBool>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Beats while the loop makes progress.
    pub heart: Heartbeat,
    /// Told what became of the backend.
    pub news: Sender<News>,
}

/// What became of the backend.
#[derive(Clone, Debug)]
pub enum News {
    /// Its engine is being built.
    Building(Building),
    /// It is open and warm.
    Opened(ModelSpec),
    /// It failed and is being opened anew.
    Failed(String),
}

impl Inference {
    /// Runs until the cameras are gone.
    ///
    /// # Errors
    ///
    /// Why the backend cannot be had, or no longer.
    pub fn run(self) -> Result<(), BackendError> {
        match self.serve() {
            Err(BackendError::Stopped) => Ok(()),
            end => end,
        }
    }

    fn serve(&self) -> Result<(), BackendError> {
        let mut failed: Option<Instant> = None;
        let mut slots = Slots::new(self.roster.clone());
        // Outlives a failed backend: there are only so many batches.
        let mut spare = None;
        let mut backend = self.open()?;
        loop {
            let mut run = Run::new(self, backend, &mut spare);
            let end = run.serve(&mut slots);
            run.forget_in_flight(&mut slots);
            backend = match end {
                Ok(End::Finished) => return Ok(()),
                Ok(End::Swap) => self.swap(run.backend),
                Err(error) => {
                    drop(run);
                    self.give_up_or_wait(error, &mut failed)?;
                    self.open()?
                }
            };
        }
    }

    fn open(&self) -> Result<Box<dyn Backend>, BackendError> {
        let backend = (self.open)(self.wake.0.clone())?;
        // Of the news this one must not be lost: the daemon is ready by it. Full or gone for so long: nobody listens.
        let _ = self.news.send_timeout(News::Opened(backend.spec().clone()), NEWS_WAIT);
        Ok(backend)
    }

    /// The newer backend; where it cannot be had, `old` goes on.
    fn swap(&self, old: Box<dyn Backend>) -> Box<dyn Backend> {
        match self.open() {
            Ok(new) => new,
            Err(error) => {
                let text = format!("the new engine cannot be opened, the old one goes on: {error}");
                tracing::error!("{text}");
                let _ = self.news.try_send(News::Building(Building::Failed(text)));
                old
            }
        }
    }

    /// Waits before a failed backend is opened anew; the error where it fails for good.
    fn give_up_or_wait(&self, error: BackendError, failed: &mut Option<Instant>) -> Result<(), BackendError> {
        self.metrics.backend_failures.inc();
        let now = Instant::now();
        let fatal = !matches!(error, BackendError::Reopen(_))
            || failed.is_some_and(|before| now.duration_since(before) < REOPEN_ONCE_IN);
        if fatal {
            return Err(error);
        }
        tracing::error!("{error}: it is opened anew in {} s", REOPEN_AFTER.as_secs());
        let _ = self.news.try_send(News::Failed(error.to_string()));
        *failed = Some(now);
        std::thread::sleep(REOPEN_AFTER);
        Ok(())
    }
}

/// Why the loop leaves a backend that works.
enum End {
    /// No frame can come any more, or nobody takes batches.
    Finished,
    /// There is a newer one.
    Swap,
}

/// The slots, in the order in which they came.
struct Slots {
    roster: Receiver<SlotReader>,
    closed: bool,
    inlets: Vec<Inlet>,
    views: Vec<SlotView>,
    counters: HashMap<CameraId, CameraMetrics>,
    fairness: Fairness,
}

impl Slots {
    fn new(roster: Receiver<SlotReader>) -> Self {
        let (inlets, views, counters) = (Vec::new(), Vec::new(), HashMap::new());
        Self { roster, closed: false, inlets, views, counters, fairness: Fairness::default() }
    }

    fn update(&mut self) {
        loop {
            match self.roster.try_recv() {
                Ok(reader) => self.add(reader),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.closed = true;
                    // A disconnected receiver is always ready: it would spin the wait.
                    self.roster = never();
                    break;
                }
            }
        }
        self.views.clear();
        let mut ended = Vec::new();
        for (index, inlet) in self.inlets.iter_mut().enumerate() {
            match inlet.view() {
                Some(view) => self.views.push(view),
                None => ended.push(index),
            }
        }
        for index in ended.into_iter().rev() {
            self.inlets.remove(index);
            self.fairness.remove(index);
        }
    }

    fn add(&mut self, reader: SlotReader) {
        if self.counters.len() >= COUNTERS_MAX {
            self.counters.retain(|id, _| self.inlets.iter().any(|inlet| inlet.camera() == id));
        }
        self.counters.insert(reader.camera().clone(), reader.metrics().clone());
        self.inlets.push(Inlet::new(reader));
    }

    fn ended(&self) -> bool {
        self.closed && self.inlets.is_empty()
    }

    /// Frames for the motion gate to judge, out of their slots.
    fn unjudged(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        self.inlets.iter_mut().for_each(|inlet| inlet.send(&mut frames));
        frames
    }

    /// `cells` is what was read of the frame, or why nothing was.
    fn judge(&mut self, frame: Frame, cells: Result<&[u8], &str>) {
        if let Some(inlet) = self.inlets.iter_mut().find(|inlet| inlet.awaits(&frame.info.camera)) {
            match cells {
                Ok(cells) => inlet.judge(frame, cells),
                Err(_) => inlet.lose_one(),
            }
        }
    }

    /// After how many more frames inference is to be woken, where its batch lacks so many: frames that are judged here fill
    /// no batch before they have been.
    fn wanted(&self, missing: usize) -> u64 {
        if self.inlets.iter().any(Inlet::is_judged) { 1 } else { missing as u64 }
    }

    fn counters(&self, camera: &CameraId) -> Option<&CameraMetrics> {
        self.counters.get(camera)
    }
}

/// One opened backend.
struct Run<'a> {
    inference: &'a Inference,
    backend: Box<dyn Backend>,
    model: Arc<Model>,
    /// The cameras of each batch in flight, and since when it is, the oldest first.
    in_flight: VecDeque<(Vec<CameraId>, Instant)>,
    /// Frames are with the backend for the motion gate, since then.
    looking: Option<Instant>,
    /// A batch has come out whole.
    proven: bool,
    /// An empty batch to collect into.
    spare: &'a mut Option<Batch>,
    logged: Option<Instant>,
}

impl<'a> Run<'a> {
    fn new(inference: &'a Inference, backend: Box<dyn Backend>, spare: &'a mut Option<Batch>) -> Self {
        let model = Arc::new(backend.spec().model());
        Self {
            inference,
            backend,
            model,
            in_flight: VecDeque::new(),
            looking: None,
            proven: false,
            spare,
            logged: None,
        }
    }

    fn serve(&mut self, slots: &mut Slots) -> Result<End, BackendError> {
        let mut swap = false;
        loop {
            // A batch or a look that never ends is no progress, however often it is asked for.
            let begun = self.in_flight.front().map(|(_, since)| *since).into_iter().chain(self.looking).min();
            self.inference.heart.beat(begun.unwrap_or_else(Instant::now));
            if !self.collect(slots)? {
                return Ok(End::Finished);
            }
            self.judge(slots)?;
            let came = self.inference.arrivals.count();
            slots.update();
            swap |= self.inference.swaps.try_recv().is_ok();
            if swap && self.in_flight.is_empty() && self.looking.is_none() {
                return Ok(End::Swap);
            }
            let last = slots.closed && self.inference.stopping.load(Ordering::Relaxed);
            if last && self.in_flight.is_empty() && self.looking.is_none() {
                return Ok(End::Finished);
            }
            let swap_or_last = swap || last;
            if !swap_or_last {
                self.look(slots)?;
            }
            // While no batch can be submitted no frame need wake.
            let (mut wait, mut wanted) = (TICK, None);
            if !swap_or_last && self.in_flight.len() < self.backend.spec().in_flight {
                let (lanes, deadline) = (self.backend.spec().lanes, self.inference.deadline);
                match slots.fairness.decide(Instant::now(), &slots.views, lanes, deadline) {
                    Decision::Go(chosen) => {
                        self.submit(slots, &chosen)?;
                        continue;
                    }
                    Decision::WaitUntil(due, missing) => {
                        wait = due.saturating_duration_since(Instant::now());
                        wanted = Some(came + slots.wanted(missing));
                    }
                    Decision::Idle if slots.ended() && self.in_flight.is_empty() => return Ok(End::Finished),
                    Decision::Idle => wanted = Some(came + 1),
                }
            }
            if self.inference.arrivals.want(wanted) {
                continue;
            }
            crossbeam::select! {
                recv(self.inference.wake.1) -> _ => {}
                recv(slots.roster) -> reader => if let Ok(reader) = reader { slots.add(reader) },
                default(wait) => {}
            }
            self.inference.arrivals.want(None);
        }
    }

    /// Shows the motion gate the frames in device memory that have come meanwhile.
    fn look(&mut self, slots: &mut Slots) -> Result<(), BackendError> {
        let frames = if self.looking.is_some() { Vec::new() } else { slots.unjudged() };
        if frames.is_empty() {
            return Ok(());
        }
        match self.backend.look(frames) {
            Ok(()) => self.looking = Some(Instant::now()),
            Err(error) => {
                slots.inlets.iter_mut().for_each(Inlet::lose);
                self.tolerate(error)?;
            }
        }
        Ok(())
    }

    /// Lets the motion gate judge what it was shown, once that has been looked at.
    fn judge(&mut self, slots: &mut Slots) -> Result<(), BackendError> {
        if self.looking.is_none() {
            return Ok(());
        }
        let mut lost = None;
        let end = self.backend.looked(&mut |frame, cells| {
            lost =
                cells.err().map(|why| format!("a frame of {} is lost: {why}", frame.info.camera)).or(lost.take());
            slots.judge(frame, cells);
        });
        if let Some(lost) = lost {
            self.complain(&lost);
        }
        match end {
            Ok(true) => self.looking = None,
            Ok(false) => {}
            Err(error) => {
                self.looking = None;
                slots.inlets.iter_mut().for_each(Inlet::lose);
                self.tolerate(error)?;
            }
        }
        Ok(())
    }

    fn submit(&mut self, slots: &mut Slots, chosen: &[usize]) -> Result<(), BackendError> {
        let frames: Vec<_> = chosen.iter().filter_map(|index| slots.inlets[*index].take()).collect();
        if frames.is_empty() {
            return Ok(());
        }
        let cameras: Vec<_> = frames.iter().map(|f| f.info.camera.clone()).collect();
        let (filled, lanes) = (frames.len() as u64, self.backend.spec().lanes as u64);
        match self.backend.submit(frames) {
            Ok(()) => {
                self.in_flight.push_back((cameras, Instant::now()));
                self.inference.metrics.lanes_filled.inc_by(filled);
                self.inference.metrics.lanes_total.inc_by(lanes);
                self.inference.metrics.batches.inc();
                Ok(())
            }
            Err(error) => {
                count_dropped(slots, &cameras);
                self.tolerate(error)
            }
        }
    }

    /// Hands finished batches on; false where nobody takes them any more.
    fn collect(&mut self, slots: &Slots) -> Result<bool, BackendError> {
        while !self.in_flight.is_empty() {
            let mut batch = match self.spare.take() {
                Some(batch) => batch,
                None => match self.inference.free.recv() {
                    Ok(batch) => batch,
                    Err(_) => return Ok(false),
                },
            };
            match self.backend.try_collect(&mut batch) {
                Ok(true) => {
                    self.in_flight.pop_front();
                    self.proven = true;
                    batch.model = Arc::clone(&self.model);
                    for lane in &batch.lanes {
                        if let Some(counters) = slots.counters(&lane.frame.camera) {
                            counters.inferred.inc();
                        }
                    }
                    self.lose(slots, &mut batch.lost);
                    if self.inference.out.send(batch).is_err() {
                        return Ok(false);
                    }
                }
                Ok(false) => {
                    *self.spare = Some(batch);
                    break;
                }
                Err(error) => {
                    *self.spare = Some(batch);
                    if let Some((cameras, _)) = self.in_flight.pop_front() {
                        count_dropped(slots, &cameras);
                    }
                    self.tolerate(error)?;
                }
            }
        }
        Ok(true)
    }

    /// A lost batch is logged and lived with; everything else ends this backend. So is a batch whose contents contradict the
    /// manifest, such as a class that has no label, once others have not: a service that has run for months does not end for
    /// good by one frame.
    fn tolerate(&mut self, error: BackendError) -> Result<(), BackendError> {
        let lost = match error {
            BackendError::DropBatch(_) => true,
            BackendError::Config(_) => self.proven,
            _ => false,
        };
        if !lost {
            return Err(error);
        }
        self.complain(&error);
        Ok(())
    }

    /// Counts frames that could not be read; the others of their batch were.
    fn lose(&mut self, slots: &Slots, lost: &mut Vec<(CameraId, String)>) {
        for (camera, why) in lost.drain(..) {
            count_dropped(slots, std::slice::from_ref(&camera));
            self.complain(&format!("a frame of {camera} is lost: {why}"));
        }
    }

    /// Counts what was lost, and logs it unless that was done a moment ago.
    fn complain(&mut self, what: &dyn std::fmt::Display) {
        self.inference.metrics.backend_failures.inc();
        let now = Instant::now();
        if self.logged.is_none_or(|last| now.duration_since(last) > LOG_EVERY) {
            let total = self.inference.metrics.backend_failures.get();
            tracing::error!(total, "{what}");
            self.logged = Some(now);
        }
    }

    fn forget_in_flight(&mut self, slots: &mut Slots) {
        slots.inlets.iter_mut().for_each(Inlet::lose);
        for (cameras, _) in self.in_flight.drain(..) {
            count_dropped(slots, &cameras);
        }
    }
}

fn count_dropped(slots: &Slots, cameras: &[CameraId]) {
    for counters in cameras.iter().filter_map(|camera| slots.counters(camera)) {
        counters.dropped.inc();
    }
}

#[cfg(test)]
mod tests;

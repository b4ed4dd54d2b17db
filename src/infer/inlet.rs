//! A slot as inference sees it: with the frames that were taken out of it for the motion gate to judge.
//!
//! Only frames in device memory come this way; those of a camera without a gate, or in host memory, stay in their slot
//! until their batch takes them.

use std::collections::VecDeque;

use crate::backend::LOOK_MAX;
use crate::frame::{CameraId, Frame};
use crate::slot::{SlotReader, SlotView};

/// One slot.
pub(super) struct Inlet {
    reader: SlotReader,
    /// Frames whose cells are being read on the device.
    away: usize,
    /// Frames that the gate let pass.
    passed: VecDeque<Frame>,
    is_judged: bool,
}

impl Inlet {
    pub(super) fn new(reader: SlotReader) -> Self {
        Self { reader, away: 0, passed: VecDeque::new(), is_judged: false }
    }

    pub(super) fn camera(&self) -> &CameraId {
        self.reader.camera()
    }

    /// The camera's frames are judged here, so each of them is worth waking up.
    pub(super) fn is_judged(&self) -> bool {
        self.is_judged
    }

    /// What the batch decision needs: frames that may go. `None`: nothing is left, and nothing comes any more.
    pub(super) fn view(&mut self) -> Option<SlotView> {
        let slot = match self.reader.view() {
            Some(view) => view,
            None if self.away == 0 && self.passed.is_empty() => return None,
            None => self.closed(),
        };
        self.is_judged |= slot.unjudged;
        let waiting = if slot.unjudged { 0 } else { slot.ready };
        let first = self.passed.front().map(|frame| frame.info.decoded);
        let since = first.or(slot.since.filter(|_| waiting > 0));
        Some(SlotView { ready: self.passed.len() + waiting, since, ..slot })
    }

    fn closed(&self) -> SlotView {
        let (depth, weight) = (self.reader.depth(), self.reader.weight());
        SlotView { ready: 0, depth, since: None, live: false, weight, unjudged: false }
    }

    /// The oldest frame that may go.
    pub(super) fn take(&mut self) -> Option<Frame> {
        self.passed.pop_front().or_else(|| self.reader.take())
    }

    /// Moves frames to be judged into `out`, [`LOOK_MAX`] in all: of a live camera its newest, of a lossless file as many as
    /// its place holds.
    pub(super) fn send(&mut self, out: &mut Vec<Frame>) {
        if !self.is_judged {
            return;
        }
        let depth = self.reader.depth();
        let place = if depth == 1 { 1 } else { depth.saturating_sub(self.passed.len()) };
        while self.away < place && out.len() < LOOK_MAX {
            let Some(frame) = self.reader.take_unjudged() else { return };
            self.away += 1;
            out.push(frame);
        }
    }

    /// Whether a frame of this camera is away.
    pub(super) fn awaits(&self, camera: &CameraId) -> bool {
        self.away > 0 && self.camera() == camera
    }

    /// A frame is back that could not be looked at. Nor could it be inferred: it would cost the others of its batch.
    pub(super) fn lose_one(&mut self) {
        self.away -= 1;
        self.reader.metrics().dropped.inc();
    }

    /// A frame is back, with its cells.
    pub(super) fn judge(&mut self, frame: Frame, cells: &[u8]) {
        self.away -= 1;
        let passes = frame.info.gate.as_ref().is_none_or(|gate| gate.judge(frame.info.seq, cells));
        self.reader.set_resting(!passes);
        if !passes {
            self.reader.metrics().gated.inc();
            return;
        }
        if self.passed.len() == self.reader.depth() {
            // As in the slot: the newest wins.
            self.passed.pop_front();
            self.reader.metrics().overwritten.inc();
        }
        self.passed.push_back(frame);
    }

    /// What is away does not come back.
    pub(super) fn lose(&mut self) {
        self.reader.metrics().dropped.inc_by(self.away as u64);
        self.away = 0;
    }
}

impl Drop for Inlet {
    /// Inference ended before it took them.
    fn drop(&mut self) {
        self.reader.metrics().dropped.inc_by((self.passed.len() + self.away) as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::config::MotionConfig;
    use crate::frame::{Colour, CudaImage, Image, PixelFormat};
    use crate::metrics::CameraMetrics;
    use crate::motion::{CELLS, Gate, Pass};
    use crate::slot::slot;

    fn frame(pass: Pass, seq: u64) -> Frame {
        let mut frame = Frame::solid(&CameraId::new("gate"), (8, 8), Instant::now());
        (frame.info.seq, frame.info.gate) = (seq, Some(pass));
        let colour = Colour { bt709: true, full_range: false };
        let (format, planes, strides) = (PixelFormat::Nv12, [0; 3], [0; 3]);
        let (stream, loan) = (0, Box::new(()));
        let image = CudaImage { format, width: 8, height: 8, planes, strides, colour, stream, loan };
        Frame { image: Image::Cuda(image), ..frame }
    }

    /// A live camera in front of which everything moves.
    #[test]
    fn the_newest_frame_wins_on_both_sides_of_the_gate_and_each_is_accounted_for() {
        let metrics = CameraMetrics::default();
        let (wake, _woken) = crossbeam::channel::bounded(1);
        let (writer, reader) = slot(CameraId::new("gate"), metrics.clone(), 1, 5, wake);
        writer.set_live(true);
        let (hold, refresh) = (Duration::ZERO, Duration::from_secs(30));
        let gate = Arc::new(Gate::new(&MotionConfig { threshold: 10, area: 0.002, hold, refresh }, None));
        // Long enough for the gate to know the scene as it is.
        let start = Instant::now();
        let pass = |seq: u64| Pass::new(Arc::clone(&gate), start + Duration::from_secs(10 * seq));
        let mut inlet = Inlet::new(reader);
        let mut away = Vec::new();
        let mut step = |inlet: &mut Inlet, seq: u64, brightness: u8| {
            writer.put(frame(pass(seq), seq));
            let view = inlet.view().unwrap();
            inlet.send(&mut away);
            away.drain(..).for_each(|frame| inlet.judge(frame, &[brightness; CELLS]));
            (view.ready, inlet.view().map(|view| (view.ready, view.live)).unwrap())
        };
        assert_eq!(step(&mut inlet, 0, 10), (0, (1, true)), "ready once it is judged, and not before");
        assert_eq!(step(&mut inlet, 1, 60), (1, (1, true)));
        assert_eq!(inlet.take().map(|frame| frame.info.seq), Some(1));
        assert!(inlet.take().is_none());
        pass(1).tell(1, false, false);
        let (_, (ready, live)) = step(&mut inlet, 2, 60);
        assert_eq!((ready, live), (0, false), "no batch waits for a camera that rests");
        assert_eq!(step(&mut inlet, 3, 200), (0, (1, true)));
        writer.put(frame(pass(4), 4));
        writer.put(frame(pass(5), 5));
        inlet.send(&mut away);
        assert_eq!(away.iter().map(|frame| frame.info.seq).collect::<Vec<_>>(), [5]);
        drop(writer);
        assert!(inlet.view().is_some(), "a frame is away");
        inlet.lose();
        drop(inlet);
        let counts = metrics.counts();
        assert_eq!((counts.overwritten, counts.gated, counts.dropped), (2, 1, 2), "0 and 4; 2; 5 and 3");
    }
}

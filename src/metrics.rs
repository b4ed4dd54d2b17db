//! One tree of counters, handed down at start: names and help in this file alone.
//!
//! Handles are resolved when a camera or stage starts; the data path only adds to atomics.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Registry, Unit};

use crate::event::FrameCounts;
use crate::frame::CameraId;

/// Buckets an octave: a quantile is off by at most 2^(1/8), 9 %.
const BUCKETS_PER_OCTAVE: u32 = 8;
/// Upper bound of the first bucket, in microseconds.
const FIRST_US: f64 = 50.0;
/// Buckets: 50 µs × 2^(176/8) is 210 s.
const BUCKETS: usize = 177;

/// Latencies from 50 µs to 210 s in logarithmic buckets. Adding takes no lock; clones share.
#[derive(Clone)]
pub struct Latency(Arc<LatencyBuckets>);

struct LatencyBuckets {
    counts: Vec<AtomicU64>,
    sum_us: AtomicU64,
}

impl Default for Latency {
    fn default() -> Self {
        let counts = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(LatencyBuckets { counts, sum_us: AtomicU64::new(0) }))
    }
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Latency({} samples)", self.snapshot().count())
    }
}

fn upper_bound_us(bucket: usize) -> f64 {
    FIRST_US * f64::exp2(bucket as f64 / f64::from(BUCKETS_PER_OCTAVE))
}

impl Latency {
    /// Adds one sample.
    pub fn record(&self, latency: Duration) {
        let us = latency.as_micros() as f64;
        let octaves = (us / FIRST_US).max(1.0).log2();
        let bucket = (octaves * f64::from(BUCKETS_PER_OCTAVE)).ceil() as usize;
        self.0.counts[bucket.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
        self.0.sum_us.fetch_add(us as u64, Ordering::Relaxed);
    }

    /// The counts as they are now; two of them make an interval.
    pub fn snapshot(&self) -> LatencySnapshot {
        let counts = self.0.counts.iter().map(|c| c.load(Ordering::Relaxed)).collect();
        LatencySnapshot { counts, sum_us: self.0.sum_us.load(Ordering::Relaxed) }
    }
}

/// The counts of a [`Latency`] at one moment.
#[derive(Clone, Debug)]
pub struct LatencySnapshot {
    counts: Vec<u64>,
    sum_us: u64,
}

impl LatencySnapshot {
    /// Samples.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Mean in seconds; 0 without samples.
    pub fn mean_s(&self) -> f64 {
        self.sum_us as f64 / 1e6 / self.count().max(1) as f64
    }

    /// What came after `earlier`.
    pub fn since(&self, earlier: &LatencySnapshot) -> LatencySnapshot {
        let pairs = self.counts.iter().zip(&earlier.counts);
        LatencySnapshot {
            counts: pairs.map(|(now, then)| now - then).collect(),
            sum_us: self.sum_us - earlier.sum_us,
        }
    }

    /// The `q` quantile (0..=1) in seconds: the upper bound of its bucket; 0 without samples.
    pub fn quantile_s(&self, q: f64) -> f64 {
        let rank = (q * self.count() as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper_bound_us(bucket) / 1e6;
            }
        }
        0.0
    }
}

impl TypedMetric for Latency {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Latency {
    /// Prometheus gets one bucket an octave: 23 instead of 177 series.
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), fmt::Error> {
        let snapshot = self.snapshot();
        let mut buckets = Vec::new();
        let mut counts = snapshot.counts.iter();
        for octave in 0..BUCKETS.div_ceil(BUCKETS_PER_OCTAVE as usize) {
            let last = octave * BUCKETS_PER_OCTAVE as usize;
            let take = if octave == 0 { 1 } else { BUCKETS_PER_OCTAVE as usize };
            let count: u64 = counts.by_ref().take(take).sum();
            let bound = if last + 1 >= BUCKETS { f64::INFINITY } else { upper_bound_us(last) / 1e6 };
            buckets.push((bound, count));
        }
        let sum = snapshot.sum_us as f64 / 1e6;
        encoder.encode_histogram::<NoLabelSet>(sum, snapshot.count(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CameraLabel {
    camera: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabel {
    stage: String,
}

/// Counters of one camera. Clones share.
#[derive(Clone, Debug, Default)]
pub struct CameraMetrics {
    /// Frames out of the decoder.
    pub decoded: Counter,
    /// Frames through the model.
    pub inferred: Counter,
    /// Frames overwritten in the slot.
    pub overwritten: Counter,
    /// Frames skipped by `fps_max`.
    pub skipped_fps: Counter,
    /// Frames in which the motion gate saw nothing move.
    pub gated: Counter,
    /// Frames lost with a failed batch or left over at a stop.
    pub dropped: Counter,
    /// Attempts to connect after the first.
    pub reconnects: Counter,
    /// Pipelines, of all cameras, that were abandoned and still hang.
    pub abandoned: Gauge,
    /// Tracks that ended before they might become events.
    pub events_suppressed: Counter,
    /// Arrival to published.
    pub age: Latency,
    /// Age of the frame published last, in microseconds.
    pub last_age_us: Gauge,
    /// 1 while frames arrive.
    pub online: Gauge,
}

impl CameraMetrics {
    /// The frame counters as one value.
    pub fn counts(&self) -> FrameCounts {
        FrameCounts {
            decoded: self.decoded.get(),
            inferred: self.inferred.get(),
            overwritten: self.overwritten.get(),
            skipped_fps: self.skipped_fps.get(),
            gated: self.gated.get(),
            dropped: self.dropped.get(),
        }
    }
}

/// Latencies of the stages of the data path, over all cameras.
#[derive(Clone, Debug, Default)]
pub struct StageMetrics {
    /// Arrival to decoded.
    pub decode: Latency,
    /// Decoded to handed to the engine.
    pub queue: Latency,
    /// Writing the input tensor, a batch.
    pub preprocess: Latency,
    /// The engine, a batch.
    pub infer: Latency,
    /// Reading the head, a batch.
    pub head: Latency,
    /// Handed to the engine to handed to the publisher.
    pub analyze: Latency,
    /// Arrival to published: frame age.
    pub total: Latency,
    /// Captured to published, where the clock allows.
    pub captured: Latency,
}

/// Counters of thumbnails.
#[derive(Clone, Debug, Default)]
pub struct ThumbnailMetrics {
    /// What one costs the backend.
    pub time: Latency,
    /// Frames without one because all the memory for them was in use.
    pub missed: Counter,
}

/// Counters of snapshots.
#[derive(Clone, Debug, Default)]
pub struct SnapshotMetrics {
    /// Encoding and writing one.
    pub time: Latency,
    /// Pictures written.
    pub written: Counter,
    /// Pictures dropped because too many waited, or because they could not be written.
    pub dropped: Counter,
    /// Bytes in the folder.
    pub bytes: Gauge,
    /// Pictures in the folder.
    pub files: Gauge,
}

/// Counters of the publisher.
#[derive(Clone, Debug, Default)]
pub struct PublishMetrics {
    /// 1 while connected.
    pub connected: Gauge,
    /// Connections accepted by the broker.
    pub connects: Counter,
    /// Attempts that failed, and connections lost.
    pub failures: Counter,
    /// Messages handed to the broker connection.
    pub published: Counter,
    /// `detections` dropped because the broker was slow or away.
    pub detections_dropped: Counter,
    /// Pictures of tracks not published because the broker was slow or away.
    pub snapshots_dropped: Counter,
    /// Spooled messages not yet acknowledged.
    pub spool_pending: Gauge,
    /// Bytes of spooled messages.
    pub spool_bytes: Gauge,
    /// Spooled messages dropped because the spool was full.
    pub spool_dropped: Counter,
    /// Messages the broker refused for good.
    pub dead_letters: Counter,
}

/// The tree. One a process, shared by `Arc`.
pub struct Metrics {
    registry: Registry,
    decoded: Family<CameraLabel, Counter>,
    inferred: Family<CameraLabel, Counter>,
    overwritten: Family<CameraLabel, Counter>,
    skipped_fps: Family<CameraLabel, Counter>,
    gated: Family<CameraLabel, Counter>,
    dropped: Family<CameraLabel, Counter>,
    reconnects: Family<CameraLabel, Counter>,
    events_suppressed: Family<CameraLabel, Counter>,
    age: Family<CameraLabel, Latency>,
    last_age_us: Family<CameraLabel, Gauge>,
    online: Family<CameraLabel, Gauge>,
    /// Pipelines that did not start or stop in time, and still have not stopped.
    pub pipelines_abandoned: Gauge,
    /// Latencies of the stages.
    pub stages: StageMetrics,
    /// Batches through the engine.
    pub batches: Counter,
    /// Lanes filled in those batches.
    pub lanes_filled: Counter,
    /// Lanes there were in those batches.
    pub lanes_total: Counter,
    /// Failed batches and reopened backends.
    pub backend_failures: Counter,
    /// Thumbnails.
    pub thumbnails: ThumbnailMetrics,
    /// Snapshots.
    pub snapshots: SnapshotMetrics,
    /// The publisher.
    pub publish: PublishMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("watchpost"),
            decoded: Family::default(),
            inferred: Family::default(),
            overwritten: Family::default(),
            skipped_fps: Family::default(),
            gated: Family::default(),
            dropped: Family::default(),
            reconnects: Family::default(),
            events_suppressed: Family::default(),
            age: Family::default(),
            last_age_us: Family::default(),
            online: Family::default(),
            pipelines_abandoned: Gauge::default(),
            stages: StageMetrics::default(),
            batches: Counter::default(),
            lanes_filled: Counter::default(),
            lanes_total: Counter::default(),
            backend_failures: Counter::default(),
            thumbnails: ThumbnailMetrics::default(),
            snapshots: SnapshotMetrics::default(),
            publish: PublishMetrics::default(),
        };
        metrics.register_cameras();
        metrics.register_stages();
        metrics.register_pictures();
        metrics.register_publish();
        metrics
    }
}

impl Metrics {
    /// The handles of one camera, made on first use.
    pub fn camera(&self, id: &CameraId) -> CameraMetrics {
        let label = CameraLabel { camera: id.as_str().to_owned() };
        CameraMetrics {
            decoded: self.decoded.get_or_create(&label).clone(),
            inferred: self.inferred.get_or_create(&label).clone(),
            overwritten: self.overwritten.get_or_create(&label).clone(),
            skipped_fps: self.skipped_fps.get_or_create(&label).clone(),
            gated: self.gated.get_or_create(&label).clone(),
            dropped: self.dropped.get_or_create(&label).clone(),
            reconnects: self.reconnects.get_or_create(&label).clone(),
            abandoned: self.pipelines_abandoned.clone(),
            events_suppressed: self.events_suppressed.get_or_create(&label).clone(),
            age: self.age.get_or_create(&label).clone(),
            last_age_us: self.last_age_us.get_or_create(&label).clone(),
            online: self.online.get_or_create(&label).clone(),
        }
    }

    /// A camera is no more: whoever still has its handles counts for nobody.
    pub fn forget(&self, id: &CameraId) {
        let label = CameraLabel { camera: id.as_str().to_owned() };
        self.decoded.remove(&label);
        self.inferred.remove(&label);
        self.overwritten.remove(&label);
        self.skipped_fps.remove(&label);
        self.gated.remove(&label);
        self.dropped.remove(&label);
        self.reconnects.remove(&label);
        self.events_suppressed.remove(&label);
        self.age.remove(&label);
        self.last_age_us.remove(&label);
        self.online.remove(&label);
    }

    /// OpenMetrics text of everything.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    fn register_cameras(&mut self) {
        let r = &mut self.registry;
        r.register("frames_decoded", "Frames out of the decoder", self.decoded.clone());
        r.register("frames_inferred", "Frames through the model", self.inferred.clone());
        r.register(
            "frames_overwritten",
            "Frames replaced by a newer one before inference",
            self.overwritten.clone(),
        );
        r.register("frames_skipped_fps", "Frames skipped by fps_max", self.skipped_fps.clone());
        r.register("frames_gated", "Frames not given to the model: nothing moves", self.gated.clone());
        r.register("frames_dropped", "Frames lost with a failed batch or at a stop", self.dropped.clone());
        r.register("camera_reconnects", "Attempts to connect after the first", self.reconnects.clone());
        let suppressed = self.events_suppressed.clone();
        r.register("events_suppressed", "Tracks that ended before they might become events", suppressed);
        let seconds = Unit::Seconds;
        r.register_with_unit("frame_age", "Arrival before decoding to published", seconds, self.age.clone());
        r.register("frame_age_last_microseconds", "Age of the frame published last", self.last_age_us.clone());
        r.register("camera_online", "1 while frames arrive", self.online.clone());
        let abandoned = self.pipelines_abandoned.clone();
        r.register("pipelines_abandoned", "Pipelines that were told to stop long ago and still hang", abandoned);
    }

    fn register_stages(&mut self) {
        let family = Family::<StageLabel, Latency>::default();
        let stage = |name: &str| family.get_or_create(&StageLabel { stage: name.to_owned() }).clone();
        self.stages = StageMetrics {
            decode: stage("decode"),
            queue: stage("queue"),
            preprocess: stage("preprocess"),
            infer: stage("infer"),
            head: stage("head"),
            analyze: stage("analyze"),
            total: stage("total"),
            captured: stage("captured"),
        };
        self.thumbnails.time = stage("thumbnail");
        self.snapshots.time = stage("snapshot");
        let r = &mut self.registry;
        r.register_with_unit("stage", "Latency of each stage of the data path", Unit::Seconds, family);
        r.register("batches", "Batches through the engine", self.batches.clone());
        r.register("lanes_filled", "Lanes filled in those batches", self.lanes_filled.clone());
        r.register("lanes", "Lanes there were in those batches", self.lanes_total.clone());
        r.register("backend_failures", "Failed batches and reopened backends", self.backend_failures.clone());
    }

    fn register_pictures(&mut self) {
        let (r, s) = (&mut self.registry, &self.snapshots);
        let missed = self.thumbnails.missed.clone();
        r.register("thumbnails_missed", "Frames without a thumbnail: no memory left for one", missed);
        r.register("snapshots_written", "Pictures written", s.written.clone());
        r.register("snapshots_dropped", "Pictures not written: too many at once, or disk", s.dropped.clone());
        r.register("snapshots_bytes", "Bytes of the snapshots kept", s.bytes.clone());
        r.register("snapshots_files", "Snapshots kept", s.files.clone());
    }

    fn register_publish(&mut self) {
        let (r, p) = (&mut self.registry, &self.publish);
        r.register("mqtt_connected", "1 while connected to the broker", p.connected.clone());
        r.register("mqtt_connects", "Connections accepted by the broker", p.connects.clone());
        r.register("mqtt_failures", "Failed attempts and lost connections", p.failures.clone());
        r.register("mqtt_published", "Messages handed to the connection", p.published.clone());
        r.register("detections_dropped", "Detections dropped: broker slow or away", p.detections_dropped.clone());
        let snapshots = p.snapshots_dropped.clone();
        r.register("mqtt_snapshots_dropped", "Pictures of tracks not published: broker slow or away", snapshots);
        r.register("spool_pending", "Spooled messages not yet acknowledged", p.spool_pending.clone());
        r.register("spool_bytes", "Bytes of spooled messages", p.spool_bytes.clone());
        r.register("spool_dropped", "Spooled messages dropped: spool full", p.spool_dropped.clone());
        r.register("dead_letters", "Messages the broker refused for good", p.dead_letters.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_bucket() {
        let latency = Latency::default();
        for ms in 1..=1000 {
            latency.record(Duration::from_millis(ms));
        }
        let snapshot = latency.snapshot();
        assert_eq!(snapshot.count(), 1000);
        for (q, expected) in [(0.5, 0.5), (0.95, 0.95), (0.99, 0.99)] {
            let got = snapshot.quantile_s(q);
            assert!(got >= expected && got < expected * 1.1, "q{q}: {got}");
        }
        let later = latency.snapshot().since(&snapshot);
        assert_eq!((later.count(), later.quantile_s(0.5)), (0, 0.0));
    }

    #[test]
    fn rendered_text_has_every_camera_and_stage() {
        let metrics = Metrics::default();
        let gate = metrics.camera(&CameraId::new("gate"));
        gate.decoded.inc_by(3);
        gate.age.record(Duration::from_millis(20));
        metrics.stages.infer.record(Duration::from_secs(1000));
        let text = metrics.render();
        assert!(text.contains("watchpost_frames_decoded_total{camera=\"gate\"} 3"), "{text}");
        assert!(text.contains("watchpost_frame_age_seconds_count{camera=\"gate\"} 1"), "{text}");
        assert!(text.contains("watchpost_stage_seconds_bucket{le=\"+Inf\",stage=\"infer\"} 1"), "{text}");
        metrics.forget(&CameraId::new("gate"));
        let text = metrics.render();
        assert!(!text.contains("camera=\"gate\""), "{text}");
    }
}

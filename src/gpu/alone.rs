//! The engine alone: over buffers of zeroes, with nothing around it. What end to end is held against, and how its layers
//! are timed.

use std::time::{Duration, Instant};

use super::device::Device;
use super::error::GpuError;
use super::memory::DeviceBuffer;
use super::stream::{Event, Graph, Stream};
use super::trt::{Context, Engine};
use crate::worker;

/// Batches put on a stream before it is waited for: the GPU must not wait for us, and a batch has hundreds of kernels.
const AHEAD: usize = 8;
/// Not measured: the GPU's clock rises, memory is touched.
const WARM_UP: Duration = Duration::from_secs(1);
/// Layers' times are those of the batch after this many.
const WARM_BATCHES: usize = 10;

/// A context with buffers of zeroes.
pub struct Running {
    context: Context,
    stream: Stream,
    /// Alive while the context may run.
    _buffers: Vec<DeviceBuffer>,
}

impl Running {
    /// For batches of `batch`, which the engine must take.
    ///
    /// # Errors
    ///
    /// [`GpuError::Memory`] where the device is full, [`GpuError::Unavailable`] where a tensor's shape is known only
    /// when it has run, else what the engine says.
    pub fn new(engine: &Engine, batch: usize, device: &Device) -> Result<Self, GpuError> {
        let mut context = Context::new(engine)?;
        let tensors = engine.tensors();
        for tensor in tensors.iter().filter(|tensor| tensor.input && tensor.shape.contains(&None)) {
            let shape: Vec<usize> = tensor.shape.iter().map(|d| d.unwrap_or(batch)).collect();
            context.set_shape(&tensor.name, &shape)?;
        }
        let mut buffers = Vec::new();
        for tensor in &tensors {
            let shape = context.shape(&tensor.name).ok_or_else(|| {
                let name = &tensor.name;
                GpuError::Unavailable(format!(
                    "tensor {name:?} has a shape that only its content decides: export the model with fixed outputs"
                ))
            })?;
            let buffer = DeviceBuffer::new(device, tensor.bytes(&shape)?)?;
            context.set_address(&tensor.name, buffer.address())?;
            buffers.push(buffer);
        }
        Ok(Self { context, stream: Stream::new(device)?, _buffers: buffers })
    }

    fn enqueue(&mut self) -> Result<(), GpuError> {
        Ok(self.context.enqueue(self.stream.raw())?)
    }

    /// Milliseconds of each layer, once the GPU is warm.
    ///
    /// # Errors
    ///
    /// [`GpuError::Failed`] where the engine does not run.
    pub fn layer_times(&mut self) -> Result<Vec<(String, f32)>, GpuError> {
        for _ in 0..WARM_BATCHES {
            self.enqueue()?;
        }
        self.stream.synchronize()?;
        self.context.profile_layers(true);
        self.enqueue()?;
        self.stream.synchronize()?;
        Ok(self.context.layer_times())
    }
}

/// What was measured, over all contexts.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Batches that ended.
    pub batches: u64,
    /// How long they took together.
    pub wall: Duration,
    /// Of each batch: milliseconds from the end of the one before on its context.
    pub batch_ms: Vec<f32>,
}

/// Runs `contexts` contexts at once for `time`, each on a thread of its own, as CUDA graphs if asked to.
///
/// # Errors
///
/// As [`Running::new`], and [`GpuError::Failed`] where the engine cannot be captured.
pub fn measure(
    engine: &Engine,
    batch: usize,
    device: &Device,
    contexts: usize,
    with_graph: bool,
    time: Duration,
) -> Result<Measured, GpuError> {
    let lanes: Result<Vec<Lane>, GpuError> =
        (0..contexts).map(|_| Lane::new(engine, batch, device, with_graph)).collect();
    let start = Instant::now() + WARM_UP;
    let run = |(number, lane): (usize, Lane)| {
        worker::spawn(&format!("trt-{number}"), move || lane.run(start, start + time))
    };
    let threads: Vec<_> = lanes?.into_iter().enumerate().map(run).collect();
    let mut all = Measured { wall: time, ..Measured::default() };
    for thread in threads {
        let failed = |_| Err(GpuError::Failed("a measuring thread panicked".to_owned()));
        let batch_ms = thread.join().unwrap_or_else(failed)?;
        all.batches += batch_ms.len() as u64;
        all.batch_ms.extend(batch_ms);
    }
    Ok(all)
}

/// One context on its way through the loop.
struct Lane {
    running: Running,
    graph: Option<Graph>,
    /// Between the batches.
    marks: Vec<Event>,
}

impl Lane {
    fn new(engine: &Engine, batch: usize, device: &Device, with_graph: bool) -> Result<Self, GpuError> {
        let mut running = Running::new(engine, batch, device)?;
        // The first batch sets up what a graph cannot hold.
        running.enqueue()?;
        running.stream.synchronize()?;
        let stream = running.stream.clone();
        let graph = if with_graph { Some(stream.capture(|| running.enqueue())?) } else { None };
        let marks = (0..=AHEAD).map(|_| Event::new(device)).collect::<Result<_, _>>()?;
        Ok(Self { running, graph, marks })
    }

    /// Milliseconds of each batch of the rounds that begin between `start` and `end`; before, it warms up.
    fn run(mut self, start: Instant, end: Instant) -> Result<Vec<f32>, GpuError> {
        let mut batch_ms = Vec::new();
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(batch_ms);
            }
            self.round()?;
            if now >= start {
                for pair in self.marks.windows(2) {
                    batch_ms.push(pair[1].ms_since(&pair[0])?);
                }
            }
        }
    }

    fn round(&mut self) -> Result<(), GpuError> {
        let stream = self.running.stream.clone();
        self.marks[0].record(&stream)?;
        for mark in &self.marks[1..] {
            match &self.graph {
                Some(graph) => graph.launch(&stream)?,
                None => self.running.enqueue()?,
            }
            mark.record(&stream)?;
        }
        stream.synchronize()
    }
}

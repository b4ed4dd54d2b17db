//! What TensorRT's INT8 calibration asks for: frames of a file on the GPU, or the table of an earlier time.

use std::path::{Path, PathBuf};

use crate::cli::{Code, Failure};
use crate::engine::Manifest;
use crate::engine::calibration::{self, Calibration, Frames, TableKey};
use crate::engine::order::Order;
use crate::gpu::device::Device;
use crate::gpu::error::GpuError;
use crate::gpu::memory::{DeviceBuffer, Pinned};
use crate::gpu::stream::Stream;
use crate::gpu::trt;

/// Feeds a calibration.
pub struct Calibrator {
    batch: usize,
    table: Option<Vec<u8>>,
    frames: Option<Feed>,
    /// The first thing that went wrong: what TensorRT made without the rest is worth nothing.
    failure: Option<Failure>,
}

/// Frames on their way to the GPU.
struct Feed {
    frames: Frames,
    input: String,
    /// The next frame.
    next: usize,
    table: PathBuf,
    key: TableKey,
    stream: Stream,
    pinned: Pinned,
    buffer: DeviceBuffer,
}

impl Calibrator {
    /// Of what the manifest names, for `order` with TensorRT `version`.
    ///
    /// # Errors
    ///
    /// A sentence where it names nothing, or nothing that fits.
    pub fn open(manifest: &Manifest, order: &Order, version: &str, device: &Device) -> Result<Self, Failure> {
        let path = named(manifest)?;
        let batch = order.shapes.batches[1];
        let frames = match calibration::open(path)? {
            Calibration::Table(table) => {
                return Ok(Self { batch, table: Some(table), frames: None, failure: None });
            }
            Calibration::Frames(frames) => frames,
        };
        frames.check(&manifest.input, order.shapes.size)?;
        if let Some(other) = order.others.first() {
            let text = format!(
                "INT8: the model has an input `{other}` beside the picture, for which there are no frames: calibrate it \
                 with its own tools, and give their table as tensorrt.calibration"
            );
            return Err(Failure::new(Code::Config, text));
        }
        let table_path = calibration::table_path(path);
        let key = TableKey {
            frames: frames.header.sha256.clone(),
            model: order.wanted.model_sha256.clone().unwrap_or_default(),
            tensorrt: version.to_owned(),
        };
        let table = calibration::read_table(&table_path, &key)?;
        let feed = Feed::new(frames, order, key, table_path, device)?;
        Ok(Self { batch, table, frames: Some(feed), failure: None })
    }

    /// What went wrong while TensorRT asked.
    ///
    /// # Errors
    ///
    /// The first thing.
    pub fn finish(self) -> Result<(), Failure> {
        self.failure.map_or(Ok(()), Err)
    }
}

impl Feed {
    fn new(
        frames: Frames,
        order: &Order,
        key: TableKey,
        table: PathBuf,
        device: &Device,
    ) -> Result<Self, GpuError> {
        let (width, height) = order.shapes.size;
        let bytes = order.shapes.batches[1] * 3 * width as usize * height as usize * size_of::<f32>();
        Ok(Self {
            frames,
            input: order.shapes.picture.clone(),
            next: 0,
            table,
            key,
            stream: Stream::new(device)?,
            pinned: Pinned::new(device, bytes)?,
            buffer: DeviceBuffer::new(device, bytes)?,
        })
    }

    /// The next batch on the GPU; `None` after the last. The last one is filled up with the first frames.
    fn next(&mut self, batch: usize) -> Result<Option<u64>, Failure> {
        let count = self.frames.header.frames;
        if self.next >= count {
            return Ok(None);
        }
        let elements = self.pinned.bytes().len() / size_of::<f32>() / batch;
        for (lane, out) in self.pinned.slice_mut::<f32>(0, elements * batch).chunks_exact_mut(elements).enumerate()
        {
            self.frames.read((self.next + lane) % count, out)?;
        }
        self.next += batch;
        self.stream.upload(&self.pinned, 0, &self.buffer, 0, self.pinned.bytes().len())?;
        self.stream.synchronize()?;
        Ok(Some(self.buffer.address()))
    }
}

impl trt::Calibrator for Calibrator {
    fn batch_size(&self) -> usize {
        self.batch
    }

    fn next(&mut self, input: &str) -> Option<u64> {
        let feed = self.frames.as_mut().filter(|feed| feed.input == input)?;
        match feed.next(self.batch) {
            Ok(address) => address,
            Err(failure) => {
                self.failure.get_or_insert(failure);
                None
            }
        }
    }

    fn read_cache(&mut self) -> Option<Vec<u8>> {
        self.table.clone()
    }

    fn write_cache(&mut self, cache: &[u8]) {
        let Some(feed) = &self.frames else { return };
        if let Err(error) = calibration::write_table(&feed.table, &feed.key, cache) {
            tracing::warn!("the calibration table is not kept: {error}");
        }
    }
}

/// What the manifest names as its calibration.
///
/// # Errors
///
/// A sentence where it names nothing.
pub fn named(manifest: &Manifest) -> Result<&Path, Failure> {
    manifest.tensorrt.calibration.as_deref().ok_or_else(|| {
        let text = "INT8 without calibration: run `watchpost engine calibrate` first, then give its file as \
                    tensorrt.calibration in the manifest, or with --calibration";
        Failure::new(Code::Config, text)
    })
}

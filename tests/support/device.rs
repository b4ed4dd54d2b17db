//! Values on their way to a GPU and back, and what its letterbox drew against what the host draws.

use watchpost::gpu::letterbox::InputFormat;
use watchpost::gpu::memory::{DeviceBuffer, Pinned, Pod};
use watchpost::gpu::stream::Stream;

/// The values on the stream's device.
pub fn upload<T: Pod>(stream: &Stream, values: &[T]) -> DeviceBuffer {
    let (device, bytes) = (stream.device(), size_of_val(values));
    let (mut host, buffer) = (Pinned::new(device, bytes).unwrap(), DeviceBuffer::new(device, bytes).unwrap());
    host.slice_mut(0, values.len()).copy_from_slice(values);
    stream.upload(&host, 0, &buffer, 0, bytes).unwrap();
    stream.synchronize().unwrap();
    buffer
}

/// All of a buffer, once the stream's work before it is done.
pub fn download(stream: &Stream, buffer: &DeviceBuffer) -> Pinned {
    let mut host = Pinned::new(stream.device(), buffer.len()).unwrap();
    stream.download(buffer, 0, &mut host, 0, buffer.len()).unwrap();
    stream.synchronize().unwrap();
    host
}

/// Asserts that a lane of a tensor is what the host draws, within a grey level.
pub fn assert_drawn(got: &[f32], format: &InputFormat, expected: &[f32], said: &str) {
    assert_eq!(got.len(), expected.len(), "{said}");
    let plane = expected.len() / 3;
    let levels = format.spec.values().map(|[factor, _]| factor.abs());
    for (at, (got, expected)) in got.iter().zip(expected).enumerate() {
        let off = (got - expected).abs() / levels[at / plane];
        assert!(off <= 1.0, "{said}: value {at}: {got}, not {expected}: {off} grey levels");
    }
}

//! The few TensorRT calls that watchpost makes, behind a C ABI of our own.

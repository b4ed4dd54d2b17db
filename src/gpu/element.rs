//! Types of a tensor's elements.

/// The type of a tensor's elements, as TensorRT has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// float32.
    F32,
    /// float16.
    F16,
    /// int8.
    I8,
    /// int32.
    I32,
    /// int64.
    I64,
    /// bool.
    Bool,
    /// uint8.
    U8,
    /// One that nothing here reads.
    Other,
}

impl Element {
    /// Bytes of one element; 0 where it is not known.
    pub fn bytes(self) -> usize {
        match self {
            Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 => 2,
            Self::I8 | Self::Bool | Self::U8 => 1,
            Self::Other => 0,
        }
    }
}

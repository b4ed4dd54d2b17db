//! A model's tensors as its runtime describes and returns them, checked before a number is read.

use std::fmt;

use super::head::HeadError;

/// What a runtime says of an input or output before the model has run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name in the model.
    pub name: String,
    /// Dimensions, the batch first; `None` where the model leaves one open.
    pub shape: Vec<Option<usize>>,
    /// Elements are integers, else floating point.
    pub integer: bool,
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dimension = |d: &Option<usize>| d.map_or_else(|| "?".to_owned(), |d| d.to_string());
        let shape: Vec<String> = self.shape.iter().map(dimension).collect();
        let kind = if self.integer { "integer" } else { "float" };
        write!(f, "`{}` {} {kind}", self.name, shape.join("x"))
    }
}

/// The elements of an output tensor, row by row. Backends widen float16 to float32.
#[derive(Clone, Copy, Debug)]
pub enum TensorData<'a> {
    /// float32.
    F32(&'a [f32]),
    /// int32.
    I32(&'a [i32]),
    /// int64.
    I64(&'a [i64]),
}

impl TensorData<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(data) => data.len(),
            Self::I32(data) => data.len(),
            Self::I64(data) => data.len(),
        }
    }
}

/// An output tensor after a run.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    /// Name in the model.
    pub name: &'a str,
    /// Dimensions, the batch first.
    pub shape: &'a [usize],
    /// Elements: as many as the product of the dimensions.
    pub data: TensorData<'a>,
}

impl<'a> TensorView<'a> {
    /// The dimensions after the batch, which must be `N` in number.
    pub(super) fn lane_shape<const N: usize>(&self) -> Result<[usize; N], HeadError> {
        let inner = self.shape.get(1..).unwrap_or_default();
        inner.try_into().map_err(|_| self.wrong(&format!("should have {} dimensions", N + 1)))
    }

    /// Elements a lane, as the shape claims; 0 without a batch dimension.
    pub(super) fn lane_len(&self) -> usize {
        let inner = self.shape.get(1..).unwrap_or(&[0]);
        inner.iter().fold(1, |product: usize, d| product.saturating_mul(*d))
    }

    /// The elements of one lane, which must be `len` floats.
    pub(super) fn floats(&self, lane: usize, len: usize) -> Result<&'a [f32], HeadError> {
        let range = self.lane_range(lane, len)?;
        match self.data {
            TensorData::F32(data) => Ok(&data[range]),
            _ => Err(self.wrong("should hold floating-point numbers")),
        }
    }

    /// The elements of one lane, which must be `len` numbers of any type.
    pub(super) fn numbers(&self, lane: usize, len: usize) -> Result<Numbers<'a>, HeadError> {
        let range = self.lane_range(lane, len)?;
        Ok(Numbers(match self.data {
            TensorData::F32(data) => TensorData::F32(&data[range]),
            TensorData::I32(data) => TensorData::I32(&data[range]),
            TensorData::I64(data) => TensorData::I64(&data[range]),
        }))
    }

    /// Where one lane's elements are: within `data`, whatever the shape claims.
    fn lane_range(&self, lane: usize, len: usize) -> Result<std::ops::Range<usize>, HeadError> {
        let (lanes, inner) = self.shape.split_first().ok_or_else(|| self.wrong("should have a batch dimension"))?;
        if lane >= *lanes {
            return Err(self.wrong(&format!("should have a lane {lane}")));
        }
        let lane_len = inner.iter().try_fold(1, |product: usize, d| product.checked_mul(*d));
        let total = lane_len.and_then(|n| n.checked_mul(*lanes));
        if lane_len != Some(len) || total != Some(self.data.len()) {
            let held = self.data.len();
            return Err(self.wrong(&format!("should hold {len} elements a lane (it holds {held} in all)")));
        }
        Ok(lane * len..(lane + 1) * len)
    }

    /// An error that names this tensor and its shape.
    pub(super) fn wrong(&self, what: &str) -> HeadError {
        let shape: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        HeadError::Tensor(format!("output `{}` {} {what}", self.name, shape.join("x")))
    }
}

/// One lane of numbers of any type.
pub(super) struct Numbers<'a>(TensorData<'a>);

impl Numbers<'_> {
    /// Element `index`, NaN beyond the end.
    pub(super) fn get(&self, index: usize) -> f64 {
        let value = match self.0 {
            TensorData::F32(data) => data.get(index).map(|v| f64::from(*v)),
            TensorData::I32(data) => data.get(index).map(|v| f64::from(*v)),
            TensorData::I64(data) => data.get(index).map(|v| *v as f64),
        };
        value.unwrap_or(f64::NAN)
    }
}

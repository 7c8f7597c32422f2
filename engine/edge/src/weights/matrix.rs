//! A matrix in whatever form it is stored, and its product with vectors.

use rayon::prelude::*;

use super::activations::Activations;
use super::float_rows::FloatRows;
use super::integer_rows::IntegerRows;
use super::tensor::Tensor;
use super::widened::widened;
use crate::kernels::{Quantized, quantize};

/// Multiplications that are worth another thread's attention.
const MIN_TASK_WORK: usize = 1 << 15;
/// Rows that share an input while it is in the nearest cache.
const TILE_ROWS: usize = 4;

/// A matrix (rows = outputs, cols = inputs).
#[derive(Debug)]
pub(crate) struct Matrix {
    rows: usize,
    cols: usize,
    storage: Storage,
    activations: Activations,
}

#[derive(Debug)]
enum Storage {
    Floats(FloatRows),
    /// Multiplied with inputs quantized to int8, one scale per input vector.
    Integers(IntegerRows),
}

impl Matrix {
    /// Errors: (expected, found) for bytes that do not hold `rows` × `cols` usable numbers.
    pub(super) fn from_tensor(
        tensor: &Tensor,
        rows: usize,
        cols: usize,
        activations: Activations,
    ) -> Result<Self, (String, String)> {
        if rows.checked_mul(cols).is_none_or(|len| len == 0) {
            return Err(("at least one weight".to_owned(), format!("shape [{rows}, {cols}]")));
        }
        let Some(expected_bytes) = tensor.format.num_bytes(rows, cols) else {
            return Err((format!("{} rows of whole blocks", tensor.format.label()), format!("rows of {cols}")));
        };
        if expected_bytes != tensor.bytes.len() {
            return Err((format!("{expected_bytes} bytes"), format!("{} bytes", tensor.bytes.len())));
        }
        let widened = widened(tensor, cols)?;
        let tensor = widened.as_ref().unwrap_or(tensor);
        let storage = match FloatRows::new(tensor.format, tensor.bytes.clone(), cols) {
            Some(floats) => Storage::Floats(floats),
            None => Storage::Integers(IntegerRows::new(tensor, rows, cols)?),
        };
        Ok(Self { rows, cols, storage, activations })
    }

    /// Outputs.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// Row `row` as floats (cols); `None` past the end.
    pub(crate) fn row(&self, row: usize) -> Option<Vec<f32>> {
        let decoded = match &self.storage {
            Storage::Floats(floats) => floats.row(row),
            Storage::Integers(integers) => integers.row(row),
        };
        (row < self.rows).then_some(decoded)
    }

    /// `inputs` (n, cols) times the transpose of this matrix: (n, rows).
    pub(crate) fn apply(&self, inputs: &[f32]) -> Vec<f32> {
        let n = inputs.len() / self.cols;
        let columns = self.apply_transposed(inputs);
        if n <= 1 {
            return columns;
        }
        let mut outputs = vec![0.0; columns.len()];
        for (row, column) in columns.chunks_exact(n).enumerate() {
            for (value, output) in column.iter().zip(outputs.iter_mut().skip(row).step_by(self.rows)) {
                *output = *value;
            }
        }
        outputs
    }

    /// This matrix times the transpose of `inputs` (n, cols): (rows, n).
    pub(crate) fn apply_transposed(&self, inputs: &[f32]) -> Vec<f32> {
        let inputs = inputs.chunks_exact(self.cols);
        match &self.storage {
            Storage::Floats(floats) => {
                let inputs: Vec<&[f32]> = inputs.collect();
                self.products(&inputs, |row, x| floats.product(row, x))
            }
            Storage::Integers(integers) => match self.activations {
                Activations::Bytes => {
                    let inputs: Vec<Quantized> = inputs.map(quantize).collect();
                    self.products(&inputs, |row, x| integers.product(row, x))
                }
                Activations::RoundedFloats | Activations::Floats => {
                    let inputs: Vec<Vec<f32>> = inputs.map(|x| self.activations.floats(x)).collect();
                    self.decoded_products(&inputs, integers)
                }
            },
        }
    }

    /// (rows, n) products of decoded rows, without the integer kernels.
    fn decoded_products(&self, inputs: &[Vec<f32>], integers: &IntegerRows) -> Vec<f32> {
        let mut outputs = vec![0.0; self.rows * inputs.len()];
        outputs.par_chunks_mut(inputs.len().max(1)).enumerate().for_each(|(number, outputs)| {
            let row = integers.row(number);
            for (output, input) in outputs.iter_mut().zip(inputs) {
                *output = dot(&row, input);
            }
        });
        outputs
    }

    /// (rows, n) products; shared among threads when there is enough to do.
    fn products<T: Sync>(&self, inputs: &[T], product: impl Fn(usize, &T) -> f32 + Sync) -> Vec<f32> {
        let n = inputs.len();
        if n == 0 {
            return Vec::new();
        }
        let mut outputs = vec![0.0; self.rows * n];
        let rows_per_task = (MIN_TASK_WORK / (self.cols * n)).max(1).next_multiple_of(TILE_ROWS);
        // An input is multiplied with a few rows while it is in the nearest cache.
        let task = |(number, outputs): (usize, &mut [f32])| {
            for (tile, outputs) in outputs.chunks_mut(TILE_ROWS * n).enumerate() {
                let first_row = number * rows_per_task + tile * TILE_ROWS;
                for (column, input) in inputs.iter().enumerate() {
                    for (row, output) in outputs.iter_mut().skip(column).step_by(n).enumerate() {
                        *output = product(first_row + row, input);
                    }
                }
            }
        };
        let task_len = rows_per_task * n;
        if outputs.len() <= task_len {
            task((0, &mut outputs));
        } else {
            outputs.par_chunks_mut(task_len).enumerate().for_each(task);
        }
        outputs
    }
}

/// Σ wᵢxᵢ.
fn dot(w: &[f32], x: &[f32]) -> f32 {
    /// Partial sums, so that the compiler may use vector registers.
    const LANES: usize = 8;
    let mut sums = [0.0_f32; LANES];
    let (w, x) = (w.as_chunks::<LANES>(), x.as_chunks::<LANES>());
    for (w, x) in w.0.iter().zip(x.0) {
        for ((sum, w), x) in sums.iter_mut().zip(w).zip(x) {
            *sum += w * x;
        }
    }
    sums.iter().sum::<f32>() + w.1.iter().zip(x.1).map(|(w, x)| w * x).sum::<f32>()
}

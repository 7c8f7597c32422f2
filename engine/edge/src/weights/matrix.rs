//! A matrix in whatever form it is stored, and its product with vectors.

use super::activations::Activations;
use super::float_rows::FloatRows;
use super::integer_rows::IntegerRows;
use super::packed_floats::PackedFloats;
use super::tensor::Tensor;
use super::widened::widened;
use crate::kernels::{self, PANEL_ROWS, Quantized};
use crate::runtime::{Output, Panel, panels};

/// Bytes of weights in a task: at least what is worth another thread's attention, some microseconds of reading; at most
/// what reads at the memory's full rate.
const TASK_BYTES: std::ops::RangeInclusive<usize> = 1 << 15..=1 << 17;
/// Tasks of a matrix, where they are not too small for it: so many that threads end at about the same time.
const NUM_TASKS: usize = 32;
/// A panel has a multiple of these rows, which kernels take at once.
const ROW_STEP: usize = 4;

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
    /// Floats once they are unpacked, which happens when they are multiplied.
    PackedFloats(PackedFloats),
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
        let bytes = || tensor.bytes.clone();
        let storage = if let Some(floats) = FloatRows::new(tensor.format, bytes(), cols) {
            Storage::Floats(floats)
        } else if let Some(packed) = PackedFloats::new(tensor.format, bytes(), cols) {
            Storage::PackedFloats(packed)
        } else {
            Storage::Integers(IntegerRows::new(tensor, rows, cols)?)
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
            Storage::PackedFloats(packed) => packed.row(row),
            Storage::Integers(integers) => integers.row(row),
        };
        (row < self.rows).then_some(decoded)
    }

    /// True when products are of inputs rounded to 8 bits, by the integer kernels or as floats, so that more precision
    /// around them is wasted.
    pub(crate) fn reads_rounded_inputs(&self) -> bool {
        matches!(self.storage, Storage::Integers(_)) && self.activations != Activations::Floats
    }

    /// True when the integer kernels multiply.
    fn rounds_inputs(&self) -> bool {
        matches!(self.storage, Storage::Integers(_)) && self.activations == Activations::Bytes
    }

    /// Bytes that a product reads.
    pub(crate) fn num_bytes(&self) -> usize {
        self.rows * self.row_bytes()
    }

    fn row_bytes(&self) -> usize {
        match &self.storage {
            Storage::Floats(floats) => floats.row_bytes(),
            Storage::PackedFloats(packed) => packed.row_bytes(),
            Storage::Integers(integers) => integers.row_bytes(),
        }
    }

    /// `inputs` (n, cols) times the transpose of this matrix: (n, rows).
    pub(crate) fn apply(&self, inputs: &[f32]) -> Vec<f32> {
        let [outputs] = Self::apply_together([self], inputs);
        outputs
    }

    /// `inputs` (n, cols) times the transpose of each of `matrices`, which have as many columns as the first: threads
    /// meet once for all of them. Kernels read the inputs rounded once.
    pub(crate) fn apply_together<const N: usize>(matrices: [&Self; N], inputs: &[f32]) -> [Vec<f32>; N] {
        let cols = matrices.first().map_or(1, |matrix| matrix.cols);
        let n = inputs.len() / cols;
        let is_rounded = matrices.iter().any(|matrix| matrix.rounds_inputs());
        let rounded = is_rounded.then(|| Quantized::new(inputs, cols, kernels::active()));
        let mut values = matrices.map(|matrix| vec![0.0; n * matrix.rows]);
        let outputs = values.iter_mut().zip(&matrices).map(|(values, matrix)| Output {
            values,
            width: matrix.rows,
            panel_width: matrix.panel_rows(n),
        });
        let mut outputs: Vec<Output<'_>> = outputs.collect();
        panels(&mut outputs, |number, panel| {
            if let Some(matrix) = matrices.get(number) {
                matrix.fill(inputs, rounded.as_ref(), panel);
            }
        });
        values
    }

    /// Rows of a task with `n` inputs: with one, what takes some microseconds to read; with several, what is unpacked at
    /// once.
    fn panel_rows(&self, n: usize) -> usize {
        if n > 1 {
            return PANEL_ROWS;
        }
        let task_bytes = (self.num_bytes() / NUM_TASKS).clamp(*TASK_BYTES.start(), *TASK_BYTES.end());
        (task_bytes / self.row_bytes().max(1)).max(1).next_multiple_of(ROW_STEP)
    }

    /// The products of this matrix's rows in `panel` with all inputs.
    fn fill(&self, inputs: &[f32], rounded: Option<&Quantized>, mut panel: Panel<'_>) {
        match (&self.storage, rounded) {
            (Storage::Integers(integers), Some(rounded)) if self.rounds_inputs() => integers.fill(rounded, &mut panel),
            (Storage::Integers(integers), _) => {
                let inputs: Vec<Vec<f32>> =
                    inputs.chunks_exact(self.cols).map(|x| self.activations.floats(x)).collect();
                for (column, row) in panel.columns().enumerate() {
                    let row = integers.row(row);
                    for (n, input) in inputs.iter().enumerate() {
                        if let Some(output) = panel.row_mut(n).get_mut(column) {
                            *output = dot(&row, input);
                        }
                    }
                }
            }
            (Storage::Floats(floats), _) => floats.fill(inputs, &mut panel),
            (Storage::PackedFloats(packed), _) => packed.fill(inputs, &mut panel),
        }
    }
}

/// Σ wᵢxᵢ.
fn dot(w: &[f32], x: &[f32]) -> f32 {
    let mut sum = [0.0];
    (kernels::active().f32_rows)(bytemuck::cast_slice(w), x, &mut sum);
    sum[0]
}

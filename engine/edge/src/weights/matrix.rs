//! A matrix in whatever form it is stored, and its product with vectors.

use super::activations::Activations;
use super::float_rows::FloatRows;
use super::integer_rows::IntegerRows;
use super::packed_floats::PackedFloats;
use super::tensor::Tensor;
use super::triple_rows::TripleRows;
use super::widened::widened;
use crate::kernels::{self, GROUP_ROWS, PANEL_ROWS, Quantized, TripleKernels};
use crate::runtime::{Floats, Output, Panel, Runs, Stretch, fetch_ahead, fetch_no_more, panels};

/// Bytes of weights in a task: at least what is worth another thread's attention, some microseconds of reading; at most
/// what reads at the memory's full rate. Triples have as many as are read side by side.
const TASK_BYTES: std::ops::RangeInclusive<usize> = 1 << 15..=1 << 17;
/// A task of so many bytes is read in runs of its own where the processor follows them: they are long enough, and nearer
/// than those of the whole matrix.
const LONG_TASK_BYTES: usize = 3 << 15;
/// Tasks of a matrix, where they are not too small for it: so many that threads end at about the same time.
const NUM_TASKS: usize = 32;
/// Least tasks of a matrix in triples for which groups are read side by side.
const MIN_TASKS: usize = 4;
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
        if let Some(triples) = TripleRows::new(tensor, cols)? {
            return Ok(Self { rows, cols, storage: Storage::Integers(IntegerRows::Triples(triples)), activations });
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

    /// What fills the tables, where few inputs are multiplied by looking up sums of them.
    fn triple_kernels(&self) -> Option<&'static TripleKernels> {
        match &self.storage {
            Storage::Integers(IntegerRows::Triples(rows)) if self.rounds_inputs() => Some(rows.kernels()),
            _ => None,
        }
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
    pub(crate) fn apply(&self, inputs: &[f32]) -> Floats {
        let [outputs] = Self::apply_together([self], inputs);
        outputs
    }

    /// `inputs` (n, cols) times the transpose of each of `matrices`, which have as many columns as the first: threads
    /// meet once for all of them. Kernels read the inputs rounded once.
    pub(crate) fn apply_together<const N: usize>(matrices: [&Self; N], inputs: &[f32]) -> [Floats; N] {
        let cols = matrices.first().map_or(1, |matrix| matrix.cols);
        let n = inputs.len() / cols;
        let is_rounded = matrices.iter().any(|matrix| matrix.rounds_inputs());
        let mut rounded = is_rounded.then(|| Quantized::new(inputs, cols, kernels::active()));
        if let Some(rounded) = &mut rounded
            && let Some(triples) = matrices.iter().find_map(|matrix| matrix.triple_kernels())
        {
            rounded.fill_tables(triples);
        }
        let mut values = matrices.map(|matrix| Floats::any(n * matrix.rows));
        let outputs = values.iter_mut().zip(&matrices).map(|(values, matrix)| {
            let (panel_width, num_runs) = matrix.cut(n);
            Output { values, width: matrix.rows, panel_width, num_runs }
        });
        let mut outputs: Vec<Output<'_>> = outputs.collect();
        fetch_no_more();
        panels(&mut outputs, |number, panel| {
            if let Some(matrix) = matrices.get(number) {
                matrix.fill(inputs, rounded.as_ref(), panel);
            }
        });
        values
    }

    /// Tells idle threads that `n` inputs come to `matrices` next, together; of no use for more than one, which keep the
    /// threads computing.
    pub(crate) fn fetch_ahead(matrices: &[&Self], n: usize) {
        if n != 1 {
            return;
        }
        let num_tasks = |matrix: &Self| {
            let (panel_width, num_runs) = matrix.cut(1);
            (matrix.rows / num_runs).div_ceil(panel_width)
        };
        fetch_ahead(matrices.iter().map(|matrix| num_tasks(matrix)).sum(), |mut task| {
            for matrix in matrices {
                if task < num_tasks(matrix) {
                    return matrix.stretch(task);
                }
                task -= num_tasks(matrix);
            }
            None
        });
    }

    /// What the tasks from number `task` on read with one input; `None` where it is not known as bytes.
    fn stretch(&self, task: usize) -> Option<Stretch<'_>> {
        let (panel_width, num_runs) = self.cut(1);
        let bytes = match &self.storage {
            Storage::Floats(floats) => floats.bytes(),
            Storage::PackedFloats(packed) => packed.bytes(),
            Storage::Integers(integers) => integers.bytes(),
        };
        let runs = Runs { num: num_runs, apart: self.rows / num_runs * self.row_bytes() };
        Some(Stretch { bytes: bytes.get(task * panel_width * self.row_bytes()..)?, runs })
    }

    /// A task's rows in each run, and the runs, with `n` inputs.
    fn cut(&self, n: usize) -> (usize, usize) {
        let num_runs = self.num_runs(n);
        (self.panel_rows(n) / num_runs, num_runs)
    }

    /// Runs of rows that threads read side by side with `n` inputs: each thread goes on in all of them from task to task, so
    /// that it reads a few long runs.
    fn num_runs(&self, n: usize) -> usize {
        let reads_runs = match &self.storage {
            Storage::Floats(_) => true,
            Storage::Integers(_) => self.rounds_inputs() && self.triple_kernels().is_none(),
            Storage::PackedFloats(_) => false,
        };
        let num_runs = kernels::active().num_runs;
        let is_cut_by_kernels = matches!(&self.storage, Storage::Integers(integers) if integers.is_cut_by_kernels());
        let is_long = self.panel_rows(1) * self.row_bytes() >= LONG_TASK_BYTES;
        let has_long_pieces = kernels::follows_runs() && is_cut_by_kernels && is_long;
        if n == 1 && reads_runs && self.rows.is_multiple_of(num_runs) && !has_long_pieces { num_runs } else { 1 }
    }

    /// Rows of a task with `n` inputs: with one, what takes some microseconds to read; with several, what is unpacked at
    /// once.
    fn panel_rows(&self, n: usize) -> usize {
        if n > 1 {
            return PANEL_ROWS;
        }
        let task_bytes = (self.num_bytes() / NUM_TASKS).clamp(*TASK_BYTES.start(), *TASK_BYTES.end());
        let row_step = self.triple_kernels().map_or(ROW_STEP, |triples| {
            let side_by_side = triples.groups_at_once * GROUP_ROWS;
            if self.rows < MIN_TASKS * side_by_side { GROUP_ROWS } else { side_by_side }
        });
        (task_bytes / self.row_bytes().max(1)).max(1).next_multiple_of(row_step)
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
    (kernels::active().f32_rows)(bytemuck::cast_slice(w), Runs::ONE, x, &mut sum);
    sum[0]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use foretrain_ternary::Packing;
    use half::{bf16, f16};

    use super::*;
    use crate::gguf::{encode_q3_k, encode_q4_0, encode_q4_k, encode_q8_0};
    use crate::kernels::tests::with_each_set;
    use crate::runtime::with_threads;
    use crate::weights::tensor::Format;

    /// No multiples of what kernels take at once, and one that cannot be cut into equal runs.
    const SOME_ROWS: [usize; 2] = [72, 71];

    fn random(len: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..len).map(|_| next()).collect()
    }

    /// A tensor in every way that rows are kept, with its columns.
    fn tensors(rows: usize) -> Vec<(Tensor, usize)> {
        let tensor = |format, cols: usize, encode: &dyn Fn(&[f32]) -> Vec<u8>| {
            let bytes = encode(&random(rows * cols, 1)).into();
            let scales = if format == Format::Int8 { random(rows, 2) } else { Vec::new() };
            (Tensor { format, shape: vec![rows, cols], bytes, scales }, cols)
        };
        let trits = |values: &[f32]| -> Vec<i8> { values.iter().map(|x| (x * 1.5).round_ties_even() as i8).collect() };
        // Another scale for each block.
        let scaled = |values: &[f32]| {
            let blocks = values.chunks(256).zip(random(values.len(), 3));
            blocks.flat_map(|(block, scale)| Packing::Tq2_0.pack(&trits(block), scale.abs()).unwrap()).collect()
        };
        let by_row = |cols: usize| {
            move |values: &[f32]| -> Vec<u8> {
                let rows = values.chunks(cols).zip(random(values.len(), 5));
                rows.flat_map(|(row, scale)| Packing::Tq1_0.pack(&trits(row), scale.abs()).unwrap()).collect()
            }
        };
        let equal = |packing: Packing| move |values: &[f32]| packing.pack(&trits(values), 0.3).unwrap();
        let half = |values: &[f32]| values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect();
        let brain = |values: &[f32]| values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect();
        let signed = |values: &[f32]| values.iter().map(|x| ((x * 127.0) as i8).cast_unsigned()).collect();
        let mut tensors = vec![
            tensor(Format::Q3K, 768, &|values| encode_q3_k(values).unwrap()),
            tensor(Format::Q4K, 768, &|values| encode_q4_k(values).unwrap()),
            // In triples; those of a row that starts within a block, or has several scales, are not.
            tensor(Format::Tq1_0, 512, &equal(Packing::Tq1_0)),
            tensor(Format::Tq1_0, 768, &by_row(768)),
            tensor(Format::Tq1_0, 768, &by_row(256)),
            tensor(Format::Tq1_0, 384, &equal(Packing::Tq1_0)),
            tensor(Format::Tq2_0, 768, &scaled),
            // Whole blocks to a row, half ones, and none.
            tensor(Format::Tq2_0, 512, &equal(Packing::Tq2_0)),
            tensor(Format::Tq2_0, 384, &equal(Packing::Tq2_0)),
            tensor(Format::Tq2_0, 96, &equal(Packing::Tq2_0)),
            tensor(Format::Q4_0, 608, &|values| encode_q4_0(values).unwrap()),
        ];
        for cols in [77, 600] {
            tensors.push(tensor(Format::F32, cols, &|values| bytemuck::cast_slice(values).to_vec()));
            tensors.push(tensor(Format::F16, cols, &half));
            tensors.push(tensor(Format::Bf16, cols, &brain));
            tensors.push(tensor(Format::Int8, cols, &signed));
        }
        for cols in [32, 64, 608] {
            tensors.push(tensor(Format::Q8_0, cols, &|values| encode_q8_0(values).unwrap()));
        }
        tensors
    }

    #[test]
    fn triples_give_the_bits_of_two_bits_a_weight() {
        const COLS: usize = 512;
        with_each_set(|set| {
            for rows in [100, 1100] {
                let trits: Vec<i8> = random(rows * COLS, 7).iter().map(|x| (x * 1.5).round_ties_even() as i8).collect();
                let [three, two] =
                    [(Packing::Tq1_0, Format::Tq1_0), (Packing::Tq2_0, Format::Tq2_0)].map(|(packing, format)| {
                        let bytes = packing.pack(&trits, 0.3).unwrap().into();
                        let tensor = Tensor { format, shape: vec![rows, COLS], bytes, scales: Vec::new() };
                        Matrix::from_tensor(&tensor, rows, COLS, Activations::Bytes).unwrap()
                    });
                assert!(three.triple_kernels().is_some() && two.triple_kernels().is_none());
                let input = random(COLS, 9);
                with_threads(2, || assert_eq!(*three.apply(&input), *two.apply(&input), "{set} {rows}"));
            }
        });
    }

    #[test]
    fn an_input_gives_the_same_bits_alone_and_beside_others() {
        const MOST: usize = 40;
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        with_each_set(|set| {
            for (tensor, cols) in SOME_ROWS.into_iter().flat_map(tensors) {
                let rows = tensor.shape[0];
                let inputs = random(MOST * cols, 4);
                for activations in [Activations::Bytes, Activations::RoundedFloats, Activations::Floats] {
                    let matrix = Matrix::from_tensor(&tensor, rows, cols, activations).unwrap();
                    let alone: Vec<f32> =
                        inputs.chunks(cols).flat_map(|input| matrix.apply(input).into_vec()).collect();
                    for count in (2..=9).chain([17, MOST]) {
                        let found = matrix.apply(&inputs[..count * cols]);
                        let is_same = bits(&found) == bits(&alone[..count * rows]);
                        assert!(
                            is_same,
                            "{set} {} {rows} x {cols} {activations:?}: {count} inputs",
                            tensor.format.label()
                        );
                    }
                }
            }
        });
    }
}

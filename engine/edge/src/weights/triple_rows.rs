//! TQ1_0 rows as the triples that kernels read, in about as many bytes.

use foretrain_ternary::{BLOCK_LEN, Packing};
use rayon::prelude::*;

use super::tensor::{Format, Tensor};
use crate::kernels::{self, GROUP_ROWS, MAX_TRIPLES_LEN, PANEL_ROWS, TripleKernels};

// What many inputs are multiplied with at once is a group.
const _: () = assert!(PANEL_ROWS == GROUP_ROWS);

/// Ternary rows of whole blocks, each with one scale, in groups of [`GROUP_ROWS`]; the last is filled up with zeros.
#[derive(Debug)]
pub(super) struct TripleRows {
    groups: Vec<u8>,
    scales: Vec<f32>,
    cols: usize,
    group_bytes: usize,
    kernels: &'static TripleKernels,
}

impl TripleRows {
    /// Repacks `tensor` (rows of `cols` weights, its length checked), on all threads; `None` for another format, few
    /// rows, rows that start within a block or are too long, and a row with several scales. Afterwards the tensor's pages need not
    /// stay in memory.
    ///
    /// Errors: (expected, found) for a scale that is no usable number.
    pub(super) fn new(tensor: &Tensor, cols: usize) -> Result<Option<Self>, (String, String)> {
        if tensor.format != Format::Tq1_0 || !cols.is_multiple_of(BLOCK_LEN) || cols > MAX_TRIPLES_LEN {
            return Ok(None);
        }
        let row_bytes = cols / BLOCK_LEN * Packing::Tq1_0.block_bytes();
        if tensor.bytes.len() < GROUP_ROWS * row_bytes {
            // A group that is mostly zeros would take much more room than the file.
            return Ok(None);
        }
        let refuse = |error: foretrain_ternary::TernaryError| ("TQ1_0 blocks".to_owned(), error.to_string());
        let rows = &*tensor.bytes;
        let scale = |row: &[u8]| Packing::Tq1_0.uniform_scale(row, cols).map_err(refuse);
        let Some(scales) = rows.par_chunks_exact(row_bytes).map(scale).collect::<Result<Option<Vec<f32>>, _>>()? else {
            return Ok(None);
        };
        let kernels = kernels::active().triples;
        let group_bytes = (kernels.group_bytes)(cols);
        let mut groups = vec![0; scales.len().div_ceil(GROUP_ROWS) * group_bytes];
        let repacked: Result<(), _> = groups
            .par_chunks_mut(group_bytes)
            .zip(rows.par_chunks(GROUP_ROWS * row_bytes))
            .try_for_each(|(group, rows)| {
                let num_weights = rows.len() / row_bytes * cols;
                (kernels.pack_group)(&Packing::Tq1_0.unpack(rows, num_weights)?.trits, cols, group);
                Ok(())
            });
        repacked.map_err(refuse)?;
        tensor.bytes.release();
        Ok(Some(Self { groups, scales, cols, group_bytes, kernels }))
    }

    /// Weights of a row.
    pub(super) fn cols(&self) -> usize {
        self.cols
    }

    /// What reads them.
    pub(super) fn kernels(&self) -> &'static TripleKernels {
        self.kernels
    }

    /// Of each row.
    pub(super) fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Bytes of a row.
    pub(super) fn row_bytes(&self) -> usize {
        self.group_bytes / GROUP_ROWS
    }

    /// All groups.
    pub(super) fn groups(&self) -> &[u8] {
        &self.groups
    }

    /// The groups from the one on that `row` is in.
    pub(super) fn groups_from(&self, row: usize) -> &[u8] {
        self.groups.get(row / GROUP_ROWS * self.group_bytes..).unwrap_or_default()
    }

    /// Row `row`, dequantized.
    pub(super) fn row(&self, row: usize) -> Vec<f32> {
        let mut codes = vec![0; self.cols];
        (self.kernels.unpack_row)(self.groups_from(row), row, &mut codes);
        let scale = self.scales.get(row).copied().unwrap_or_default();
        codes.into_iter().map(|code| (f32::from(code) - 1.0) * scale).collect()
    }
}

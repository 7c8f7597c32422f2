//! Keys and values of the tokens so far, in the precision that they are kept in.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::attention::Heads;
use crate::weights::Matrix;

/// Largest signed byte that a number becomes.
const MAX_CODE: f32 = 127.0;

/// How keys and values are kept between tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheFormat {
    /// In half precision behind projections that round their inputs to 8 bits, else in 32 bits.
    #[default]
    Auto,
    /// In 32 bits.
    F32,
    /// In half precision.
    F16,
    /// As signed bytes with one scale per head and position: half of half precision.
    Int8,
}

/// How exactly a layer keeps keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Precision {
    /// In 32 bits.
    #[default]
    Full,
    /// In half precision: enough for projections that round their inputs to 8 bits.
    Half,
    /// As signed bytes, one scale per head and position.
    Byte,
}

impl Precision {
    /// For keys that come out of `projection`.
    pub(super) fn after(projection: &Matrix, format: CacheFormat) -> Self {
        match format {
            CacheFormat::Auto if projection.reads_rounded_inputs() => Self::Half,
            CacheFormat::Auto | CacheFormat::F32 => Self::Full,
            CacheFormat::F16 => Self::Half,
            CacheFormat::Int8 => Self::Byte,
        }
    }

    /// Bytes of one head's numbers of one position.
    fn row_bytes(self, head_dim: usize) -> usize {
        match self {
            Self::Full => head_dim * 4,
            Self::Half => head_dim * 2,
            Self::Byte => head_dim + 4,
        }
    }
}

/// Numbers of one head (positions, head_dim), as they are kept.
#[derive(Debug, Clone)]
pub(super) enum Numbers {
    Full(Vec<f32>),
    Half(Vec<f16>),
    /// With one scale per position.
    Byte(Vec<i8>, Vec<f32>),
}

impl Numbers {
    fn new(precision: Precision) -> Self {
        match precision {
            Precision::Full => Self::Full(Vec::new()),
            Precision::Half => Self::Half(Vec::new()),
            Precision::Byte => Self::Byte(Vec::new(), Vec::new()),
        }
    }

    /// Appends the numbers of one position.
    fn append(&mut self, numbers: &[f32]) {
        match self {
            Self::Full(kept) => kept.extend_from_slice(numbers),
            Self::Half(kept) => {
                let start = kept.len();
                kept.resize(start + numbers.len(), f16::ZERO);
                kept[start..].convert_from_f32_slice(numbers);
            }
            Self::Byte(kept, scales) => {
                // A number that is none makes the scale none, so that trouble is seen.
                let is_damaged = numbers.iter().any(|x| x.is_nan());
                let largest = numbers.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
                let largest = if is_damaged { f32::NAN } else { largest };
                let inverse = if largest > 0.0 { MAX_CODE / largest } else { 0.0 };
                kept.extend(numbers.iter().map(|x| (x * inverse).round_ties_even() as i8));
                scales.push(largest / MAX_CODE);
            }
        }
    }

    /// Keeps the first `kept` of `of` positions.
    fn truncate(&mut self, kept: usize, of: usize) {
        let shorter = |len: usize| len / of.max(1) * kept;
        match self {
            Self::Full(numbers) => numbers.truncate(shorter(numbers.len())),
            Self::Half(numbers) => numbers.truncate(shorter(numbers.len())),
            Self::Byte(numbers, scales) => {
                numbers.truncate(shorter(numbers.len()));
                scales.truncate(kept);
            }
        }
    }

    /// What is kept, as bytes.
    fn parts(&self) -> [&[u8]; 2] {
        match self {
            Self::Full(kept) => [bytemuck::cast_slice(kept), &[]],
            Self::Half(kept) => [bytemuck::cast_slice(kept), &[]],
            Self::Byte(kept, scales) => [bytemuck::cast_slice(kept), bytemuck::cast_slice(scales)],
        }
    }

    /// The reverse of [`Numbers::parts`]; `bytes` are those of whole positions.
    fn from_bytes(precision: Precision, bytes: &[u8], num_positions: usize, head_dim: usize) -> Self {
        let floats = |bytes: &[u8]| bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        match precision {
            Precision::Full => Self::Full(floats(bytes)),
            Precision::Half => Self::Half(bytes.as_chunks::<2>().0.iter().map(|&b| f16::from_le_bytes(b)).collect()),
            Precision::Byte => {
                let (codes, scales) = bytes.split_at(bytes.len().min(num_positions * head_dim));
                Self::Byte(codes.iter().map(|code| code.cast_signed()).collect(), floats(scales))
            }
        }
    }

    /// The rows of positions `start..start + count` and how many bytes a row has: where they lie, or written to
    /// `scratch` as floats.
    pub(super) fn rows<'a>(
        &'a self,
        start: usize,
        count: usize,
        head_dim: usize,
        scratch: &'a mut Vec<f32>,
    ) -> &'a [u8] {
        match self {
            Self::Full(kept) => bytemuck::cast_slice(kept.get(start * head_dim..).unwrap_or_default()),
            Self::Half(kept) => bytemuck::cast_slice(kept.get(start * head_dim..).unwrap_or_default()),
            Self::Byte(kept, scales) => {
                scratch.clear();
                let rows = kept.chunks_exact(head_dim).zip(scales).skip(start).take(count);
                for (row, scale) in rows {
                    scratch.extend(row.iter().map(|&code| f32::from(code) * scale));
                }
                bytemuck::cast_slice(scratch)
            }
        }
    }
}

/// Keys and values of all positions so far in one layer, per key-value head (positions, head_dim).
#[derive(Debug, Clone, Default)]
pub(super) struct LayerCache {
    pub(super) precision: Precision,
    pub(super) keys: Vec<Numbers>,
    pub(super) values: Vec<Numbers>,
    pub(super) num_positions: usize,
}

impl LayerCache {
    pub(super) fn new(precision: Precision) -> Self {
        Self { precision, ..Self::default() }
    }

    /// Bytes that the cache holds.
    pub(super) fn num_bytes(&self) -> usize {
        self.parts().map(<[u8]>::len).sum()
    }

    /// Everything kept, as bytes: per head its keys, then per head its values.
    pub(super) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.keys.iter().chain(&self.values).flat_map(Numbers::parts)
    }

    /// Bytes of `num_positions` positions.
    pub(super) fn bytes_of(&self, heads: Heads, num_positions: usize) -> Option<usize> {
        self.precision.row_bytes(heads.head_dim).checked_mul(num_positions)?.checked_mul(2 * heads.kv_heads)
    }

    /// This layer's cache of `num_positions` positions from the bytes of [`LayerCache::parts`], as many as
    /// [`LayerCache::bytes_of`] says.
    pub(super) fn restored(&self, heads: Heads, num_positions: usize, bytes: &[u8]) -> Self {
        let head_bytes = (self.precision.row_bytes(heads.head_dim) * num_positions).max(1);
        let mut numbers = bytes
            .chunks_exact(head_bytes)
            .map(|bytes| Numbers::from_bytes(self.precision, bytes, num_positions, heads.head_dim));
        let keys = numbers.by_ref().take(heads.kv_heads).collect();
        Self { precision: self.precision, keys, values: numbers.collect(), num_positions }
    }

    /// Forgets all but the first `num_positions`.
    pub(super) fn truncate(&mut self, num_positions: usize) {
        if num_positions < self.num_positions {
            for numbers in self.keys.iter_mut().chain(&mut self.values) {
                numbers.truncate(num_positions, self.num_positions);
            }
            self.num_positions = num_positions;
        }
    }

    /// Appends `keys` and `values` (n, kv_heads · head_dim).
    pub(super) fn push(&mut self, heads: Heads, keys: &[f32], values: &[f32]) {
        let width = heads.kv_heads * heads.head_dim;
        for (cache, rows) in [(&mut self.keys, keys), (&mut self.values, values)] {
            cache.resize(heads.kv_heads, Numbers::new(self.precision));
            for row in rows.chunks_exact(width) {
                for (head, part) in cache.iter_mut().zip(row.chunks_exact(heads.head_dim)) {
                    head.append(part);
                }
            }
        }
        self.num_positions += keys.len() / width;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADS: Heads = Heads { heads: 4, kv_heads: 2, head_dim: 4 };

    fn filled(precision: Precision, num_positions: usize) -> LayerCache {
        let mut cache = LayerCache::new(precision);
        for position in 0..num_positions {
            let row: Vec<f32> = (0..8).map(|i| ((position * 8 + i) as f32 * 0.7).sin() * 3.0).collect();
            let values: Vec<f32> = row.iter().map(|x| 1.0 - x).collect();
            cache.push(HEADS, &row, &values);
        }
        cache
    }

    #[test]
    fn a_shorter_cache_equals_one_that_never_was_longer_and_bytes_come_back() {
        for precision in [Precision::Full, Precision::Half, Precision::Byte] {
            let mut cut = filled(precision, 7);
            cut.truncate(9);
            assert_eq!(cut.num_positions, 7);
            cut.truncate(3);
            let short = filled(precision, 3);
            let bytes = |cache: &LayerCache| cache.parts().collect::<Vec<_>>().concat();
            assert_eq!((cut.num_positions, bytes(&cut)), (3, bytes(&short)), "{precision:?}");
            assert_eq!(short.bytes_of(HEADS, 3), Some(short.num_bytes()));
            let restored = LayerCache::new(precision).restored(HEADS, 3, &bytes(&short));
            assert_eq!((restored.num_positions, bytes(&restored)), (3, bytes(&short)), "{precision:?}");
            cut.truncate(0);
            assert_eq!(cut.num_bytes(), 0);
        }
    }

    #[test]
    fn bytes_come_within_half_a_step_and_zeros_and_strangers_keep_their_meaning() {
        let mut numbers = Numbers::new(Precision::Byte);
        let row = [0.02, -2.54, 1.0, 0.5];
        numbers.append(&row);
        numbers.append(&[0.0; 4]);
        numbers.append(&[1.0, f32::NAN, 0.0, 2.0]);
        let mut scratch = Vec::new();
        let decoded: Vec<f32> = bytemuck::cast_slice(numbers.rows(0, 3, 4, &mut scratch)).to_vec();
        for (found, expected) in decoded.iter().zip(row) {
            assert!((found - expected).abs() <= 0.5 * 2.54 / 127.0 + 1e-6, "{decoded:?}");
        }
        assert_eq!(decoded[1], -2.54);
        assert_eq!(decoded[4..8], [0.0; 4]);
        assert!(decoded[8..].iter().all(|x| x.is_nan()));
    }
}

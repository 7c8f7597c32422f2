//! Ternary matrices as transformers' BitNet integration packs them: four output rows to a byte, 2 bits each.
//!
//! Of a matrix (rows, cols), byte (r, c) of the packed one (rows / 4, cols) holds rows r, r + rows/4, r + 2·rows/4 and
//! r + 3·rows/4 of column c at bit offsets 0, 2, 4, 6. A code is `trit + 1`.
//! Source: `pack_weights` in transformers' `integrations/bitnet.py`.

use crate::TernaryError;
use crate::tq2_0::codes_are_trits;

/// Rows that share a byte; a matrix's rows must be a multiple of it.
pub const ROWS_PER_BYTE: usize = 4;

/// Packs the trits of a matrix whose rows are a multiple of 4, row-major.
///
/// Errors: [`TernaryError::Length`] for a number of trits that is no multiple of 4; [`TernaryError::NotATrit`].
pub fn pack_rows(trits: &[i8]) -> Result<Vec<u8>, TernaryError> {
    let found = trits.len();
    if !found.is_multiple_of(ROWS_PER_BYTE) {
        let expected = found.next_multiple_of(ROWS_PER_BYTE);
        return Err(TernaryError::Length { num_weights: found, expected, found });
    }
    if let Some((index, &value)) = trits.iter().enumerate().find(|(_, value)| !(-1..=1).contains(*value)) {
        return Err(TernaryError::NotATrit { index, value });
    }
    let mut packed = vec![0_u8; found / ROWS_PER_BYTE];
    for (quarter, rows) in trits.chunks_exact(packed.len().max(1)).enumerate() {
        for (byte, trit) in packed.iter_mut().zip(rows) {
            *byte |= (trit + 1).cast_unsigned() << (2 * quarter);
        }
    }
    Ok(packed)
}

/// What [`pack_rows`] packed.
///
/// Errors: [`TernaryError::Code`] for a code of 3 (`block`: the byte).
pub fn unpack_rows(packed: &[u8]) -> Result<Vec<i8>, TernaryError> {
    if let Some(block) = packed.iter().position(|byte| !codes_are_trits(std::slice::from_ref(byte))) {
        return Err(TernaryError::Code { block });
    }
    let quarter = |number: usize| packed.iter().map(move |byte| ((byte >> (2 * number)) & 3).cast_signed() - 1);
    Ok((0..ROWS_PER_BYTE).flat_map(quarter).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn layout_is_transformers() {
        // The example in its documentation, of packed shape (2, 4).
        let packed = [0b1010_0001, 0b0001_1000, 0b1001_0000, 0b0000_1010];
        let trits = unpack_rows(&packed).unwrap();
        // Rows 0 and 1 in the low bits, rows 2 and 3 in the next, and so on; two columns.
        assert_eq!(trits, [0, -1, -1, 1, -1, 1, -1, 1, 1, 0, 0, -1, 1, -1, 1, -1]);
        assert_eq!(pack_rows(&trits).unwrap(), packed);
    }

    #[test]
    fn refuses_what_is_no_trit() {
        assert!(matches!(pack_rows(&[0; 6]), Err(TernaryError::Length { .. })));
        assert_eq!(pack_rows(&[0, 0, 0, 2]), Err(TernaryError::NotATrit { index: 3, value: 2 }));
        assert_eq!(unpack_rows(&[0, 0b0000_1100]), Err(TernaryError::Code { block: 1 }));
        assert_eq!(pack_rows(&[]).unwrap(), []);
    }

    proptest! {
        #[test]
        fn unpack_undoes_pack(trits in prop::collection::vec(-1_i8..=1, 0..400)) {
            let trits = &trits[..trits.len() / 4 * 4];
            prop_assert_eq!(unpack_rows(&pack_rows(trits).unwrap()).unwrap(), trits);
        }
    }
}

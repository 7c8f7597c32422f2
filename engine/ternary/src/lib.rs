//! Balanced ternary weights: values in {-1, 0, 1} times a scale, and their packed form.
//!
//! Rooms: `absmean` turns floats into trits, `tq2_0` packs trits 2 bits each and `tq1_0` five to a byte into the
//! block layouts that llama.cpp calls by these names, `tensor` packs whole flattened tensors, `fused` goes from floats to
//! packed trits in one go, `bitnet` packs matrices as transformers does.
//!
//! Invariants: packing and unpacking are exact inverses; no function panics on any input; nothing here knows a file.
#![forbid(unsafe_code)]

mod absmean;
mod bitnet;
mod error;
mod fused;
mod tensor;
mod tq1_0;
mod tq2_0;

pub use absmean::{
    Ternary, TernaryGrid, TernaryRule, absmean_scale, magnitude_sum, magnitudes_above, own_grid, ternarize,
    ternarize_by,
};
pub use bitnet::{ROWS_PER_BYTE, pack_rows, unpack_rows};
pub use error::TernaryError;
pub use fused::pack_weights;
pub use tensor::{Packing, Unpacked};
pub use tq2_0::{
    BLOCK_BYTES, BLOCK_LEN, CODE_BYTES, GROUP_BYTES, GROUP_LEN, block_scale, decode_block, encode_block, group_codes,
    unpack_group,
};

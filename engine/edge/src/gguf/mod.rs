//! GGUF version 3: the weights file of llama.cpp. A reader that trusts nothing, and a writer.
//!
//! Layout (little-endian): magic `GGUF`, version u32, number of tensors u64, number of metadata pairs u64; the pairs;
//! per tensor its name, dimensions (innermost first), type and offset; then, aligned, the tensor data.
//! Source: docs/gguf.md of ggml-org/ggml.
//!
//! Shapes in this module are row-major, outermost first, as in the rest of the code; the file stores the reverse.
#![forbid(unsafe_code)]

mod blocks;
mod cursor;
mod names;
mod q3_k;
mod q4_0;
mod q4_k;
mod q8_0;
mod reader;
mod tensor_type;
mod value;
mod vocabulary;
mod writer;

pub use names::{hugging_face_name, llama_cpp_name};
pub(crate) use q3_k::q3_k_floats;
pub use q3_k::{Q3_K_BLOCK_BYTES, Q3_K_BLOCK_LEN, decode_q3_k, encode_q3_k};
pub use q4_0::{Q4_0_BLOCK_BYTES, Q4_0_BLOCK_LEN, decode_q4_0, encode_q4_0, pack_q4_0};
pub(crate) use q4_0::{Q4_0_ZERO_CODE, q8_0_from_q4_0};
pub(crate) use q4_k::q4_k_floats;
pub use q4_k::{Q4_K_BLOCK_BYTES, Q4_K_BLOCK_LEN, decode_q4_k, encode_q4_k};
pub use q8_0::{Q8_0_BLOCK_BYTES, Q8_0_BLOCK_LEN, decode_q8_0, encode_q8_0};
pub use reader::{GgufFile, GgufTensor};
pub use tensor_type::TensorType;
pub use value::{Array, Value};
pub use vocabulary::{byte_level_bpe, tokenizer_json};
pub use writer::GgufWriter;

/// The first four bytes.
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";
/// The version read and written.
pub(crate) const VERSION: u32 = 3;
/// Where a tensor's data may start, unless `general.alignment` says otherwise.
pub(crate) const DEFAULT_ALIGNMENT: u64 = 32;
/// Dimensions a tensor may have.
pub(crate) const MAX_DIMENSIONS: usize = 4;
/// Bytes a tensor's name may have; llama.cpp keeps a terminating zero in its 64.
pub(crate) const MAX_TENSOR_NAME: usize = 63;

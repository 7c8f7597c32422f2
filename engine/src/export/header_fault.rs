//! What is wrong with the header of a safetensors file, by tensor: the format's own reader does not say where.

use safetensors::Dtype;
use serde::Deserialize;
use serde_json::{Map, Value};

/// A tensor as a header has it, before anything about it is believed.
#[derive(Debug, Deserialize)]
struct Entry {
    dtype: Value,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// What the first tensor that is at fault should be and what it is; `None` for what is no JSON object, and for a header
/// without such a tensor.
pub(super) fn header_fault(text: &[u8]) -> Option<(String, String)> {
    let header: Map<String, Value> = serde_json::from_slice(text).ok()?;
    let mut tensors = Vec::new();
    for (name, value) in header.iter().filter(|(name, _)| *name != "__metadata__") {
        match Entry::deserialize(value) {
            Ok(entry) => tensors.push((name, entry)),
            Err(cause) => {
                return Some((format!("dtype, shape and data_offsets of tensor {name:?}"), cause.to_string()));
            }
        }
    }
    tensors.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut last_end = 0;
    for (name, Entry { dtype, shape, data_offsets: (start, end) }) in tensors {
        let Ok(kind) = Dtype::deserialize(&dtype) else {
            return Some((format!("a type of safetensors for tensor {name:?}"), dtype.to_string()));
        };
        if start != last_end || end < start {
            let expected = format!("tensor {name:?} from byte {last_end} on, where the one before it ends");
            return Some((expected, format!("the offsets {start} to {end}")));
        }
        let num_bits = shape.iter().try_fold(kind.bitsize() as u64, |product, size| product.checked_mul(*size));
        let Some(num_bits) = num_bits else {
            let expected = format!("a shape of tensor {name:?} that a file can hold");
            return Some((expected, format!("{shape:?}, whose product overflows")));
        };
        if num_bits != (end - start).saturating_mul(8) {
            let expected = format!("{} bytes of tensor {name:?}, {kind:?} {shape:?}", num_bits.div_ceil(8));
            return Some((expected, format!("{} by its offsets", end - start)));
        }
        last_end = end;
    }
    None
}

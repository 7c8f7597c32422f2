//! The reader: parses the header once, then hands out slices of the mapped file.

use std::collections::BTreeMap;
use std::path::Path;

use super::cursor::{Cursor, Mismatch};
use super::{DEFAULT_ALIGNMENT, MAGIC, MAX_DIMENSIONS, TensorType, VERSION, Value};
use crate::EdgeError;
use crate::bytes::Bytes;

/// Alignments above this serve no one.
const MAX_ALIGNMENT: u64 = 1 << 20;

/// An open GGUF file.
#[derive(Debug)]
pub struct GgufFile {
    bytes: Bytes,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, GgufTensor>,
}

/// Where a tensor lies and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufTensor {
    /// How its numbers are stored.
    pub kind: TensorType,
    /// Row-major, outermost first (the reverse of the order in the file).
    pub shape: Vec<usize>,
    /// First byte, from the start of the file.
    start: usize,
    /// Bytes.
    len: usize,
}

impl GgufFile {
    /// Maps and parses the file at `path`.
    ///
    /// Errors: [`EdgeError::Read`]; [`EdgeError::Unsuited`] for another version of GGUF and types of tensors that we do not
    /// have; [`EdgeError::Format`] for anything else that is no GGUF file.
    pub fn open(path: &Path) -> Result<Self, EdgeError> {
        Self::parse(Bytes::map(path)?, path)
    }

    pub(crate) fn parse(bytes: Bytes, path: &Path) -> Result<Self, EdgeError> {
        let (metadata, tensors) = parse(&bytes).map_err(|mismatch| mismatch.into_error(path))?;
        Ok(Self { bytes, metadata, tensors })
    }

    /// Metadata by key.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, Value> {
        &self.metadata
    }

    /// Tensors by name.
    #[must_use]
    pub fn tensors(&self) -> &BTreeMap<String, GgufTensor> {
        &self.tensors
    }

    /// The bytes of tensor `name`, as stored.
    #[must_use]
    pub fn data(&self, name: &str) -> Option<&[u8]> {
        let tensor = self.tensors.get(name)?;
        self.bytes.get(tensor.start..tensor.start.checked_add(tensor.len)?)
    }

    pub(crate) fn shared_data(&self, name: &str) -> Option<Bytes> {
        let tensor = self.tensors.get(name)?;
        self.bytes.slice(tensor.start..tensor.start.checked_add(tensor.len)?)
    }
}

type Header = (BTreeMap<String, Value>, BTreeMap<String, GgufTensor>);

fn parse(bytes: &[u8]) -> Result<Header, Mismatch> {
    let mut cursor = Cursor::new(bytes);
    let magic: [u8; 4] = cursor.array("magic")?;
    if magic != MAGIC {
        return Err(Mismatch::new(
            "a file that starts with \"GGUF\"",
            format!("{:?}", magic.escape_ascii().to_string()),
        ));
    }
    let version = cursor.u32("version")?;
    if version != VERSION {
        return Err(Mismatch::unsuited(format!("GGUF version {VERSION}, little-endian"), format!("version {version}")));
    }
    // A tensor takes at least name length, dimensions, type, offset: 24 bytes; a pair at least 13.
    let num_tensors = cursor.count(24, "tensors")?;
    let num_pairs = cursor.count(13, "metadata pairs")?;
    let mut metadata = BTreeMap::new();
    for _ in 0..num_pairs {
        let key = cursor.name("metadata key")?;
        let value = Value::read(&mut cursor)?;
        if metadata.contains_key(&key) {
            return Err(Mismatch::new("every metadata key once", format!("{key:?} twice")));
        }
        metadata.insert(key, value);
    }
    let alignment = alignment(&metadata)?;
    let mut tensors = BTreeMap::new();
    for _ in 0..num_tensors {
        let (name, tensor) = read_tensor(&mut cursor, alignment)?;
        if tensors.contains_key(&name) {
            return Err(Mismatch::new("every tensor once", format!("{name:?} twice")));
        }
        tensors.insert(name, tensor);
    }
    // Offsets count from the first aligned byte after the header.
    let data_start = cursor.position().next_multiple_of(alignment);
    for (name, tensor) in &mut tensors {
        let start = tensor.start.checked_add(data_start);
        let end = start.and_then(|start| start.checked_add(tensor.len));
        match (start, end) {
            (Some(start), Some(end)) if end <= bytes.len() => tensor.start = start,
            _ => {
                return Err(Mismatch::new(
                    format!("tensor {name:?} of {} bytes within the file", tensor.len),
                    format!("offset {} in a file of {} bytes", tensor.start, bytes.len()),
                ));
            }
        }
    }
    check_disjoint(&tensors)?;
    Ok((metadata, tensors))
}

/// Refuses tensors that share bytes: some types take several times their bytes once they are decoded, and a small file
/// could ask for that again and again. Writers put one tensor behind the other.
fn check_disjoint(tensors: &BTreeMap<String, GgufTensor>) -> Result<(), Mismatch> {
    let taken = tensors.iter().filter(|(_, tensor)| tensor.len > 0);
    let mut ranges: Vec<(usize, usize, &str)> =
        taken.map(|(name, tensor)| (tensor.start, tensor.start.saturating_add(tensor.len), name.as_str())).collect();
    ranges.sort_unstable();
    let sharing = ranges.iter().zip(ranges.iter().skip(1)).find(|((_, end, _), (next, ..))| end > next);
    match sharing {
        Some(((.., first), (.., second))) => {
            Err(Mismatch::new("tensors that share no bytes", format!("{first:?} and {second:?} overlap")))
        }
        None => Ok(()),
    }
}

fn alignment(metadata: &BTreeMap<String, Value>) -> Result<usize, Mismatch> {
    let alignment = match metadata.get("general.alignment") {
        None => Some(DEFAULT_ALIGNMENT),
        Some(value) => value.as_u64().filter(|n| n.is_power_of_two() && (8..=MAX_ALIGNMENT).contains(n)),
    };
    let alignment = alignment.and_then(|n| usize::try_from(n).ok());
    alignment.ok_or_else(|| {
        let found = metadata.get("general.alignment").map_or_else(|| "none".to_owned(), ToString::to_string);
        Mismatch::new(format!("general.alignment a power of two from 8 to {MAX_ALIGNMENT}"), found)
    })
}

/// Reads one tensor's description; `start` still counts from the start of the data.
fn read_tensor(cursor: &mut Cursor<'_>, alignment: usize) -> Result<(String, GgufTensor), Mismatch> {
    let name = cursor.name("tensor name")?;
    let num_dimensions = cursor.u32("number of dimensions")? as usize;
    if num_dimensions > MAX_DIMENSIONS {
        return Err(Mismatch::new(
            format!("tensor {name:?} with at most {MAX_DIMENSIONS} dimensions"),
            num_dimensions.to_string(),
        ));
    }
    let mut shape = Vec::with_capacity(num_dimensions);
    for _ in 0..num_dimensions {
        shape.push(usize::try_from(cursor.u64("dimension")?).unwrap_or(usize::MAX));
    }
    shape.reverse();
    let code = cursor.u32("tensor type")?;
    let Some(kind) = TensorType::from_code(code) else {
        let supported = TensorType::ALL.map(|kind| format!("{} ({})", kind.label(), kind.code())).join(", ");
        return Err(Mismatch::unsuited(format!("tensor {name:?} of type {supported}"), format!("type {code}")));
    };
    let offset = cursor.u64("tensor offset")?;
    let Some(len) = kind.byte_len(&shape) else {
        let expected = format!("tensor {name:?} with rows of whole blocks of {}", kind.block_len());
        return Err(Mismatch::new(expected, format!("shape {shape:?}")));
    };
    match usize::try_from(offset) {
        Ok(start) if start.is_multiple_of(alignment) => Ok((name, GgufTensor { kind, shape, start, len })),
        _ => Err(Mismatch::new(format!("tensor {name:?} at a multiple of {alignment}"), format!("offset {offset}"))),
    }
}

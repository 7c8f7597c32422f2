//! Safetensors files: read without trusting them, written in one order.
//!
//! Why not the crate's own `serialize_to_file`: it writes metadata in the order of a hash map (two
//! exports of one model would differ), does not sync, and cannot be cancelled between tensors.
//! Layout: 8 bytes of header length (little-endian), JSON header, tensors back to back.
//! Source: <https://github.com/huggingface/safetensors#format>.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::ExportError;
use super::header_fault::header_fault;
use crate::device::{Watch, atomic_file};
use crate::models::{Params, TensorSpec, nearest_found};

/// A header larger than this is an attack, not a model; the reference implementation has the same limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// An open file whose header has been checked; tensors are read one by one.
#[derive(Debug)]
pub struct WeightsReader {
    path: PathBuf,
    file: File,
    header: Metadata,
    data_start: u64,
}

impl WeightsReader {
    /// Opens `path` and checks the header: its length against the file's, every tensor's bytes against
    /// its shape and type, no gap and no overlap between tensors, no byte left over.
    /// Errors: [`ExportError::Read`], [`ExportError::WeightFile`].
    pub fn open(path: &Path) -> Result<Self, ExportError> {
        let read_error = |source| ExportError::read(path, source);
        let wrong =
            |expected: String, found: String| ExportError::WeightFile { expected, found, path: path.to_owned() };
        let mut file = File::open(path).map_err(read_error)?;
        let file_bytes = file.metadata().map_err(read_error)?.len();
        let mut prefix = [0_u8; 8];
        if file_bytes < 8 {
            return Err(wrong("at least 8 bytes of header length".to_owned(), format!("{file_bytes} bytes")));
        }
        file.read_exact(&mut prefix).map_err(read_error)?;
        let header_bytes = u64::from_le_bytes(prefix);
        let most = MAX_HEADER_BYTES.min(file_bytes - 8);
        if header_bytes > most {
            return Err(wrong(
                format!("a header of at most {most} bytes in a file of {file_bytes}"),
                format!("a header length of {header_bytes}"),
            ));
        }
        // Bounded by the file's own size above, so a lying length cannot allocate more than the file holds.
        let mut text = vec![0_u8; usize::try_from(header_bytes).unwrap_or(0)];
        file.read_exact(&mut text).map_err(read_error)?;
        let header: Metadata = serde_json::from_slice(&text).map_err(|cause| match header_fault(&text) {
            Some((expected, found)) => wrong(expected, found),
            None => wrong("a safetensors header (JSON)".to_owned(), cause.to_string()),
        })?;
        let data_start = 8 + header_bytes;
        let expected_bytes = data_start.saturating_add(header.data_len() as u64);
        if expected_bytes != file_bytes {
            let is_cut = |name: &&String| {
                let end = header.info(name).map_or(0, |info| info.data_offsets.1);
                data_start.saturating_add(end as u64) > file_bytes
            };
            let names = header.offset_keys();
            let cut = names.iter().find(is_cut).map(|name| format!(", in which tensor {name:?} is cut off"));
            return Err(wrong(
                format!("{expected_bytes} bytes by the header's offsets"),
                format!("a file of {file_bytes} bytes{}", cut.unwrap_or_default()),
            ));
        }
        Ok(Self { path: path.to_owned(), file, header, data_start })
    }

    /// Names in file order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// Type, shape and place of a tensor.
    #[must_use]
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.header.info(name)
    }

    /// The `__metadata__` entry called `key`.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.header.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// The bytes of one tensor. Errors: [`ExportError::WeightFile`] when it is not there, [`ExportError::Read`].
    pub fn read_bytes(&mut self, name: &str) -> Result<Vec<u8>, ExportError> {
        let Some(info) = self.header.info(name) else {
            return Err(self.wrong(format!("a tensor {name:?}"), "none of that name".to_owned()));
        };
        let (start, end) = info.data_offsets;
        // `end - start` was checked against shape and type, and the sum of all against the file.
        let mut bytes = vec![0_u8; end - start];
        let place = SeekFrom::Start(self.data_start + start as u64);
        let done = self.file.seek(place).and_then(|_| self.file.read_exact(&mut bytes));
        done.map_err(|source| ExportError::read(&self.path, source))?;
        Ok(bytes)
    }

    /// One tensor on the CPU in its own type.
    /// Errors: [`ExportError::WeightFile`] when it is not there or of a type we do not compute with.
    pub fn read_tensor(&mut self, name: &str) -> Result<Tensor, ExportError> {
        let bytes = self.read_bytes(name)?;
        let (file_type, shape) = match self.header.info(name) {
            Some(info) => (info.dtype, info.shape.clone()),
            None => return Err(self.wrong(format!("a tensor {name:?}"), "none of that name".to_owned())),
        };
        let Some(dtype) = tensor_type(file_type) else {
            return Err(
                self.wrong(format!("tensor {name:?} in F64, F32, F16, BF16, I64, U32 or U8"), format!("{file_type:?}"))
            );
        };
        Ok(Tensor::from_raw_buffer(&bytes, dtype, &shape, &Device::Cpu)?)
    }

    /// An error about the tensor of `spec`, one of a network's `specs`, which is not in this file.
    pub(super) fn missing(&self, expected: String, spec: &TensorSpec, specs: &[TensorSpec]) -> ExportError {
        let names = self.names();
        let near = nearest_found(&spec.name, specs, names.iter().map(String::as_str));
        let near = near.map_or_else(String::new, |near| format!("; the nearest is {near:?}"));
        self.wrong(expected, format!("none of that name{near}"))
    }

    /// An error about this file.
    pub(super) fn wrong(&self, expected: String, found: String) -> ExportError {
        ExportError::WeightFile { expected, found, path: self.path.clone() }
    }
}

/// Reads every tensor of a safetensors file, on the CPU, in its own type.
/// Errors: as [`WeightsReader`]; cancelled between tensors.
pub fn read_params(path: &Path, watch: Watch<'_>) -> Result<Params, ExportError> {
    let mut reader = WeightsReader::open(path)?;
    let names = reader.names();
    let total = names.len() as u64;
    let mut params = Params::default();
    for (done, name) in names.into_iter().enumerate() {
        watch.step("reading weights", done as u64, Some(total))?;
        let tensor = reader.read_tensor(&name)?;
        params.insert(name, tensor);
    }
    Ok(params)
}

/// Writes tensors as they are, in name order, whole or not at all; the same tensors give the same bytes.
/// Errors: [`ExportError::Write`]; [`ExportError::Tensor`] for types that safetensors lacks; cancelled between tensors.
pub fn write_params(
    path: &Path,
    params: &Params,
    metadata: &BTreeMap<String, String>,
    watch: Watch<'_>,
) -> Result<(), ExportError> {
    let mut entries = Vec::new();
    for (name, tensor) in params.iter() {
        let dtype = file_type(tensor.dtype())
            .ok_or_else(|| candle_core::Error::UnsupportedDTypeForOp(tensor.dtype(), "write_params").bt())?;
        entries.push(WeightEntry {
            name: name.to_owned(),
            dtype,
            shape: tensor.dims().to_vec(),
            num_bytes: tensor.elem_count() * tensor.dtype().size_in_bytes(),
        });
    }
    write_safetensors(path, &entries, metadata, watch, |name| {
        params.find(name).map_or_else(|| Ok(Vec::new()), |tensor| Ok(tensor_bytes(tensor)?))
    })
}

/// One tensor of a file to be written.
#[derive(Debug, Clone)]
pub(crate) struct WeightEntry {
    /// Name in the file.
    pub name: String,
    /// Type in the file.
    pub dtype: Dtype,
    /// Shape in the file.
    pub shape: Vec<usize>,
    /// Size, bytes.
    pub num_bytes: usize,
}

/// The header, padded to a multiple of 8, with its length in front: the file up to its first tensor.
pub(super) fn header_bytes(entries: &[WeightEntry], metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".to_owned(), serde_json::json!(metadata));
    }
    let mut start = 0;
    for entry in entries {
        let end = start + entry.num_bytes;
        // `Dtype` serializes to its name in the format.
        let info = serde_json::json!({ "dtype": entry.dtype, "shape": entry.shape, "data_offsets": [start, end] });
        header.insert(entry.name.clone(), info);
        start = end;
    }
    let mut text = serde_json::Value::Object(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text);
    bytes
}

/// Writes a safetensors file, asking `bytes_of` for one tensor at a time.
/// Tensors are laid out by falling alignment, then in the order given, as the reference implementation asks.
pub(crate) fn write_safetensors(
    path: &Path,
    entries: &[WeightEntry],
    metadata: &BTreeMap<String, String>,
    watch: Watch<'_>,
    mut bytes_of: impl FnMut(&str) -> Result<Vec<u8>, ExportError>,
) -> Result<(), ExportError> {
    let mut entries = entries.to_vec();
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.dtype));
    let total: u64 = entries.iter().map(|entry| entry.num_bytes as u64).sum();
    let mut failure = None;
    let written = atomic_file::write(path, |file| {
        file.write_all(&header_bytes(&entries, metadata))?;
        let mut done = 0;
        for entry in &entries {
            let bytes = watch
                .step("writing weights", done, Some(total))
                .map_err(ExportError::from)
                .and_then(|()| bytes_of(&entry.name));
            match bytes {
                Ok(bytes) if bytes.len() == entry.num_bytes => file.write_all(&bytes)?,
                Ok(bytes) => {
                    failure = Some(ExportError::ReadBack {
                        what: format!("tensor {:?}", entry.name),
                        expected: format!("{} bytes", entry.num_bytes),
                        found: bytes.len().to_string(),
                    });
                    return Err(std::io::Error::other("stopped"));
                }
                Err(error) => {
                    failure = Some(error);
                    return Err(std::io::Error::other("stopped"));
                }
            }
            done += entry.num_bytes as u64;
        }
        Ok(())
    });
    match (failure, written) {
        (Some(failure), _) => Err(failure),
        (None, written) => Ok(written?),
    }
}

/// The bytes of a tensor as safetensors stores them (little-endian, row-major).
pub(super) fn tensor_bytes(tensor: &Tensor) -> candle_core::Result<Vec<u8>> {
    fn bytes_of<T: bytemuck::NoUninit + candle_core::WithDType>(flat: &Tensor) -> candle_core::Result<Vec<u8>> {
        Ok(bytemuck::cast_slice(&flat.to_vec1::<T>()?).to_vec())
    }
    let flat = tensor.to_device(&Device::Cpu)?.flatten_all()?;
    match tensor.dtype() {
        DType::F64 => bytes_of::<f64>(&flat),
        DType::F32 => bytes_of::<f32>(&flat),
        DType::F16 => bytes_of::<half::f16>(&flat),
        DType::BF16 => bytes_of::<half::bf16>(&flat),
        DType::I64 => bytes_of::<i64>(&flat),
        DType::U32 => bytes_of::<u32>(&flat),
        DType::U8 => bytes_of::<u8>(&flat),
        other => Err(candle_core::Error::UnsupportedDTypeForOp(other, "tensor_bytes").bt()),
    }
}

/// What we compute with, for a type in a file.
fn tensor_type(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F64 => Some(DType::F64),
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        Dtype::I64 => Some(DType::I64),
        Dtype::U32 => Some(DType::U32),
        Dtype::U8 => Some(DType::U8),
        // The crate's enum is not ours and may grow.
        _ => None,
    }
}

/// The type in a file for what we compute with.
fn file_type(dtype: DType) -> Option<Dtype> {
    match dtype {
        DType::F64 => Some(Dtype::F64),
        DType::F32 => Some(Dtype::F32),
        DType::F16 => Some(Dtype::F16),
        DType::BF16 => Some(Dtype::BF16),
        DType::I64 => Some(Dtype::I64),
        DType::U32 => Some(Dtype::U32),
        DType::U8 => Some(Dtype::U8),
        // The crate's enum is not ours and may grow.
        _ => None,
    }
}

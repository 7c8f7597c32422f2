//! safetensors: the header checked, quantized tensors recognized by the metadata that export writes.

use std::collections::BTreeMap;
use std::path::Path;

use foretrain_ternary::{Packing, unpack_rows};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::tensor::{Format, Tensor, floats};
use crate::EdgeError;
use crate::bytes::Bytes;

/// Bytes of the length before the header.
const LEN_BYTES: usize = 8;
/// The format's own limit.
const MAX_HEADER_BYTES: usize = 100_000_000;

/// All tensors of a safetensors file by name; an int8 tensor swallows its `.scale`.
///
/// Errors: [`EdgeError::Format`], [`EdgeError::Tensor`].
pub(super) fn read(bytes: &Bytes, path: &Path) -> Result<BTreeMap<String, Tensor>, EdgeError> {
    let (metadata, data_start) = read_header(bytes, path)?;
    let file = File { bytes, path, metadata, data_start };
    let mut tensors = BTreeMap::new();
    for (name, info) in file.metadata.tensors() {
        if let Some(tensor) = file.tensor(&name, info)? {
            tensors.insert(name, tensor);
        }
    }
    Ok(tensors)
}

/// The header, and where the data starts. Checks that the data ends where the file ends: the crate's own reader adds
/// the claimed sizes without care for overflow.
fn read_header(bytes: &Bytes, path: &Path) -> Result<(Metadata, usize), EdgeError> {
    let Some((len, rest)) = bytes.split_first_chunk::<LEN_BYTES>() else {
        return Err(EdgeError::format(path, "a safetensors header", format!("a file of {} bytes", bytes.len())));
    };
    let header_len = usize::try_from(u64::from_le_bytes(*len)).unwrap_or(usize::MAX);
    let header = if header_len <= MAX_HEADER_BYTES { rest.get(..header_len) } else { None };
    let Some(header) = header else {
        let most = rest.len().min(MAX_HEADER_BYTES);
        return Err(EdgeError::format(path, format!("a header of at most {most} bytes"), format!("{header_len}")));
    };
    let metadata: Metadata = serde_json::from_slice(header)
        .map_err(|error| EdgeError::format(path, "a safetensors header in JSON", error.to_string()))?;
    let data_len = rest.len() - header.len();
    if metadata.data_len() != data_len {
        let expected = format!("{} bytes of tensors, as the header says", metadata.data_len());
        return Err(EdgeError::format(path, expected, format!("{data_len}")));
    }
    Ok((metadata, LEN_BYTES + header_len))
}

/// The format of blocks called `label`.
fn block_format(label: &str) -> Option<Format> {
    let formats = [Format::Q4_0, Format::Q3K, Format::Q4K, Format::Tq1_0, Format::Tq2_0];
    formats.into_iter().find(|format| format.label() == label)
}

struct File<'a> {
    bytes: &'a Bytes,
    path: &'a Path,
    metadata: Metadata,
    data_start: usize,
}

impl File<'_> {
    fn refuse(&self, name: &str, expected: impl Into<String>, found: impl Into<String>) -> EdgeError {
        let (expected, found) = (expected.into(), found.into());
        EdgeError::Tensor { name: name.to_owned(), expected, found, path: self.path.to_owned() }
    }

    fn note(&self, key: &str) -> Option<&str> {
        self.metadata.metadata().as_ref()?.get(key).map(String::as_str)
    }

    fn data(&self, name: &str, info: &TensorInfo) -> Result<Bytes, EdgeError> {
        let (start, end) = info.data_offsets;
        let range = self.data_start.checked_add(start).zip(self.data_start.checked_add(end));
        let slice = range.and_then(|(start, end)| self.bytes.slice(start..end));
        slice.ok_or_else(|| self.refuse(name, "bytes within the file", format!("bytes {start} to {end}")))
    }

    /// The tensor called `name`; `None` for the scale of an int8 tensor.
    fn tensor(&self, name: &str, info: &TensorInfo) -> Result<Option<Tensor>, EdgeError> {
        let has_format = |owner: &str| self.note(&format!("{owner}.format")).is_some();
        let is_scale = name.strip_suffix(".scale").is_some_and(has_format);
        let is_bitnet_scale = name.strip_suffix("_scale").is_some_and(has_format);
        if is_scale || is_bitnet_scale {
            return Ok(None);
        }
        let bytes = self.data(name, info)?;
        let plain = |format| Tensor { format, shape: info.shape.clone(), bytes: bytes.clone(), scales: Vec::new() };
        match (self.note(&format!("{name}.format")), info.dtype) {
            (None, Dtype::F32) => Ok(Some(plain(Format::F32))),
            (None, Dtype::F16) => Ok(Some(plain(Format::F16))),
            (None, Dtype::BF16) => Ok(Some(plain(Format::Bf16))),
            (Some("INT8"), Dtype::I8) => {
                let scales = self.scales(name, info.shape.first().copied().unwrap_or(0))?;
                Ok(Some(Tensor { scales, ..plain(Format::Int8) }))
            }
            (Some(label), Dtype::U8) if block_format(label).is_some() => {
                let shape = self.logical_shape(name)?;
                let (rows, row) = shape.split_first().map_or((1, &[][..]), |(rows, row)| (*rows, row));
                let cols = row.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim));
                let format = block_format(label)
                    .filter(|format| cols.and_then(|cols| format.num_bytes(rows, cols)) == Some(bytes.len()));
                let Some(format) = format else {
                    let expected = format!("{label} blocks for shape {shape:?}");
                    return Err(self.refuse(name, expected, format!("{} bytes", bytes.len())));
                };
                Ok(Some(Tensor { shape, ..plain(format) }))
            }
            (Some("BITNET"), Dtype::U8) => self.bitnet(name, &bytes).map(Some),
            (format, dtype) => {
                let expected = "F32, F16, BF16, I8 with format \"INT8\" or U8 with the format of a block";
                let format = format.map_or_else(|| "no format".to_owned(), |format| format!("format {format:?}"));
                Err(self.refuse(name, expected, format!("{dtype:?} with {format}")))
            }
        }
    }

    /// A matrix with four rows to a byte, as TQ2_0.
    fn bitnet(&self, name: &str, bytes: &[u8]) -> Result<Tensor, EdgeError> {
        let scale = self.scale_vector(format!("{name}_scale"), 1)?.first().copied().unwrap_or_default();
        let trits = unpack_rows(bytes).map_err(|error| self.refuse(name, "trits", error.to_string()))?;
        let blocks = Packing::Tq2_0.pack(&trits, scale);
        let blocks = blocks.map_err(|error| self.refuse(name, "a scale in half precision", error.to_string()))?;
        Ok(Tensor { format: Format::Tq2_0, shape: self.logical_shape(name)?, bytes: blocks.into(), scales: Vec::new() })
    }

    fn scales(&self, name: &str, rows: usize) -> Result<Vec<f32>, EdgeError> {
        self.scale_vector(format!("{name}.scale"), rows)
    }

    fn scale_vector(&self, scale_name: String, rows: usize) -> Result<Vec<f32>, EdgeError> {
        let Some(info) = self.metadata.info(&scale_name) else {
            return Err(EdgeError::MissingTensor { name: scale_name, path: self.path.to_owned() });
        };
        if info.dtype != Dtype::F32 || info.shape != [rows] {
            let found = format!("{:?} of shape {:?}", info.dtype, info.shape);
            return Err(self.refuse(&scale_name, format!("F32 of shape [{rows}]"), found));
        }
        let scales = floats(Format::F32, &self.data(&scale_name, info)?);
        match scales.iter().find(|scale| !scale.is_finite()) {
            Some(bad) => Err(self.refuse(&scale_name, "finite scales", bad.to_string())),
            None => Ok(scales),
        }
    }

    fn logical_shape(&self, name: &str) -> Result<Vec<usize>, EdgeError> {
        let key = format!("{name}.shape");
        let text = self.note(&key).unwrap_or_default();
        serde_json::from_str(text)
            .map_err(|error| self.refuse(name, format!("metadata {key:?} as a JSON list"), error.to_string()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file of a float matrix, an int8 one with its scales and a ternary one.
    fn sample() -> Vec<u8> {
        let header = br#"{"__metadata__":{"q.format":"INT8","t.format":"TQ2_0","t.shape":"[2, 128]"},
            "w":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]},"q":{"dtype":"I8","shape":[2,4],"data_offsets":[12,20]},
            "q.scale":{"dtype":"F32","shape":[2],"data_offsets":[20,28]},
            "t":{"dtype":"U8","shape":[66],"data_offsets":[28,94]}}"#;
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header);
        file.extend_from_slice(&[0x55; 94]);
        file
    }

    fn parse(file: Vec<u8>) -> Result<BTreeMap<String, Tensor>, EdgeError> {
        read(&file.into(), Path::new("model.safetensors"))
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let file = sample();
        let tensors = parse(file.clone()).unwrap();
        assert_eq!(tensors.keys().map(String::as_str).collect::<Vec<_>>(), ["q", "t", "w"]);
        assert_eq!((tensors["t"].shape.as_slice(), tensors["q"].scales.len()), (&[2, 128][..], 2));
        for cut in 0..file.len() {
            assert!(parse(file[..cut].to_vec()).is_err(), "{cut}");
        }
        assert!(parse([file, vec![0]].concat()).is_err());
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(
            cut in 0_usize..600,
            edits in prop::collection::vec((0_usize..500, any::<u8>()), 0..6),
            digits in prop::collection::vec((0_usize..500, b'0'..=b'9'), 0..6),
            len in prop_oneof![4 => Just(None), 1 => any::<u64>().prop_map(Some)],
        ) {
            let mut file = sample();
            for (at, byte) in edits.into_iter().chain(digits) {
                if let Some(target) = file.get_mut(at) { *target = byte; }
            }
            if let Some(len) = len { file[..8].copy_from_slice(&len.to_le_bytes()); }
            file.truncate(cut.max(200));
            if let Ok(tensors) = parse(file) {
                prop_assert!(tensors.values().all(|tensor| tensor.bytes.len() <= 94));
            }
        }
    }
}

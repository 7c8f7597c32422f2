//! The writer: collects metadata and tensors, then writes the file in one pass.

use std::borrow::Cow;
use std::io::Write;

use super::value::write_string;
use super::{DEFAULT_ALIGNMENT, MAGIC, MAX_DIMENSIONS, MAX_TENSOR_NAME, TensorType, VERSION, Value};
use crate::EdgeError;

/// A GGUF file in the making. Tensors may be borrowed until it is written.
#[derive(Debug, Default)]
pub struct GgufWriter<'a> {
    metadata: Vec<(String, Value)>,
    tensors: Vec<Pending<'a>>,
}

#[derive(Debug)]
struct Pending<'a> {
    name: String,
    kind: TensorType,
    shape: Vec<usize>,
    data: Cow<'a, [u8]>,
}

impl<'a> GgufWriter<'a> {
    /// An empty file for `architecture` (`general.architecture`: "gpt2", "llama", …).
    #[must_use]
    pub fn new(architecture: &str) -> Self {
        Self { metadata: vec![("general.architecture".to_owned(), architecture.into())], tensors: Vec::new() }
    }

    /// Adds a metadata pair.
    ///
    /// Errors: [`EdgeError::Write`] for a key that is empty, longer than 65535 bytes, not ASCII, or there already;
    /// and for `general.alignment`, which stays at 32.
    pub fn add_metadata(&mut self, key: &str, value: impl Into<Value>) -> Result<(), EdgeError> {
        let refuse = |expected: &str, found: &str| EdgeError::Write {
            what: key.to_owned(),
            expected: expected.to_owned(),
            found: found.to_owned(),
        };
        if key.is_empty() || key.len() > usize::from(u16::MAX) || !key.is_ascii() {
            return Err(refuse("an ASCII key of 1 to 65535 bytes", "another"));
        }
        if key == "general.alignment" {
            return Err(refuse("the default alignment of 32", "another"));
        }
        if self.metadata.iter().any(|(existing, _)| existing == key) {
            return Err(refuse("every key once", "it a second time"));
        }
        self.metadata.push((key.to_owned(), value.into()));
        Ok(())
    }

    /// Adds a tensor of `shape` (row-major, outermost first) whose stored bytes are `data`.
    ///
    /// Errors: [`EdgeError::Write`] for a name that is empty, longer than 63 bytes or there already, more than 4
    /// dimensions, rows that are no whole blocks, or data of another length than type and shape say.
    pub fn add_tensor(
        &mut self,
        name: &str,
        kind: TensorType,
        shape: &[usize],
        data: impl Into<Cow<'a, [u8]>>,
    ) -> Result<(), EdgeError> {
        let refuse = |expected: String, found: String| Err(EdgeError::Write { what: name.to_owned(), expected, found });
        if name.is_empty() || name.len() > MAX_TENSOR_NAME {
            return refuse(format!("a name of 1 to {MAX_TENSOR_NAME} bytes"), format!("{} bytes", name.len()));
        }
        if self.tensors.iter().any(|tensor| tensor.name == name) {
            return refuse("every tensor once".to_owned(), "it a second time".to_owned());
        }
        if shape.is_empty() || shape.len() > MAX_DIMENSIONS || shape.contains(&0) {
            return refuse(format!("1 to {MAX_DIMENSIONS} dimensions of at least 1"), format!("shape {shape:?}"));
        }
        let data = data.into();
        match kind.byte_len(shape) {
            Some(len) if len == data.len() => {}
            Some(len) => return refuse(format!("{len} bytes for shape {shape:?}"), format!("{} bytes", data.len())),
            None => {
                let expected = format!("rows of whole blocks of {} ({})", kind.block_len(), kind.label());
                return refuse(expected, format!("shape {shape:?}"));
            }
        }
        self.tensors.push(Pending { name: name.to_owned(), kind, shape: shape.to_vec(), data });
        Ok(())
    }

    /// Writes the file; tensors lie in the order in which they were added. Returns the number of bytes.
    ///
    /// Errors: [`EdgeError::WriteFile`].
    pub fn write(&self, out: &mut impl Write) -> Result<u64, EdgeError> {
        let mut header = Vec::new();
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&(self.tensors.len() as u64).to_le_bytes());
        header.extend_from_slice(&(self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            write_string(key, &mut header);
            value.write(&mut header);
        }
        let mut offset = 0_u64;
        for tensor in &self.tensors {
            write_string(&tensor.name, &mut header);
            // At most 4 dimensions.
            header.extend_from_slice(&(tensor.shape.len() as u32).to_le_bytes());
            for &dimension in tensor.shape.iter().rev() {
                header.extend_from_slice(&(dimension as u64).to_le_bytes());
            }
            header.extend_from_slice(&tensor.kind.code().to_le_bytes());
            header.extend_from_slice(&offset.to_le_bytes());
            offset = (offset + tensor.data.len() as u64).next_multiple_of(DEFAULT_ALIGNMENT);
        }
        out.write_all(&header)?;
        let mut written = header.len() as u64;
        for tensor in &self.tensors {
            written += write_padding(out, written)?;
            out.write_all(&tensor.data)?;
            written += tensor.data.len() as u64;
        }
        written += write_padding(out, written)?;
        Ok(written)
    }
}

/// Zeros up to the next multiple of the alignment; returns how many.
fn write_padding(out: &mut impl Write, position: u64) -> Result<u64, EdgeError> {
    let padding = position.next_multiple_of(DEFAULT_ALIGNMENT) - position;
    let zeros = [0_u8; DEFAULT_ALIGNMENT as usize];
    // Less than the alignment.
    out.write_all(&zeros[..padding as usize])?;
    Ok(padding)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::super::{Array, GgufFile};
    use super::*;
    use crate::bytes::Bytes;

    fn sample() -> Vec<u8> {
        let mut writer = GgufWriter::new("llama");
        writer.add_metadata("llama.block_count", 2_u32).unwrap();
        writer.add_metadata("llama.rope.freq_base", 1e4_f32).unwrap();
        let tokens = Array::String(vec!["<s>".to_owned(), String::new(), "né".to_owned()]);
        writer.add_metadata("tokenizer.ggml.tokens", Value::Array(tokens)).unwrap();
        let nested = Array::Array(vec![Array::I64(vec![-1]), Array::Bool(vec![true, false])]);
        writer.add_metadata("test.nested", Value::Array(nested)).unwrap();
        writer.add_tensor("a", TensorType::F32, &[2, 3], vec![7; 24]).unwrap();
        writer.add_tensor("b", TensorType::Tq2_0, &[1, 256], vec![0x55; 66]).unwrap();
        writer.add_tensor("c", TensorType::Q8_0, &[2, 32], vec![1; 68]).unwrap();
        let mut file = Vec::new();
        assert_eq!(writer.write(&mut file).unwrap(), file.len() as u64);
        file
    }

    fn parse(file: Vec<u8>) -> Result<GgufFile, EdgeError> {
        GgufFile::parse(Bytes::from(file), Path::new("test.gguf"))
    }

    #[test]
    fn reads_back_what_was_written() {
        let file = sample();
        assert_eq!(file.len() % 32, 0);
        let gguf = parse(file).unwrap();
        assert_eq!(gguf.metadata()["general.architecture"].as_str(), Some("llama"));
        assert_eq!(gguf.metadata()["llama.block_count"].as_u64(), Some(2));
        let Value::Array(Array::String(tokens)) = &gguf.metadata()["tokenizer.ggml.tokens"] else { panic!("tokens") };
        assert_eq!(tokens, &["<s>", "", "né"]);
        assert_eq!(gguf.tensors()["a"].shape, [2, 3]);
        assert_eq!(gguf.data("a").unwrap(), [7; 24]);
        assert_eq!(gguf.tensors()["b"].kind, TensorType::Tq2_0);
        assert_eq!(gguf.data("b").unwrap(), [0x55; 66]);
        assert_eq!(gguf.data("c").unwrap(), [1; 68]);
        assert!(gguf.data("d").is_none());
    }

    #[test]
    fn header_bytes_are_the_specs() {
        let mut writer = GgufWriter::new("x");
        writer.add_tensor("t", TensorType::F16, &[1, 2], vec![9, 8, 7, 6]).unwrap();
        let mut file = Vec::new();
        writer.write(&mut file).unwrap();
        let mut expected = b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0".to_vec();
        expected.extend(b"\x14\0\0\0\0\0\0\0general.architecture\x08\0\0\0\x01\0\0\0\0\0\0\0x");
        // Name, 2 dimensions innermost first, type 1, offset 0.
        expected.extend(b"\x01\0\0\0\0\0\0\0t\x02\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0");
        expected.resize(expected.len().next_multiple_of(32), 0);
        expected.extend([9, 8, 7, 6]);
        expected.resize(expected.len().next_multiple_of(32), 0);
        assert_eq!(file, expected);
    }

    #[test]
    fn refuses_what_the_format_cannot_hold() {
        let mut writer = GgufWriter::new("llama");
        assert!(writer.add_metadata("general.architecture", "x").is_err());
        assert!(writer.add_metadata("", "x").is_err());
        assert!(writer.add_metadata("general.alignment", 64_u32).is_err());
        assert!(writer.add_tensor(&"n".repeat(64), TensorType::F32, &[1], vec![0; 4]).is_err());
        assert!(writer.add_tensor("t", TensorType::F32, &[1, 1, 1, 1, 1], vec![0; 4]).is_err());
        assert!(writer.add_tensor("t", TensorType::F32, &[2], vec![0; 4]).is_err());
        assert!(writer.add_tensor("t", TensorType::Tq2_0, &[2, 128], vec![0; 66]).is_err());
        writer.add_tensor("t", TensorType::F32, &[1], vec![0; 4]).unwrap();
        assert!(writer.add_tensor("t", TensorType::F32, &[1], vec![0; 4]).is_err());
    }

    #[test]
    fn lies_are_named() {
        let check = |at: usize, bytes: &[u8], says: &str| {
            let mut file = sample();
            file[at..at + bytes.len()].copy_from_slice(bytes);
            let error = parse(file).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("test.gguf"), "{error}");
        };
        check(0, b"GGML", "starts with");
        check(4, &2_u32.to_le_bytes(), "version 2");
        check(8, &u64::MAX.to_le_bytes(), "18446744073709551615");
        check(16, &(1_u64 << 40).to_le_bytes(), "metadata pairs");
        check(24, &u64::MAX.to_le_bytes(), "metadata key");
        let error = parse(sample()[..200].to_vec()).unwrap_err().to_string();
        assert!(error.contains("found"), "{error}");
    }

    /// Up to the end of the last tensor's data every shorter file is refused; what follows is padding.
    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let file = sample();
        let gguf = parse(file.clone()).unwrap();
        let last = gguf.data("c").unwrap();
        let end = last.as_ptr().addr() + last.len() - gguf.data("a").unwrap().as_ptr().addr();
        let start = file.windows(24).position(|window| window == [7; 24]).unwrap();
        for cut in 0..file.len() {
            assert_eq!(parse(file[..cut].to_vec()).is_ok(), cut >= start + end, "{cut}");
        }
    }

    #[test]
    fn long_names_and_shared_bytes_are_refused() {
        let mut file = b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0".to_vec();
        file.extend_from_slice(&(1_u64 << 16).to_le_bytes());
        file.resize(file.len() + (1 << 16), b'k');
        file.extend_from_slice(&[7, 0, 0, 0, 1]);
        let error = parse(file).unwrap_err().to_string();
        assert!(error.contains("65535 bytes") && error.len() < 300, "{error}");
        let mut file = sample();
        let at = |file: &[u8], name: u8| {
            let start = [1, 0, 0, 0, 0, 0, 0, 0, name];
            file.windows(9).position(|window| window == start).unwrap() + 9 + 4 + 16 + 4
        };
        // Tensor b where a lies; an empty range would share nothing.
        let (a, b) = (at(&file, b'a'), at(&file, b'b'));
        file.copy_within(a..a + 8, b);
        let error = parse(file).unwrap_err().to_string();
        assert!(error.contains("share no bytes") && error.contains("\"a\" and \"b\""), "{error}");
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(
            cut in 0_usize..2000,
            edits in prop::collection::vec((0_usize..2000, any::<u8>()), 0..8),
            lies in prop::collection::vec((0_usize..400, any::<u64>()), 0..2),
        ) {
            let mut file = sample();
            file.truncate(cut);
            for (at, byte) in edits {
                if let Some(target) = file.get_mut(at) { *target = byte; }
            }
            for (at, lie) in lies {
                if let Some(target) = file.get_mut(at..at + 8) { target.copy_from_slice(&lie.to_le_bytes()); }
            }
            if let Ok(gguf) = parse(file) {
                for name in gguf.tensors().keys() {
                    prop_assert!(gguf.data(name).is_some());
                }
            }
        }
    }
}

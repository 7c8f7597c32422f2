//! Writes package folders with random weights.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use foretrain_edge::gguf::{GgufWriter, TensorType, decode_q4_0, encode_q3_k, encode_q4_0, encode_q4_k, encode_q8_0};
use foretrain_edge::{FORMAT_VERSION, Manifest, PackagedFile};
use foretrain_ternary::Packing;
use half::{bf16, f16};
use safetensors::{Dtype, View};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// How matrices are stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scheme {
    F32,
    F16,
    Bf16,
    Int8,
    Int4,
    Ternary,
    TernaryBase3,
}

impl Scheme {
    pub const ALL: [Self; 7] =
        [Self::F32, Self::F16, Self::Bf16, Self::Int8, Self::Int4, Self::Ternary, Self::TernaryBase3];

    pub fn is_integer(self) -> bool {
        matches!(self, Self::Int8 | Self::Int4 | Self::Ternary | Self::TernaryBase3)
    }

    fn packing(self) -> Packing {
        if self == Self::TernaryBase3 { Packing::Tq1_0 } else { Packing::Tq2_0 }
    }
}

/// A tensor of the reference: output-major, f64.
#[derive(Debug, Clone)]
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
    /// Inputs are quantized before multiplying with it.
    pub is_integer: bool,
}

/// Repeatable numbers, roughly normal.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1_u64 << 24) as f32
    }

    pub fn normal(&mut self) -> f32 {
        (0..6).map(|_| self.uniform() - 0.5).sum::<f32>() * 1.4
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| (self.uniform() * 256.0) as u8).collect()
    }
}

struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for &Stored {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Weights in the making: what goes to the file, and what the reference computes with.
pub struct Weights {
    random: Random,
    stored: BTreeMap<String, Stored>,
    notes: HashMap<String, String>,
    pub arrays: BTreeMap<String, Array>,
}

impl Weights {
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), stored: BTreeMap::new(), notes: HashMap::new(), arrays: BTreeMap::new() }
    }

    /// A vector around `center`.
    pub fn vector(&mut self, name: &str, len: usize, center: f32) {
        let values: Vec<f32> = (0..len).map(|_| center + 0.2 * self.random.normal()).collect();
        self.store(name, Scheme::F32, &[len], &values);
    }

    /// A matrix (out, in…) scaled by its fan-in.
    pub fn matrix(&mut self, name: &str, shape: &[usize], scheme: Scheme) {
        let values = self.matrix_values(shape);
        self.store(name, scheme, shape, &values);
    }

    /// A matrix (out, in) whose float form lies as (in, out).
    pub fn conv1d(&mut self, name: &str, out: usize, input: usize, scheme: Scheme) {
        let values = self.matrix_values(&[out, input]);
        if scheme.is_integer() {
            self.store(name, scheme, &[out, input], &values);
            return;
        }
        let transposed: Vec<f32> =
            (0..input).flat_map(|i| (0..out).map(move |o| (i, o))).map(|(i, o)| values[o * input + i]).collect();
        self.store(name, scheme, &[input, out], &transposed);
        let array = self.arrays.get_mut(name).unwrap();
        array.shape = vec![out, input];
        let by_input = array.values.clone();
        for o in 0..out {
            for i in 0..input {
                array.values[o * input + i] = by_input[i * out + o];
            }
        }
    }

    fn matrix_values(&mut self, shape: &[usize]) -> Vec<f32> {
        let fan_in: usize = shape[1..].iter().product();
        let scale = 1.5 / (fan_in as f32).sqrt();
        (0..shape[0] * fan_in).map(|_| scale * self.random.normal()).collect()
    }

    fn store(&mut self, name: &str, scheme: Scheme, shape: &[usize], values: &[f32]) {
        let (dtype, bytes, exact): (_, Vec<u8>, Vec<f32>) = match scheme {
            Scheme::F32 => (Dtype::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect(), values.to_vec()),
            Scheme::F16 => {
                let halves: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
                let exact = halves.iter().map(|h| h.to_f32()).collect();
                (Dtype::F16, halves.iter().flat_map(|h| h.to_le_bytes()).collect(), exact)
            }
            Scheme::Bf16 => {
                let halves: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
                let exact = halves.iter().map(|h| h.to_f32()).collect();
                (Dtype::BF16, halves.iter().flat_map(|h| h.to_le_bytes()).collect(), exact)
            }
            Scheme::Int8 => {
                let row_len = values.len() / shape[0];
                let (mut bytes, mut scales, mut exact) = (Vec::new(), Vec::new(), Vec::new());
                for row in values.chunks(row_len) {
                    let scale = row.iter().fold(0.0_f32, |m, v| m.max(v.abs())) / 127.0;
                    let quants: Vec<i8> = row.iter().map(|v| (v / scale).round() as i8).collect();
                    exact.extend(quants.iter().map(|&q| f32::from(q) * scale));
                    bytes.extend(quants.iter().map(|q| q.cast_unsigned()));
                    scales.extend(scale.to_le_bytes());
                }
                let scales = Stored { dtype: Dtype::F32, shape: vec![shape[0]], bytes: scales };
                self.stored.insert(format!("{name}.scale"), scales);
                self.notes.insert(format!("{name}.format"), "INT8".to_owned());
                (Dtype::I8, bytes, exact)
            }
            Scheme::Int4 => {
                let row_len = values.len() / shape[0];
                let (mut bytes, mut exact) = (Vec::new(), Vec::new());
                for row in values.chunks(row_len) {
                    let mut row = row.to_vec();
                    row.resize(row_len.next_multiple_of(32), 0.0);
                    let blocks = encode_q4_0(&row).unwrap();
                    exact.extend_from_slice(&decode_q4_0(&blocks)[..row_len]);
                    bytes.extend(blocks);
                }
                self.notes.insert(format!("{name}.format"), "Q4_0".to_owned());
                (Dtype::U8, bytes, exact)
            }
            Scheme::Ternary | Scheme::TernaryBase3 => {
                let ternary = foretrain_ternary::ternarize(values).unwrap();
                let exact = ternary.trits.iter().map(|&t| f32::from(t) * ternary.scale).collect();
                let format = if scheme == Scheme::Ternary { "TQ2_0" } else { "TQ1_0" };
                self.notes.insert(format!("{name}.format"), format.to_owned());
                (Dtype::U8, scheme.packing().pack(&ternary.trits, ternary.scale).unwrap(), exact)
            }
        };
        let file_shape = if dtype == Dtype::U8 { vec![bytes.len()] } else { shape.to_vec() };
        if scheme.is_integer() {
            self.notes.insert(format!("{name}.shape"), format!("{shape:?}"));
        }
        self.stored.insert(name.to_owned(), Stored { dtype, shape: file_shape, bytes });
        let values = exact.into_iter().map(f64::from).collect();
        // Int4 rows that fill no blocks are decoded to floats.
        let is_decoded = scheme == Scheme::Int4 && !shape[1..].iter().product::<usize>().is_multiple_of(32);
        let is_integer = scheme.is_integer() && !is_decoded;
        self.arrays.insert(name.to_owned(), Array { shape: shape.to_vec(), values, is_integer });
    }

    /// Overwrites the first bytes of what the safetensors file holds for `name`.
    pub fn spoil(&mut self, name: &str, bytes: &[u8]) {
        self.stored.get_mut(name).unwrap().bytes[..bytes.len()].copy_from_slice(bytes);
    }

    /// The safetensors file.
    pub fn safetensors(&self) -> Vec<u8> {
        let notes = if self.notes.is_empty() { None } else { Some(self.notes.clone()) };
        safetensors::serialize(&self.stored, notes).unwrap()
    }

    /// A GGUF file of the matrices and vectors as the reference holds them, named by `gguf_name`; `kind` for those
    /// matrices that `is_quantized`, F32 for everything else. Query and key rows are put in llama.cpp's order by `permute`.
    /// The reference's values become what the file holds.
    pub fn gguf(
        &mut self,
        architecture: &str,
        kind: TensorType,
        is_quantized: impl Fn(&str) -> bool,
        gguf_name: impl Fn(&str) -> String,
        permute: impl Fn(&str, &Array) -> Vec<f64>,
    ) -> Vec<u8> {
        let mut writer = GgufWriter::new(architecture);
        writer.add_metadata(&format!("{architecture}.block_count"), 2_u32).unwrap();
        for (name, array) in &mut self.arrays {
            let kind = if array.shape.len() == 2 && is_quantized(name) { kind } else { TensorType::F32 };
            array.is_integer = !reads_floats(kind);
            let floats = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<f32>>();
            // Rows are moved whole, so that what is in them does not depend on their order.
            let bytes = encoded(kind, &floats(&permute(name, array)));
            let exact = kind.decode(&encoded(kind, &floats(&array.values))).unwrap();
            array.values = exact.into_iter().map(f64::from).collect();
            writer.add_tensor(&gguf_name(name), kind, &array.shape, bytes).unwrap();
        }
        let mut file = Vec::new();
        writer.write(&mut file).unwrap();
        file
    }
}

/// The files of a package before they are written.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The files of a package with `weights` under the name `weights_name`.
pub fn files(config: &Value, weights_name: &str, weights: Vec<u8>, tokenizer: Option<Value>) -> Files {
    let mut files = Files::new();
    files.insert("config.json".to_owned(), config.to_string().into_bytes());
    files.insert(weights_name.to_owned(), weights);
    if let Some(tokenizer) = tokenizer {
        files.insert("tokenizer.json".to_owned(), tokenizer.to_string().into_bytes());
    }
    files
}

/// Writes `files` with a manifest that matches them.
pub fn write(files: &Files) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_into(dir.path(), files);
    dir
}

/// Writes `files` and their manifest into folder `dir`.
pub fn write_into(dir: &Path, files: &Files) {
    let packaged = files.iter().map(|(name, content)| PackagedFile {
        name: name.clone(),
        bytes: content.len() as u64,
        sha256: Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect(),
    });
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        name: "tiny".to_owned(),
        target: "test".to_owned(),
        scheme: "mixed".to_owned(),
        files: packaged.collect(),
        metrics: Value::Null,
        provenance: Value::Null,
    };
    for (name, content) in files {
        std::fs::write(dir.join(name), content).unwrap();
    }
    std::fs::write(dir.join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
}

/// A tokenizer of one token per character of `characters`, in order.
pub fn character_tokenizer(characters: &str) -> Value {
    let vocab: serde_json::Map<_, _> =
        characters.chars().enumerate().map(|(id, character)| (character.to_string(), json!(id))).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": [],
        },
    })
}

/// True for types that are multiplied with inputs as they are.
pub fn reads_floats(kind: TensorType) -> bool {
    kind.block_len() == 1 || matches!(kind, TensorType::Q3K | TensorType::Q4K)
}

fn packing_of(kind: TensorType) -> Packing {
    if kind == TensorType::Tq1_0 { Packing::Tq1_0 } else { Packing::Tq2_0 }
}

fn encoded(kind: TensorType, values: &[f32]) -> Vec<u8> {
    match kind {
        TensorType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        TensorType::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
        TensorType::Bf16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
        TensorType::Q8_0 => encode_q8_0(values).unwrap(),
        TensorType::Q4_0 => encode_q4_0(values).unwrap(),
        TensorType::Q3K => encode_q3_k(values).unwrap(),
        TensorType::Q4K => encode_q4_k(values).unwrap(),
        TensorType::Tq1_0 | TensorType::Tq2_0 => {
            let ternary = foretrain_ternary::ternarize(values).unwrap();
            packing_of(kind).pack(&ternary.trits, ternary.scale).unwrap()
        }
    }
}

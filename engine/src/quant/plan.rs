//! Which tensor is stored how: decided from names, shapes and roles alone, so that sizes are known beforehand.

use foretrain_edge::gguf::{Q8_0_BLOCK_BYTES, Q8_0_BLOCK_LEN};

use super::QuantScheme;
use crate::models::{TensorKind, TensorSpec};

/// The file that the weights go into; containers differ in what an 8-bit or ternary tensor may look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Container {
    /// Int8 with one scale per output row, ternary over the flattened tensor.
    Safetensors,
    /// What llama.cpp reads: Q8_0 (rows of a multiple of 32) and TQ2_0 (rows of a multiple of 256).
    Gguf,
}

/// How one tensor is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Storage {
    /// 32-bit float.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// 8-bit integers, one f32 scale per output row.
    Int8Rows,
    /// GGUF's Q8_0: blocks of 32 8-bit integers with a half-precision scale.
    Q8Blocks,
    /// Ternary in TQ2_0 blocks, one scale for the tensor.
    Ternary,
}

impl Storage {
    /// The name to show.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Int8Rows => "INT8",
            Self::Q8Blocks => "Q8_0",
            Self::Ternary => "TQ2_0",
        }
    }

    /// True for the float types.
    #[must_use]
    pub fn is_float(self) -> bool {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => true,
            Self::Int8Rows | Self::Q8Blocks | Self::Ternary => false,
        }
    }

    /// Bytes of `num_rows` output rows of `row_len` weights, scales included.
    #[must_use]
    pub fn num_bytes(self, num_rows: usize, row_len: usize) -> u64 {
        let (num_rows, row_len) = (num_rows as u64, row_len as u64);
        let count = num_rows * row_len;
        match self {
            Self::F32 => count * 4,
            Self::F16 | Self::Bf16 => count * 2,
            Self::Int8Rows => count + num_rows * 4,
            Self::Q8Blocks => count.div_ceil(Q8_0_BLOCK_LEN as u64) * Q8_0_BLOCK_BYTES as u64,
            Self::Ternary => {
                count.div_ceil(foretrain_ternary::BLOCK_LEN as u64) * foretrain_ternary::BLOCK_BYTES as u64
            }
        }
    }
}

/// What is to become of one tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorPlan {
    /// Name, as in the checkpoint.
    pub name: String,
    /// Shape, as in the checkpoint.
    pub shape: Vec<usize>,
    /// Role.
    pub kind: TensorKind,
    /// How it is stored.
    pub storage: Storage,
    /// The checkpoint holds (in, out), as GPT-2's `Conv1D` does.
    pub is_input_major: bool,
}

impl TensorPlan {
    /// Shape with the outputs first: (out, in...).
    #[must_use]
    pub fn output_major_shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if self.is_input_major {
            shape.reverse();
        }
        shape
    }

    /// Output rows and the length of each; a vector is one row.
    #[must_use]
    pub fn rows(&self) -> (usize, usize) {
        match self.output_major_shape().as_slice() {
            [] => (1, 1),
            [len] => (1, *len),
            [out, rest @ ..] => (*out, rest.iter().product()),
        }
    }

    /// Numbers in it.
    #[must_use]
    pub fn num_weights(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes as stored, scales included.
    #[must_use]
    pub fn num_bytes(&self) -> u64 {
        let (num_rows, row_len) = self.rows();
        self.storage.num_bytes(num_rows, row_len)
    }
}

/// Decides for each tensor.
///
/// Hidden matrices and convolutions take the scheme, except the first layer of an image model, which sees raw pixels;
/// int8 also takes the head. Other matrices and embeddings are F16. Vectors and buffers stay F32: they are few, and a
/// norm's scale multiplies everything after it. In GGUF, a row length that fills no TQ2_0 block falls back to Q8_0, and
/// one that fills no Q8_0 block to F16.
#[must_use]
pub fn plan(specs: &[TensorSpec], scheme: QuantScheme, container: Container) -> Vec<TensorPlan> {
    let reads_images = specs.iter().all(|spec| spec.kind != TensorKind::Embedding);
    let first = specs.iter().find(|spec| spec.kind == TensorKind::Matrix).filter(|_| reads_images);
    specs
        .iter()
        .map(|spec| {
            let mut plan = TensorPlan {
                name: spec.name.clone(),
                shape: spec.shape.clone(),
                kind: spec.kind,
                storage: Storage::F32,
                is_input_major: is_input_major(spec),
            };
            let is_first = first.is_some_and(|first| first.name == spec.name);
            plan.storage = storage(spec.kind, is_first, plan.rows().1, scheme, container);
            plan
        })
        .collect()
}

/// The storages that `plan` may have in `container` instead of its own, its own first, then by rising bytes: what mixed
/// precision chooses from. Only its own where that is a float type.
#[must_use]
pub fn alternatives(plan: &TensorPlan, container: Container) -> Vec<Storage> {
    if plan.storage.is_float() {
        return vec![plan.storage];
    }
    let row_len = plan.rows().1;
    let eight_bits = match container {
        Container::Safetensors => Some(Storage::Int8Rows),
        Container::Gguf if row_len.is_multiple_of(Q8_0_BLOCK_LEN) => Some(Storage::Q8Blocks),
        Container::Gguf => None,
    };
    let bytes = |storage: Storage| TensorPlan { storage, ..plan.clone() }.num_bytes();
    let wider = eight_bits.into_iter().chain([Storage::F16]).filter(|storage| bytes(*storage) > plan.num_bytes());
    [plan.storage].into_iter().chain(wider).collect()
}

fn storage(kind: TensorKind, is_first: bool, row_len: usize, scheme: QuantScheme, container: Container) -> Storage {
    let takes_scheme = match kind {
        TensorKind::Vector | TensorKind::Buffer => return Storage::F32,
        TensorKind::Matrix => !is_first,
        TensorKind::Head => scheme == QuantScheme::Int8,
        TensorKind::Embedding => false,
    };
    let q8_or_half = if row_len.is_multiple_of(Q8_0_BLOCK_LEN) { Storage::Q8Blocks } else { Storage::F16 };
    match (scheme, container) {
        (QuantScheme::F32, _) => Storage::F32,
        (QuantScheme::F16, _) => Storage::F16,
        (QuantScheme::Bf16, _) => Storage::Bf16,
        (QuantScheme::Int8 | QuantScheme::Ternary, _) if !takes_scheme => Storage::F16,
        (QuantScheme::Int8, Container::Safetensors) => Storage::Int8Rows,
        (QuantScheme::Int8, Container::Gguf) => q8_or_half,
        (QuantScheme::Ternary, Container::Safetensors) => Storage::Ternary,
        (QuantScheme::Ternary, Container::Gguf) if row_len.is_multiple_of(foretrain_ternary::BLOCK_LEN) => {
            Storage::Ternary
        }
        (QuantScheme::Ternary, Container::Gguf) => q8_or_half,
    }
}

/// GPT-2's `Conv1D` layers, the only ones that transformers stores as (in, out).
fn is_input_major(spec: &TensorSpec) -> bool {
    const CONV1D: [&str; 4] = [".attn.c_attn.weight", ".attn.c_proj.weight", ".mlp.c_fc.weight", ".mlp.c_proj.weight"];
    spec.shape.len() == 2 && CONV1D.iter().any(|suffix| spec.name.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Init;

    fn spec(name: &str, shape: &[usize], kind: TensorKind) -> TensorSpec {
        TensorSpec { name: name.to_owned(), shape: shape.to_vec(), kind, init: Init::Constant(0.0) }
    }

    #[track_caller]
    fn check(specs: &[TensorSpec], scheme: QuantScheme, container: Container, expected: &str) {
        let found: Vec<_> = plan(specs, scheme, container).iter().map(|plan| plan.storage.label()).collect();
        assert_eq!(found.join(" "), expected);
    }

    #[test]
    fn image_models_keep_their_first_layer() {
        let specs = [
            spec("conv.0.weight", &[4, 1, 3, 3], TensorKind::Matrix),
            spec("conv.0.bias", &[4], TensorKind::Vector),
            spec("fc.weight", &[8, 100], TensorKind::Matrix),
            spec("classifier.weight", &[10, 8], TensorKind::Head),
        ];
        check(&specs, QuantScheme::Int8, Container::Safetensors, "F16 F32 INT8 INT8");
        check(&specs, QuantScheme::Ternary, Container::Safetensors, "F16 F32 TQ2_0 F16");
        check(&specs, QuantScheme::Bf16, Container::Safetensors, "BF16 F32 BF16 BF16");
        check(&specs, QuantScheme::F32, Container::Safetensors, "F32 F32 F32 F32");
    }

    #[test]
    fn gguf_falls_back_where_rows_fill_no_block() {
        let specs = [
            spec("model.embed_tokens.weight", &[65, 96], TensorKind::Embedding),
            spec("model.layers.0.mlp.up_proj.weight", &[256, 96], TensorKind::Matrix),
            spec("model.layers.0.mlp.down_proj.weight", &[96, 256], TensorKind::Matrix),
            spec("model.layers.0.mlp.odd.weight", &[96, 100], TensorKind::Matrix),
            spec("lm_head.weight", &[65, 96], TensorKind::Head),
        ];
        check(&specs, QuantScheme::Ternary, Container::Gguf, "F16 Q8_0 TQ2_0 F16 F16");
        check(&specs, QuantScheme::Int8, Container::Gguf, "F16 Q8_0 Q8_0 F16 Q8_0");
        check(&specs, QuantScheme::Ternary, Container::Safetensors, "F16 TQ2_0 TQ2_0 TQ2_0 F16");
    }

    #[test]
    fn alternatives_take_more_bytes() {
        let spec = spec("model.layers.0.mlp.up_proj.weight", &[64, 256], TensorKind::Matrix);
        let of = |scheme, container| {
            let specs = [self::spec("model.embed_tokens.weight", &[9, 64], TensorKind::Embedding), spec.clone()];
            let plans = plan(&specs, scheme, container);
            alternatives(&plans[1], container).into_iter().map(Storage::label).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of(QuantScheme::Ternary, Container::Safetensors), "TQ2_0 INT8 F16");
        assert_eq!(of(QuantScheme::Ternary, Container::Gguf), "TQ2_0 Q8_0 F16");
        assert_eq!(of(QuantScheme::Int8, Container::Safetensors), "INT8 F16");
        assert_eq!(of(QuantScheme::F16, Container::Gguf), "F16");
    }

    #[test]
    fn conv1d_is_turned() {
        let specs = [
            spec("transformer.wte.weight", &[9, 4], TensorKind::Embedding),
            spec("transformer.h.0.attn.c_attn.weight", &[4, 12], TensorKind::Matrix),
        ];
        let plan = plan(&specs, QuantScheme::Int8, Container::Safetensors);
        assert!(!plan[0].is_input_major && plan[1].is_input_major);
        assert_eq!((plan[1].output_major_shape(), plan[1].rows()), (vec![12, 4], (12, 4)));
        assert_eq!(plan[1].num_bytes(), 48 + 12 * 4);
    }
}

//! Which tensor is stored how: decided from names, shapes and roles alone, so that sizes are known beforehand.

use foretrain_edge::gguf::{
    Q3_K_BLOCK_BYTES, Q3_K_BLOCK_LEN, Q4_0_BLOCK_BYTES, Q4_0_BLOCK_LEN, Q4_K_BLOCK_BYTES, Q4_K_BLOCK_LEN,
    Q8_0_BLOCK_BYTES, Q8_0_BLOCK_LEN,
};
use foretrain_ternary::{Packing, ROWS_PER_BYTE};

use super::QuantScheme;
use crate::models::{TensorKind, TensorSpec};

/// The file that the weights go into; containers differ in what an 8-bit or ternary tensor may look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Container {
    /// Int8 with one scale per output row, Q4_0 with each row padded to whole blocks, ternary over the flattened tensor.
    Safetensors,
    /// What transformers loads: floats, and ternary as its BitNet integration has it.
    Transformers,
    /// What llama.cpp reads: Q8_0 and Q4_0 (rows of a multiple of 32), Q3_K, Q4_K, TQ2_0 and TQ1_0 (of a multiple of 256).
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
    /// GGUF's Q4_0: blocks of 32 4-bit integers with a half-precision scale; each row starts a block.
    Q4Blocks,
    /// GGUF's Q3_K: blocks of 256 3-bit integers with scales of 16 groups; for tables.
    Q3KBlocks,
    /// GGUF's Q4_K: blocks of 256 4-bit integers with scales and minimums of 8 groups.
    Q4KBlocks,
    /// Ternary in TQ2_0 blocks, one scale for the tensor.
    Ternary,
    /// Ternary in TQ1_0 blocks, one scale for the tensor.
    TernaryBase3,
    /// Ternary as transformers' BitNet has it: four output rows to a byte, one f32 scale for the tensor.
    BitnetRows,
}

impl Storage {
    /// All of them, coarsest first.
    pub const ALL: [Self; 11] = [
        Self::TernaryBase3,
        Self::BitnetRows,
        Self::Ternary,
        Self::Q3KBlocks,
        Self::Q4Blocks,
        Self::Q4KBlocks,
        Self::Int8Rows,
        Self::Q8Blocks,
        Self::Bf16,
        Self::F16,
        Self::F32,
    ];

    /// The name to show.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Int8Rows => "INT8",
            Self::Q8Blocks => "Q8_0",
            Self::Q4Blocks => "Q4_0",
            Self::Q3KBlocks => "Q3_K",
            Self::Q4KBlocks => "Q4_K",
            Self::Ternary => "TQ2_0",
            Self::TernaryBase3 => "TQ1_0",
            Self::BitnetRows => "BITNET",
        }
    }

    /// True for the float types.
    #[must_use]
    pub fn is_float(self) -> bool {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => true,
            Self::Int8Rows
            | Self::Q8Blocks
            | Self::Q4Blocks
            | Self::Q3KBlocks
            | Self::Q4KBlocks
            | Self::Ternary
            | Self::TernaryBase3
            | Self::BitnetRows => false,
        }
    }

    /// Bytes of `num_rows` output rows of `row_len` weights, scales included.
    #[must_use]
    pub fn num_bytes(self, num_rows: usize, row_len: usize) -> u64 {
        let (num_rows, row_len) = (num_rows as u64, row_len as u64);
        let count = num_rows * row_len;
        let blocks =
            |count: u64, block_len: usize, block_bytes: usize| count.div_ceil(block_len as u64) * block_bytes as u64;
        let trits = |packing: Packing| blocks(count, foretrain_ternary::BLOCK_LEN, packing.block_bytes());
        match self {
            Self::F32 => count * 4,
            Self::F16 | Self::Bf16 => count * 2,
            Self::Int8Rows => count + num_rows * 4,
            Self::Q8Blocks => blocks(count, Q8_0_BLOCK_LEN, Q8_0_BLOCK_BYTES),
            Self::Q4Blocks => num_rows * blocks(row_len, Q4_0_BLOCK_LEN, Q4_0_BLOCK_BYTES),
            Self::Q3KBlocks => blocks(count, Q3_K_BLOCK_LEN, Q3_K_BLOCK_BYTES),
            Self::Q4KBlocks => blocks(count, Q4_K_BLOCK_LEN, Q4_K_BLOCK_BYTES),
            Self::Ternary => trits(Packing::Tq2_0),
            Self::TernaryBase3 => trits(Packing::Tq1_0),
            Self::BitnetRows => count.div_ceil(ROWS_PER_BYTE as u64) + 4,
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
/// Hidden matrices and convolutions take the scheme, except the first layer of an image model, which sees raw pixels.
/// The head is 8-bit with int8 and with either int4. Other matrices and embeddings are F16; an export stores the tables
/// of a ternary language model in less, see [`super::with_tables`]. Vectors and buffers stay F32:
/// they are few, and a norm's scale multiplies everything after it.
///
/// Where rows fill no whole blocks: Q4_K becomes Q4_0. In GGUF, as in llama.cpp, Q4_0 becomes F16, and Q8_0 too;
/// ternary becomes Q8_0 (llama.cpp takes Q4_0, whose codes reach 8 steps down but only 7 up, so that it cannot hold
/// {-s, 0, s} exactly; Q8_0 can). For transformers, which has no form for other integers, what is not ternary is F16.
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
                is_input_major: is_input_major(&spec.name, &spec.shape),
            };
            let is_first = first.is_some_and(|first| first.name == spec.name);
            plan.storage = storage(spec.kind, is_first, plan.rows(), scheme, container);
            plan
        })
        .collect()
}

/// The storages that `plan` may have in `container` instead of its own, its own first, then by rising bytes: what mixed
/// precision chooses from. Only its own where that is a float type.
#[must_use]
pub fn alternatives(plan: &TensorPlan, container: Container) -> Vec<Storage> {
    // A table is what somebody asked for.
    if plan.storage.is_float() || plan.kind == TensorKind::Embedding {
        return vec![plan.storage];
    }
    if container == Container::Transformers {
        // It knows nothing between trits and floats.
        return vec![plan.storage, Storage::F16];
    }
    let row_len = plan.rows().1;
    let has_blocks = container == Container::Safetensors || row_len.is_multiple_of(Q4_0_BLOCK_LEN);
    let four_bits = has_blocks.then_some(Storage::Q4Blocks);
    let mut storages = vec![plan.storage];
    let bytes = |storage: Storage| TensorPlan { storage, ..plan.clone() }.num_bytes();
    for storage in four_bits.into_iter().chain([eight_bit(row_len, container), Storage::F16]) {
        // Where rows fill no blocks, two of these are one.
        if storages.last().is_some_and(|last| bytes(*last) < bytes(storage)) {
            storages.push(storage);
        }
    }
    storages
}

fn storage(
    kind: TensorKind,
    is_first: bool,
    (num_rows, row_len): (usize, usize),
    scheme: QuantScheme,
    container: Container,
) -> Storage {
    let is_quantized_there = container == Container::Transformers && !scheme.is_float();
    let takes_scheme = match kind {
        // A quantized model is loaded there without widening anything, so that all its floats must be of one type.
        TensorKind::Vector if is_quantized_there => return Storage::F16,
        TensorKind::Vector | TensorKind::Buffer => return Storage::F32,
        TensorKind::Matrix => !is_first,
        TensorKind::Head => match scheme {
            QuantScheme::Int8 | QuantScheme::Int4 | QuantScheme::Int4K => return eight_bit(row_len, container),
            QuantScheme::F32
            | QuantScheme::F16
            | QuantScheme::Bf16
            | QuantScheme::Ternary
            | QuantScheme::TernaryBase3 => false,
        },
        TensorKind::Embedding => false,
    };
    let is_gguf = container == Container::Gguf;
    let is_ternary = matches!(scheme, QuantScheme::Ternary | QuantScheme::TernaryBase3);
    if is_quantized_there {
        let has_form = takes_scheme && is_ternary && num_rows.is_multiple_of(ROWS_PER_BYTE);
        return if has_form { Storage::BitnetRows } else { Storage::F16 };
    }
    match scheme {
        QuantScheme::F32 => Storage::F32,
        QuantScheme::F16 => Storage::F16,
        QuantScheme::Bf16 => Storage::Bf16,
        _ if !takes_scheme => Storage::F16,
        QuantScheme::Int8 => eight_bit(row_len, container),
        QuantScheme::Int4K if row_len.is_multiple_of(Q4_K_BLOCK_LEN) => Storage::Q4KBlocks,
        QuantScheme::Int4 | QuantScheme::Int4K if is_gguf && !row_len.is_multiple_of(Q4_0_BLOCK_LEN) => Storage::F16,
        QuantScheme::Int4 | QuantScheme::Int4K => Storage::Q4Blocks,
        QuantScheme::Ternary | QuantScheme::TernaryBase3
            if is_gguf && !row_len.is_multiple_of(foretrain_ternary::BLOCK_LEN) =>
        {
            eight_bit(row_len, container)
        }
        QuantScheme::Ternary => Storage::Ternary,
        QuantScheme::TernaryBase3 => Storage::TernaryBase3,
    }
}

pub(super) fn eight_bit(row_len: usize, container: Container) -> Storage {
    match container {
        Container::Safetensors => Storage::Int8Rows,
        Container::Gguf if row_len.is_multiple_of(Q8_0_BLOCK_LEN) => Storage::Q8Blocks,
        Container::Gguf | Container::Transformers => Storage::F16,
    }
}

/// True for GPT-2's `Conv1D` layers, the only ones that transformers stores as (in, out).
pub(crate) fn is_input_major(name: &str, shape: &[usize]) -> bool {
    const CONV1D: [&str; 4] = [".attn.c_attn.weight", ".attn.c_proj.weight", ".mlp.c_fc.weight", ".mlp.c_proj.weight"];
    shape.len() == 2 && CONV1D.iter().any(|suffix| name.ends_with(suffix))
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
        check(&specs, QuantScheme::TernaryBase3, Container::Gguf, "F16 Q8_0 TQ1_0 F16 F16");
        check(&specs, QuantScheme::Int8, Container::Gguf, "F16 Q8_0 Q8_0 F16 Q8_0");
        check(&specs, QuantScheme::Int4, Container::Gguf, "F16 Q4_0 Q4_0 F16 Q8_0");
        check(&specs, QuantScheme::Int4K, Container::Gguf, "F16 Q4_0 Q4_K F16 Q8_0");
        check(&specs, QuantScheme::Int4, Container::Safetensors, "F16 Q4_0 Q4_0 Q4_0 INT8");
        check(&specs, QuantScheme::Int4K, Container::Safetensors, "F16 Q4_0 Q4_K Q4_0 INT8");
        check(&specs, QuantScheme::Ternary, Container::Safetensors, "F16 TQ2_0 TQ2_0 TQ2_0 F16");
        check(&specs, QuantScheme::Ternary, Container::Transformers, "F16 BITNET BITNET BITNET F16");
        check(&specs, QuantScheme::Bf16, Container::Transformers, "BF16 BF16 BF16 BF16 BF16");
    }

    #[test]
    fn alternatives_take_more_bytes() {
        let spec = spec("model.layers.0.mlp.up_proj.weight", &[64, 256], TensorKind::Matrix);
        let of = |scheme, container| {
            let specs = [self::spec("model.embed_tokens.weight", &[9, 64], TensorKind::Embedding), spec.clone()];
            let plans = plan(&specs, scheme, container);
            alternatives(&plans[1], container).into_iter().map(Storage::label).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of(QuantScheme::Ternary, Container::Safetensors), "TQ2_0 Q4_0 INT8 F16");
        assert_eq!(of(QuantScheme::Ternary, Container::Gguf), "TQ2_0 Q4_0 Q8_0 F16");
        assert_eq!(of(QuantScheme::Int4, Container::Safetensors), "Q4_0 INT8 F16");
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

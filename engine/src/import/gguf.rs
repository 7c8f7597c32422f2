//! Tensors of a GGUF file of any type that we decode, in the names and the order of rows of transformers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use foretrain_edge::gguf::{GgufFile, hugging_face_name};

use super::ImportError;
use super::tensors::{Found, TensorSource};
use crate::models::ModelConfig;
use crate::quant::is_input_major;

/// An open GGUF file.
#[derive(Debug)]
pub(super) struct GgufSource {
    file: GgufFile,
    path: PathBuf,
    config: ModelConfig,
    /// The name in the file, by the network's name.
    names: BTreeMap<String, String>,
    found: BTreeMap<String, Found>,
}

impl GgufSource {
    /// Takes the tensors of `file`, a model of `architecture` that `config` describes.
    pub(super) fn new(file: GgufFile, path: &Path, config: ModelConfig, architecture: &str) -> Self {
        let (mut names, mut found) = (BTreeMap::new(), BTreeMap::new());
        for (name, tensor) in file.tensors() {
            // One without a name of ours keeps its own, and is a stranger.
            let ours = hugging_face_name(architecture, name).unwrap_or_else(|| name.clone());
            let mut shape = tensor.shape.clone();
            if is_input_major(&ours, &shape) {
                shape.reverse();
            }
            found.insert(ours.clone(), Found { dtype: tensor.kind.label().to_owned(), shape, is_number: true });
            names.insert(ours, name.clone());
        }
        Self { file, path: path.to_owned(), config, names, found }
    }
}

impl TensorSource for GgufSource {
    fn found(&self) -> &BTreeMap<String, Found> {
        &self.found
    }

    fn path(&self, _name: &str) -> &Path {
        &self.path
    }

    fn values(&mut self, name: &str) -> Result<Vec<f32>, ImportError> {
        let stored = self.names.get(name);
        let stored = stored.and_then(|name| Some((self.file.tensors().get(name)?, self.file.data(name)?)));
        let Some((tensor, bytes)) = stored else { return Ok(Vec::new()) };
        let values = tensor.kind.decode(bytes).map_err(|error| ImportError::Tensor {
            name: name.to_owned(),
            expected: format!("{} blocks", tensor.kind.label()),
            found: error.to_string(),
            hint: "Is the file complete and undamaged?",
            path: self.path.clone(),
        })?;
        let row_len = tensor.shape.last().copied().unwrap_or(1).max(1);
        if is_input_major(name, &tensor.shape) {
            return Ok(transposed(&values, row_len));
        }
        Ok(match rotary_heads(&self.config, name) {
            Some(num_heads) => halves_from_pairs(&values, row_len, num_heads),
            None => values,
        })
    }

    fn is_dispensable(&self, name: &str) -> bool {
        // llama.cpp's converter may repeat GPT-2's embedding as the head.
        matches!(self.config, ModelConfig::Gpt2(_)) && name == "lm_head.weight"
    }
}

/// Rows of `row_len` as columns.
fn transposed(values: &[f32], row_len: usize) -> Vec<f32> {
    (0..row_len).flat_map(|column| values.iter().skip(column).step_by(row_len).copied()).collect()
}

/// Number of heads in a query or key matrix of Llama, whose rows llama.cpp has in another order; those of a BitNet stay.
fn rotary_heads(config: &ModelConfig, name: &str) -> Option<usize> {
    match config {
        ModelConfig::Llama(config) if config.sub_norms => None,
        ModelConfig::Llama(config) if name.ends_with(".self_attn.q_proj.weight") => Some(config.num_attention_heads),
        ModelConfig::Llama(config) if name.ends_with(".self_attn.k_proj.weight") => Some(config.num_key_value_heads),
        ModelConfig::Llama(_)
        | ModelConfig::Gpt2(_)
        | ModelConfig::Mlp(_)
        | ModelConfig::Cnn(_)
        | ModelConfig::ResNet(_) => None,
    }
}

/// Rows of each head from pairs (llama.cpp rotates 2i with 2i + 1) to halves (transformers rotates i with i + d/2).
fn halves_from_pairs(values: &[f32], row_len: usize, num_heads: usize) -> Vec<f32> {
    let head_len = values.len() / num_heads.max(1);
    let mut moved = Vec::with_capacity(values.len());
    for head in values.chunks(head_len.max(1)) {
        for part in 0..2 {
            for row in head.chunks(row_len).skip(part).step_by(2) {
                moved.extend_from_slice(row);
            }
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_become_halves_within_each_head() {
        // Two heads of four rows, one number per row: what export's order of rows is undone to.
        let paired = [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0];
        assert_eq!(halves_from_pairs(&paired, 1, 2), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        assert_eq!(halves_from_pairs(&[0.0, 0.5, 1.0, 1.5], 2, 1), [0.0, 0.5, 1.0, 1.5]);
    }

    #[test]
    fn rows_become_columns() {
        assert_eq!(transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
}

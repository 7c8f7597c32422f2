//! Rows of a table by number, with or without position embeddings; gradients of equal
//! tokens add in row order.

use std::collections::BTreeMap;

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Result, Tensor, bail};

use super::backward::take_reached;
use super::buffers::{Reading, unwritten};
use super::kernels::has_kernels;
use super::layer_norm::add_to;
use super::many::{Backward, any_tracked, attach};
use super::profile::{self, Kind};
use super::real::Real;

/// tokens[ids] + positions[0..t]: tokens (rows, c), positions (at least t, c) if any, both f32 or f64, ids (n, t)
/// u32, to (n, t, c). Differentiable in both tables.
/// Errors: an id that is not below the table's rows; too few positions.
pub fn embedding(tokens: &Tensor, positions: Option<&Tensor>, ids: &Tensor) -> Result<Tensor> {
    let (n, t) = ids.dims2()?;
    let (_, c) = tokens.dims2()?;
    if ids.dtype() != DType::U32 {
        bail!("embedding: expected ids of type u32, found {}", ids.dtype().as_str());
    }
    if let Some(positions) = positions {
        let (count, width) = positions.dims2()?;
        if width != c || count < t {
            bail!("embedding: expected positions (at least {t}, {c}), found {:?}", positions.dims());
        }
    }
    if has_kernels(tokens.device()) && n * t * c > 0 {
        return match tokens.dtype() {
            DType::F32 => embedding_typed::<f32>(tokens, positions, ids),
            DType::F64 => embedding_typed::<f64>(tokens, positions, ids),
            other => bail!("embedding: expected an f32 or f64 table, found {}", other.as_str()),
        };
    }
    let x = tokens.index_select(&ids.flatten_all()?, 0)?.reshape((n, t, c))?;
    match positions {
        Some(positions) => x.broadcast_add(&positions.narrow(0, 0, t)?),
        None => Ok(x),
    }
}

fn embedding_typed<T: Real>(tokens: &Tensor, positions: Option<&Tensor>, ids: &Tensor) -> Result<Tensor> {
    let (rows, c) = tokens.dims2()?;
    let (n, t) = ids.dims2()?;
    let ids: Vec<u32> = ids.flatten_all()?.to_vec1()?;
    if let Some(id) = ids.iter().find(|&&id| id as usize >= rows) {
        bail!("embedding: expected ids below {rows}, found {id}. Was the text made by another tokenizer?");
    }
    let mut tables = vec![tokens.contiguous()?];
    if let Some(positions) = positions {
        tables.push(positions.contiguous()?);
    }
    let tables: Vec<&Tensor> = tables.iter().collect();
    let readings: Vec<Reading<'_>> = tables.iter().map(|table| Reading::of(table)).collect();
    let slices = readings.iter().map(|reading| reading.slice::<T>("embedding")).collect::<Result<Vec<_>>>()?;
    let timing = profile::time(Kind::Embedding);
    let mut out = unwritten::<T>(n * t * c);
    for (row, &id) in out.chunks_exact_mut(c).zip(&ids) {
        row.copy_from_slice(&slices[0][id as usize * c..][..c]);
    }
    if let Some(positions) = slices.get(1) {
        for sequence in out.chunks_exact_mut(t * c) {
            add_to(sequence, &positions[..t * c]);
        }
    }
    drop(timing);
    drop(readings);
    if any_tracked(&tables) {
        attach((T::to_cpu_storage_owned(out), (n, t, c).into()), &tables, EmbeddingBackward { ids })
    } else {
        Tensor::from_vec(out, (n, t, c), &Device::Cpu)
    }
}

struct EmbeddingBackward {
    ids: Vec<u32>,
}

impl Backward for EmbeddingBackward {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn backward(&self, tables: &[Tensor], grad: &Tensor) -> Result<Vec<Tensor>> {
        match grad.dtype() {
            DType::F64 => self.gradients::<f64>(tables, grad),
            _ => self.gradients::<f32>(tables, grad),
        }
    }
}

impl EmbeddingBackward {
    fn gradients<T: Real>(&self, tables: &[Tensor], grad: &Tensor) -> Result<Vec<Tensor>> {
        let _timing = profile::time(Kind::Embedding);
        let (_, t, c) = grad.dims3()?;
        let reading = Reading::of(grad);
        let grad = reading.slice::<T>("embedding")?;
        let mut gradients = Vec::with_capacity(tables.len());
        if let Some(tokens) = tables.first() {
            gradients.push(self.gradient_of_tokens(tokens, grad, c)?);
        }
        if let Some(positions) = tables.get(1) {
            let mut sum = vec![T::zero(); positions.elem_count()];
            for sequence in grad.chunks_exact(t * c) {
                add_to(&mut sum[..t * c], sequence);
            }
            gradients.push(Tensor::from_vec(sum, positions.shape(), &Device::Cpu)?);
        }
        Ok(gradients)
    }

    /// Rows of equal tokens add up; their sums add to what a head that shares the table left, in place.
    fn gradient_of_tokens<T: Real>(&self, table: &Tensor, grad: &[T], c: usize) -> Result<Tensor> {
        let mut rows = BTreeMap::new();
        let mut sums: Vec<T> = Vec::new();
        for (row, &id) in grad.chunks_exact(c).zip(&self.ids) {
            let start = *rows.entry(id).or_insert_with(|| {
                sums.resize(sums.len() + c, T::zero());
                sums.len() - c
            });
            add_to(&mut sums[start..][..c], row);
        }
        let gradient = match take_reached(table) {
            Some(gradient) => gradient.contiguous()?,
            None => Tensor::from_vec(vec![T::zero(); table.elem_count()], table.shape(), &Device::Cpu)?,
        };
        gradient.inplace_op1(&AddRows { rows, sums: &sums, width: c })?;
        Ok(gradient)
    }
}

/// Adds rows to some of a matrix's.
struct AddRows<'a, T> {
    /// Where the row that is added to this one begins.
    rows: BTreeMap<u32, usize>,
    sums: &'a [T],
    width: usize,
}

impl<T: Real> InplaceOp1 for AddRows<'_, T> {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let all = T::in_storage(storage);
        let range = layout.contiguous_offsets();
        let Some(matrix) = all.zip(range).and_then(|(all, (start, end))| all.get_mut(start..end)) else {
            bail!("embedding: expected a contiguous gradient of the table, found strides {:?}", layout.stride());
        };
        for (&id, &start) in &self.rows {
            add_to(&mut matrix[id as usize * self.width..][..self.width], &self.sums[start..][..self.width]);
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::check::{gradient_error, wave};

    fn ids() -> Tensor {
        Tensor::new(&[[4_u32, 0, 4], [2, 2, 2]], &Device::Cpu).unwrap()
    }

    #[test]
    fn rows_of_the_table() {
        let table = wave(&[5, 3], 1.0).unwrap();
        let positions = wave(&[4, 3], 1.0).unwrap();
        let (rows, positions_rows): (Vec<Vec<f64>>, Vec<Vec<f64>>) =
            (table.to_vec2().unwrap(), positions.to_vec2().unwrap());
        let plain: Vec<Vec<Vec<f64>>> = embedding(&table, None, &ids()).unwrap().to_vec3().unwrap();
        assert_eq!((&plain[0][0], &plain[0][1], &plain[1][2]), (&rows[4], &rows[0], &rows[2]));
        let placed: Vec<Vec<Vec<f64>>> = embedding(&table, Some(&positions), &ids()).unwrap().to_vec3().unwrap();
        assert_eq!(placed[1][2][1], rows[2][1] + positions_rows[2][1]);
    }

    #[test]
    fn gradients_agree_with_central_differences() {
        let tables = [wave(&[5, 3], 1.0).unwrap(), wave(&[4, 3], 1.0).unwrap()];
        let weights = wave(&[2, 3, 3], 1.0).unwrap();
        let plain = |x: &[Tensor]| (embedding(&x[0], None, &ids())? * &weights)?.sum_all();
        assert!(gradient_error(&tables[..1], plain).unwrap() < 1e-9);
        let placed = |x: &[Tensor]| (embedding(&x[0], Some(&x[1]), &ids())? * &weights)?.sum_all();
        assert!(gradient_error(&tables, placed).unwrap() < 1e-9);
    }

    #[test]
    fn wrong_ids_are_errors() {
        let table = wave(&[4, 3], 1.0).unwrap();
        assert!(embedding(&table, None, &ids()).unwrap_err().to_string().contains("below 4"));
        let table = wave(&[5, 3], 1.0).unwrap();
        assert!(embedding(&table, None, &ids().to_dtype(DType::I64).unwrap()).is_err());
        assert!(embedding(&table, Some(&wave(&[2, 3], 1.0).unwrap()), &ids()).is_err());
    }
}

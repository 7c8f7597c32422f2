//! One tensor by what its layer reads.

use candle_core::{DType, Device, Tensor};

use super::gptq::{Compensation, output_errors, output_squares};
use super::grid::Grid;
use super::packing::packed;
use super::statistics::LayerStatistics;
use super::{PostTraining, Rounding};
use crate::device::Watch;
use crate::quant::QuantError;
use crate::quant::plan::TensorPlan;
use crate::quant::tensor::{QuantizedTensor, check_finite, output_major, quantize_tensor};

/// A tensor as it is stored, with what that does to the outputs of its layer.
#[derive(Debug)]
pub(super) struct QuantizedLayer {
    pub tensor: QuantizedTensor,
    /// ‖x(w - q)‖ / ‖xw‖ over the calibration set, rounded each by itself.
    pub nearest_error: f64,
    /// The same as stored.
    pub output_error: f64,
}

/// Stores `tensor` as `plan` says, by `statistics` of its inputs. Rows whose outputs lose less by rounding alone are
/// rounded alone. Errors: as [`quantize_tensor`].
pub(super) fn quantize_layer(
    plan: TensorPlan,
    tensor: &Tensor,
    statistics: &LayerStatistics,
    options: &PostTraining,
    watch: Watch<'_>,
) -> Result<QuantizedLayer, QuantError> {
    let nearest = quantize_tensor(plan.clone(), tensor, options)?;
    let (num_rows, row_len) = plan.rows();
    let values = tensor.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    check_finite(&plan.name, &values)?;
    let weights = in_f64(output_major(&plan, values));
    let total = output_squares(statistics, &weights).iter().sum::<f64>();
    let relative = |squares: f64| if total > 0.0 { (squares / total).sqrt() } else { 0.0 };
    let stored = in_f64(nearest.output_major_values()?);
    let differences: Vec<f64> = weights.iter().zip(&stored).map(|(weight, stored)| weight - stored).collect();
    let of_nearest: f64 = output_squares(statistics, &differences).iter().sum();
    let alone =
        |tensor| QuantizedLayer { tensor, nearest_error: relative(of_nearest), output_error: relative(of_nearest) };
    let moments: Vec<f64> = (0..row_len).map(|i| statistics.second_moments[i * row_len + i]).collect();
    let mask = options.sparsity.map(|sparsity| sparsity.mask(&weights, row_len, &moments));
    let grid = Grid::new(plan.storage, row_len, options.ternary_scales.fitting(row_len));
    let Some(grid) = grid.filter(|_| options.rounding == Rounding::Compensated && num_rows > 0) else {
        return Ok(alone(nearest));
    };
    let Some(compensation) = Compensation::new(statistics) else { return Ok(alone(nearest)) };
    let importance: Vec<f64> = moments.iter().map(|moment| moment.max(f64::MIN_POSITIVE)).collect();
    let mut kept = weights.clone();
    for (weight, _) in kept.iter_mut().zip(mask.iter().flatten()).filter(|(_, is_zero)| **is_zero) {
        *weight = 0.0;
    }
    let scales = grid.fit(&kept, row_len, &importance);
    let mut codes = compensation.codes(&weights, (&grid, &scales), mask.as_deref(), watch)?;
    let rounded = grid.nearest(&kept, row_len, &scales);
    let mut errors = output_errors(statistics, &weights, &codes, &scales);
    let alone_errors = output_errors(statistics, &weights, &rounded, &scales);
    let rows = codes.chunks_exact_mut(row_len).zip(rounded.chunks_exact(row_len));
    for ((error, alone), (codes, rounded)) in errors.iter_mut().zip(alone_errors).zip(rows) {
        if alone < *error {
            codes.copy_from_slice(rounded);
            *error = alone;
        }
    }
    let of_ours = errors.iter().sum::<f64>();
    // The plain rounding has scales of its own, which may suit a layer whose inputs say little.
    if of_nearest <= of_ours {
        return Ok(alone(nearest));
    }
    let data = packed(&plan, codes, &scales)?;
    Ok(QuantizedLayer {
        tensor: QuantizedTensor::new(plan, data, tensor)?,
        nearest_error: relative(of_nearest),
        output_error: relative(of_ours),
    })
}

fn in_f64(values: Vec<f32>) -> Vec<f64> {
    values.into_iter().map(f64::from).collect()
}

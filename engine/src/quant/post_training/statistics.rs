//! What a layer reads, summed over a calibration set: the second moments of its inputs and their largest magnitudes.

use std::cell::RefCell;
use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, TensorId};

use crate::models::{InputObserver, LayerInput};

/// Numbers in the windows of a convolution that are laid out at once, 64 MiB of f32.
const MAX_WINDOW_ELEMENTS: usize = 16 << 20;

/// Sums over all rows x that a matrix multiplies: pixels' windows for a convolution, tokens or images otherwise.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LayerStatistics {
    /// Inputs of the layer.
    pub num_inputs: usize,
    /// Rows seen.
    pub num_rows: u64,
    /// Σ xᵀx, (inputs, inputs) row-major.
    pub second_moments: Vec<f64>,
    /// Largest |x| of each input.
    pub largest: Vec<f32>,
}

impl LayerStatistics {
    /// Nothing seen yet.
    pub fn new(num_inputs: usize) -> Self {
        Self {
            num_inputs,
            num_rows: 0,
            second_moments: vec![0.0; num_inputs * num_inputs],
            largest: vec![0.0; num_inputs],
        }
    }

    /// Bytes that one takes.
    pub fn num_bytes(num_inputs: usize) -> u64 {
        (num_inputs as u64).saturating_mul(num_inputs as u64).saturating_mul(8)
    }

    fn add(&mut self, part: &Part) {
        self.num_rows += part.num_rows;
        self.second_moments.iter_mut().zip(&part.second_moments).for_each(|(sum, part)| *sum += f64::from(*part));
        self.largest.iter_mut().zip(&part.largest).for_each(|(most, part)| *most = most.max(*part));
    }
}

/// The same of one batch.
#[derive(Debug)]
struct Part {
    num_rows: u64,
    second_moments: Vec<f32>,
    largest: Vec<f32>,
}

impl Part {
    /// Of `rows`, (rows, inputs).
    fn of(rows: &Tensor) -> Result<Self> {
        let (num_rows, _) = rows.dims2()?;
        Ok(Self {
            num_rows: num_rows as u64,
            second_moments: rows.t()?.matmul(rows)?.flatten_all()?.to_vec1()?,
            largest: rows.abs()?.max(0)?.to_vec1()?,
        })
    }
}

/// Gathers statistics of the layers that are wanted, during forward passes.
#[derive(Debug)]
pub(crate) struct StatisticsObserver {
    layers: RefCell<BTreeMap<String, LayerStatistics>>,
    /// The input looked at last: query, key and value read the same one.
    last: RefCell<Option<(TensorId, Vec<Part>)>>,
}

impl StatisticsObserver {
    /// For the layers whose weights are called so, with their numbers of inputs.
    pub fn new(layers: impl IntoIterator<Item = (String, usize)>) -> Self {
        let layers = layers.into_iter().map(|(name, inputs)| (name, LayerStatistics::new(inputs))).collect();
        Self { layers: RefCell::new(layers), last: RefCell::default() }
    }

    /// What was seen, by the weights' names.
    pub fn into_statistics(self) -> BTreeMap<String, LayerStatistics> {
        self.layers.into_inner()
    }
}

impl InputObserver for StatisticsObserver {
    fn observe(&self, weight: &str, input: LayerInput<'_>) -> Result<()> {
        let mut layers = self.layers.borrow_mut();
        let Some(layer) = layers.get_mut(weight) else { return Ok(()) };
        let x = match input {
            LayerInput::Rows(x) | LayerInput::Images { x, .. } => x,
        };
        let mut last = self.last.borrow_mut();
        // A convolution's windows depend on more than the tensor.
        let is_known = matches!(input, LayerInput::Rows(_)) && last.as_ref().is_some_and(|(id, _)| *id == x.id());
        if !is_known {
            *last = Some((x.id(), parts(input)?));
        }
        for part in last.iter().flat_map(|(_, parts)| parts) {
            if part.largest.len() != layer.num_inputs {
                candle_core::bail!(
                    "calibrating {weight:?}: expected {} inputs, found {}",
                    layer.num_inputs,
                    part.largest.len()
                );
            }
            layer.add(part);
        }
        Ok(())
    }
}

fn parts(input: LayerInput<'_>) -> Result<Vec<Part>> {
    match input {
        LayerInput::Rows(x) => {
            let inputs = x.dim(candle_core::D::Minus1)?;
            Ok(vec![Part::of(&x.detach().to_dtype(DType::F32)?.reshape(((), inputs))?.contiguous()?)?])
        }
        LayerInput::Images { x, kernel, stride, padding } => {
            let (num_images, channels, height, width) = x.dims4()?;
            let pixels = x.detach().to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            let windows = Windows { channels, height, width, kernel, stride, padding };
            let per_part = (MAX_WINDOW_ELEMENTS / windows.num_elements().max(1)).clamp(1, num_images.max(1));
            let image = (channels * height * width).max(1);
            pixels.chunks(per_part * image).map(|images| Part::of(&windows.rows(images)?)).collect()
        }
    }
}

/// The windows that a convolution slides over an image.
struct Windows {
    channels: usize,
    height: usize,
    width: usize,
    kernel: (usize, usize),
    stride: usize,
    padding: usize,
}

impl Windows {
    fn out(&self) -> (usize, usize) {
        let along =
            |size: usize, kernel: usize| (size + 2 * self.padding + 1).saturating_sub(kernel).div_ceil(self.stride);
        (along(self.height, self.kernel.0), along(self.width, self.kernel.1))
    }

    fn taps(&self) -> usize {
        self.channels * self.kernel.0 * self.kernel.1
    }

    /// Numbers in the windows of an image.
    fn num_elements(&self) -> usize {
        let (rows, columns) = self.out();
        rows * columns * self.taps()
    }

    /// The windows of `images` as rows, in the order of a weight's numbers (channel, ky, kx).
    fn rows(&self, images: &[f32]) -> Result<Tensor> {
        let (out_height, out_width) = self.out();
        let mut values = Vec::new();
        for image in images.chunks_exact(self.channels * self.height * self.width) {
            for y in 0..out_height {
                for x in 0..out_width {
                    self.push_window(image, (y * self.stride, x * self.stride), &mut values);
                }
            }
        }
        Tensor::from_vec(values, ((), self.taps()), &Device::Cpu)
    }

    /// The window whose first pixel, padding counted, is at (`top`, `left`).
    fn push_window(&self, image: &[f32], (top, left): (usize, usize), values: &mut Vec<f32>) {
        for plane in image.chunks_exact(self.height * self.width) {
            for ky in 0..self.kernel.0 {
                let row = (top + ky).checked_sub(self.padding).filter(|row| *row < self.height);
                for kx in 0..self.kernel.1 {
                    let column = (left + kx).checked_sub(self.padding).filter(|column| *column < self.width);
                    values.push(row.zip(column).map_or(0.0, |(row, column)| plane[row * self.width + column]));
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::models::ops::conv2d::{Conv2dConfig, conv2d};
    use crate::models::ops::{Epilogue, check::wave};

    #[test]
    fn windows_times_weights_are_the_convolution() {
        for (stride, padding, kernel) in [(1, 1, 3), (2, 1, 3), (2, 0, 1), (1, 0, 2)] {
            let x = wave(&[2, 3, 5, 6], 1.0).unwrap().to_dtype(DType::F32).unwrap();
            let weight = wave(&[4, 3, kernel, kernel], 1.0).unwrap().to_dtype(DType::F32).unwrap();
            let config = Conv2dConfig { stride, padding, epilogue: Epilogue::Identity };
            let expected = conv2d(&x, &weight, None, config).unwrap();
            let windows = Windows { channels: 3, height: 5, width: 6, kernel: (kernel, kernel), stride, padding };
            let rows = windows.rows(&x.flatten_all().unwrap().to_vec1::<f32>().unwrap()).unwrap();
            let found = rows.matmul(&weight.flatten_from(1).unwrap().t().unwrap()).unwrap();
            let (n, out, height, width) = expected.dims4().unwrap();
            let found = found.reshape((n, height, width, out)).unwrap().permute((0, 3, 1, 2)).unwrap();
            let distance = (found - expected).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
            assert!(distance.to_scalar::<f32>().unwrap() < 1e-5, "stride {stride} padding {padding} kernel {kernel}");
        }
    }

    #[test]
    fn sums_over_batches_and_shares_inputs() {
        let observer = StatisticsObserver::new([("q".to_owned(), 2), ("k".to_owned(), 2)]);
        for batch in [vec![1.0_f32, 2.0, 3.0, -4.0], vec![0.5, 0.0]] {
            let x = Tensor::from_vec(batch, ((), 2), &Device::Cpu).unwrap();
            observer.observe("q", LayerInput::Rows(&x)).unwrap();
            observer.observe("k", LayerInput::Rows(&x)).unwrap();
            observer.observe("unwanted", LayerInput::Rows(&x)).unwrap();
        }
        let wide = Tensor::zeros((1, 3), DType::F32, &Device::Cpu).unwrap();
        assert!(observer.observe("q", LayerInput::Rows(&wide)).is_err());
        let layers = observer.into_statistics();
        assert_eq!((layers.len(), &layers["q"]), (2, &layers["k"]));
        assert_eq!((layers["q"].num_rows, layers["q"].largest.clone()), (3, vec![3.0, 4.0]));
        assert_eq!(layers["q"].second_moments, [10.25, -10.0, -10.0, 20.0]);
    }
}

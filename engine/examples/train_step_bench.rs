//! Times of a forward pass and of a full training step of the image models: our operations against candle's own.
//!
//! `cargo run -p foretrain-engine --release --example train_step_bench [seconds per case]`
//!
//! Both sides take turns in one run, so that a busy machine disturbs them alike: trust the ratios.
#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::time::{Duration, Instant};

use candle_core::{Device, Result, Tensor, Var};
use foretrain_engine::models::{DataShape, Forward, Mode, ModelPreset, Network, ParamStore, Params, initial_params};

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let seconds: f64 = std::env::args().nth(1).map_or(Ok(3.0), |text| text.parse())?;
    let mnist = DataShape::Images { channels: 1, height: 28, width: 28, num_classes: 10 };
    let cifar = DataShape::Images { channels: 3, height: 32, width: 32, num_classes: 10 };
    println!("{} threads; ms, median of runs within {seconds} s", rayon::current_num_threads());
    println!("model        batch | forward: ours  candle  ratio | step: ours  candle  ratio | images/s");
    for (preset, data, batch) in [
        (ModelPreset::MnistCnn, mnist, 64),
        (ModelPreset::MnistCnn, mnist, 256),
        (ModelPreset::ResNet20, cifar, 128),
        (ModelPreset::ResNet18, cifar, 32),
    ] {
        let network = Network::new(&preset.config(data)?)?;
        let case = Case::new(&network, data, batch)?;
        let ours = |params: &Params| -> Result<Tensor> {
            let pass = Forward::new(params, Mode::Train);
            network.forward(&pass, &case.x).map_err(candle_core::Error::wrap)
        };
        let theirs = |params: &Params| composed::logits(preset, params, &case.x);
        let difference = {
            let params = case.store.detached();
            (ours(&params)? - theirs(&params)?)?.abs()?.max_all()?.to_scalar::<f32>()?
        };
        let mut times: [Vec<Duration>; 4] = Default::default();
        let start = Instant::now();
        while times[3].len() < 3 || start.elapsed().as_secs_f64() < seconds {
            let params = case.store.detached();
            times[0].push(timed(|| ours(&params))?);
            times[1].push(timed(|| theirs(&params))?);
            times[2].push(timed(|| case.step(&ours))?);
            times[3].push(timed(|| case.step(&theirs))?);
        }
        let [a, b, c, d] = times.map(median_ms);
        let label = preset.label();
        let rate = batch as f64 / c * 1e3;
        println!(
            "{label:<12} {batch:>5} | {a:>13.2} {b:>7.2} {:>5.2}x | {c:>10.2} {d:>7.2} {:>5.2}x | {rate:>8.0}   (logits differ by {difference:.0e})",
            b / a,
            d / c
        );
    }
    Ok(())
}

/// The time of `work`, with what it returns dropped inside.
fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<Duration> {
    let start = Instant::now();
    drop(work()?);
    Ok(start.elapsed())
}

fn median_ms(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

struct Case {
    store: ParamStore,
    x: Tensor,
    targets: Tensor,
}

impl Case {
    fn new(network: &Network, data: DataShape, batch: usize) -> std::result::Result<Self, Box<dyn std::error::Error>> {
        let DataShape::Images { channels, height, width, num_classes } = data else {
            return Err("expected images".into());
        };
        let (weights, buffers) = initial_params(network, 1, &Device::Cpu)?;
        let store = ParamStore::new(weights, buffers, &Device::Cpu)?;
        let x = Tensor::randn(0_f32, 1.0, (batch, channels, height, width), &Device::Cpu)?;
        let targets: Vec<u32> = (0..batch).map(|i| (i % num_classes) as u32).collect();
        Ok(Self { store, x, targets: Tensor::from_vec(targets, batch, &Device::Cpu)? })
    }

    /// Forward, loss, backward; no optimizer.
    fn step(&self, logits: &impl Fn(&Params) -> Result<Tensor>) -> Result<Vec<Tensor>> {
        let params = self.store.tracked();
        let loss = candle_nn::loss::cross_entropy(&logits(&params)?, &self.targets)?;
        let grads = loss.backward()?;
        let gradient = |var: &Var| grads.get(var).cloned();
        Ok(self.store.vars().filter_map(|(_, var)| gradient(var)).collect())
    }
}

/// The same networks from candle's own operations.
mod composed {
    use candle_core::{Result, Tensor};
    use foretrain_engine::models::{ModelPreset, Params};

    pub fn logits(preset: ModelPreset, params: &Params, x: &Tensor) -> Result<Tensor> {
        if preset == ModelPreset::MnistCnn { cnn(params, x) } else { resnet(params, x) }
    }

    fn get<'a>(params: &'a Params, name: &str) -> Result<&'a Tensor> {
        params.get(name).map_err(candle_core::Error::wrap)
    }

    fn linear(params: &Params, name: &str, x: &Tensor) -> Result<Tensor> {
        x.matmul(&get(params, &format!("{name}.weight"))?.t()?)?.broadcast_add(get(params, &format!("{name}.bias"))?)
    }

    fn cnn(params: &Params, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for layer in 0..2 {
            let bias = get(params, &format!("conv.{layer}.bias"))?.reshape((1, (), 1, 1))?;
            let y = x.conv2d(get(params, &format!("conv.{layer}.weight"))?, 1, 1, 1, 1)?.broadcast_add(&bias)?;
            x = y.relu()?.max_pool2d(2)?;
        }
        let x = linear(params, "fc", &x.flatten_from(1)?)?.relu()?;
        linear(params, "classifier", &x)
    }

    fn conv_norm(params: &Params, name: &str, x: &Tensor, stride: usize) -> Result<Tensor> {
        let weight = get(params, &format!("{name}.convolution.weight"))?;
        let y = x.conv2d(weight, weight.dim(2)? / 2, stride, 1, 1)?;
        let mean = y.mean_keepdim((0, 2, 3))?;
        let centered = y.broadcast_sub(&mean)?;
        let var = centered.sqr()?.mean_keepdim((0, 2, 3))?;
        let per_channel = |part: &str| get(params, &format!("{name}.normalization.{part}"))?.reshape((1, (), 1, 1));
        let scale = per_channel("weight")?.div(&(var + 1e-5)?.sqrt()?)?;
        centered.broadcast_mul(&scale)?.broadcast_add(&per_channel("bias")?)
    }

    fn resnet(params: &Params, x: &Tensor) -> Result<Tensor> {
        let mut x = conv_norm(params, "resnet.embedder.embedder", x, 1)?.relu()?;
        for stage in 0.. {
            for layer in 0.. {
                let name = format!("resnet.encoder.stages.{stage}.layers.{layer}");
                if params.find(&format!("{name}.layer.0.convolution.weight")).is_none() {
                    if layer == 0 {
                        return linear(params, "classifier.1", &x.mean((2, 3))?);
                    }
                    break;
                }
                let stride = if stage > 0 && layer == 0 { 2 } else { 1 };
                let y = conv_norm(params, &format!("{name}.layer.0"), &x, stride)?.relu()?;
                let y = conv_norm(params, &format!("{name}.layer.1"), &y, 1)?;
                let shortcut = format!("{name}.shortcut");
                let has_shortcut = params.find(&format!("{shortcut}.convolution.weight")).is_some();
                let short = if has_shortcut { conv_norm(params, &shortcut, &x, stride)? } else { x };
                x = (y + short)?.relu()?;
            }
        }
        Ok(x)
    }
}

//! Times of a forward pass and of a full training step of the image models: our operations against candle's own.
//!
//! `cargo run -p foretrain-engine --release --example train_step_bench [seconds per case [model [ours]]]`
//! (`model`: a preset or `all`; `ours` leaves candle out.)
//!
//! Both sides take turns in one run, so that a busy machine disturbs them alike: trust the ratios. On Linux processor
//! time is shown beside wall time, summed over threads: it is what a busy machine disturbs least.
#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::time::Instant;

use candle_core::{Device, Result, Tensor, Var};
use foretrain_engine::models::{DataShape, Forward, Mode, ModelPreset, Network, ParamStore, Params, initial_params};

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let seconds: f64 = arguments.next().map_or(Ok(3.0), |text| text.parse())?;
    let model = arguments.next().unwrap_or_else(|| "all".to_owned());
    let with_candle = arguments.next().as_deref() != Some("ours");
    let mnist = DataShape::Images { channels: 1, height: 28, width: 28, num_classes: 10 };
    let cifar = DataShape::Images { channels: 3, height: 32, width: 32, num_classes: 10 };
    println!("{} threads; medians within {seconds} s a case; wall ms (processor ms)", rayon::current_num_threads());
    println!(
        "model        batch | forward: ours            candle         ratio | step: ours               candle         ratio | images/s"
    );
    for (preset, data, batch) in [
        (ModelPreset::MnistCnn, mnist, 64),
        (ModelPreset::MnistCnn, mnist, 256),
        (ModelPreset::ResNet20, cifar, 128),
        (ModelPreset::ResNet18, cifar, 32),
    ] {
        if model != "all" && model != preset.label() {
            continue;
        }
        let network = Network::new(&preset.config(data)?)?;
        let case = Case::new(&network, data, batch)?;
        let ours = |params: &Params| -> Result<Tensor> {
            let pass = Forward::new(params, Mode::Train);
            network.forward(&pass, &case.x).map_err(candle_core::Error::wrap)
        };
        let theirs = |params: &Params| composed::logits(preset, params, &case.x);
        let difference = if !with_candle {
            f32::NAN
        } else {
            let params = case.store.detached();
            (ours(&params)? - theirs(&params)?)?.abs()?.max_all()?.to_scalar::<f32>()?
        };
        let mut times: [Vec<Time>; 4] = Default::default();
        let start = Instant::now();
        while times[2].len() < 2 || start.elapsed().as_secs_f64() < seconds {
            let params = case.store.detached();
            times[0].push(timed(|| ours(&params))?);
            times[2].push(timed(|| case.step(&ours))?);
            if with_candle {
                times[1].push(timed(|| theirs(&params))?);
                times[3].push(timed(|| case.step(&theirs))?);
            }
        }
        let [a, b, c, d] = times.map(median);
        let label = preset.label();
        let rate = batch as f64 / c.wall * 1e3;
        let (forward, step) = (b.processor / a.processor, d.processor / c.processor);
        println!(
            "{label:<12} {batch:>5} | {a} {b} {forward:>5.1}x | {c} {d} {step:>5.1}x | {rate:>8.0}   (logits differ by {difference:.0e})",
        );
    }
    Ok(())
}

/// Milliseconds.
#[derive(Debug, Clone, Copy)]
struct Time {
    wall: f64,
    processor: f64,
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>9.2} ({:>9.2})", self.wall, self.processor)
    }
}

/// The time of `work`, with what it returns dropped inside.
fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<Time> {
    let (start, processor) = (Instant::now(), processor_ms());
    drop(work()?);
    Ok(Time { wall: start.elapsed().as_secs_f64() * 1e3, processor: processor_ms() - processor })
}

/// Processor time of all threads of this process so far; not a number where the system does not tell.
fn processor_ms() -> f64 {
    let thread = |entry: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(entry.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    };
    match std::fs::read_dir("/proc/self/task") {
        Ok(threads) => threads.filter_map(thread).sum::<f64>() / 1e6,
        Err(_) => f64::NAN,
    }
}

fn median(times: Vec<Time>) -> Time {
    let of = |part: fn(&Time) -> f64| {
        let mut values: Vec<f64> = times.iter().map(part).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    Time { wall: of(|time| time.wall), processor: of(|time| time.processor) }
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

//! Exponential moving average of the weights, and of the buffers that belong to them.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::OptimError;
use super::buffer::Buffer;
use super::kernels;
use crate::models::{ParamStore, Params};

/// Name of the update count in a saved state.
const COUNT: &str = "average.num_updates";

/// The average of the weights over the last steps, which a constant learning rate needs to be evaluated fairly.
///
/// Batch-norm statistics are averaged alike: those of the raw weights do not fit averaged ones.
///
/// Update `t` (from 0) uses the decay min(`decay`, (1 + t) / (10 + t)), so that the initial weights
/// are forgotten within some tens of steps (the rule of `ExponentialMovingAverage` in TensorFlow).
#[derive(Debug)]
pub struct WeightAverage {
    decay: f64,
    num_updates: u64,
    average: BTreeMap<String, (Vec<usize>, Buffer)>,
    /// `None` from a state without averaged buffers until the next update: the present ones stand in.
    buffers: BTreeMap<String, (Vec<usize>, Option<Buffer>)>,
}

impl WeightAverage {
    /// Starts at the present weights and buffers. Errors: [`OptimError::Setting`] unless 0 <= decay < 1.
    pub fn new(store: &ParamStore, decay: f64) -> Result<Self, OptimError> {
        if !(0.0..1.0).contains(&decay) {
            return Err(OptimError::Setting { key: "ema_decay", expected: "0 <= x < 1", found: decay });
        }
        let weight = |(name, var): (&str, &candle_core::Var)| {
            Ok((name.to_owned(), (var.dims().to_vec(), Buffer::load(&var.as_detached_tensor())?)))
        };
        let buffer = |(name, buffer): (&str, &Tensor)| {
            Ok((name.to_owned(), (buffer.dims().to_vec(), Some(Buffer::load(buffer)?))))
        };
        let average = store.vars().map(weight).collect::<Result<_, OptimError>>()?;
        let buffers = store.buffers().iter().map(buffer).collect::<Result<_, OptimError>>()?;
        Ok(Self { decay, num_updates: 0, average, buffers })
    }

    /// Takes in the weights and buffers after a step. Errors: [`OptimError::MissingWeight`].
    pub fn update(&mut self, store: &ParamStore) -> Result<(), OptimError> {
        let early = (1.0 + self.num_updates as f64) / (10.0 + self.num_updates as f64);
        let decay = self.decay.min(early);
        let missing = |name: &str| OptimError::MissingWeight { name: name.to_owned() };
        let vars: BTreeMap<_, _> = store.vars().collect();
        for (name, (_, average)) in &mut self.average {
            let weight = vars.get(name.as_str()).ok_or_else(|| missing(name))?;
            blend(average, weight.as_tensor(), decay)?;
        }
        for (name, (_, average)) in &mut self.buffers {
            let buffer = store.buffers().find(name).ok_or_else(|| missing(name))?;
            match average {
                Some(average) => blend(average, buffer, decay)?,
                None => *average = Some(Buffer::load(buffer)?),
            }
        }
        self.num_updates += 1;
        Ok(())
    }

    /// Averaged weights and buffers as they are now, where the weights are.
    pub fn params(&self, store: &ParamStore) -> Result<Params, OptimError> {
        let mut params = store.buffers().clone();
        for (name, shape, average) in self.all() {
            params.insert(name, average.read(shape)?);
        }
        Ok(params)
    }

    /// Everything that decides later updates, under names that begin with `average.`: a copy in the machine's
    /// memory.
    pub fn state(&self) -> Result<Params, OptimError> {
        let mut state = Params::default();
        state.insert(COUNT, Tensor::from_slice(&[self.num_updates as i64], 1, &Device::Cpu)?);
        for (name, shape, average) in self.all() {
            state.insert(saved_name(name), average.save(shape)?);
        }
        Ok(state)
    }

    /// Restores what [`Self::state`] gave, exactly; other names are ignored. Buffers may be absent, as in the states
    /// of earlier versions: then their average starts anew at the next update.
    /// Errors: [`OptimError::MissingState`], [`OptimError::Shape`]; nothing is changed then.
    pub fn load_state(&mut self, state: &Params) -> Result<(), OptimError> {
        let num_updates = super::state::count(state, COUNT)?;
        // Where the weights are: what is loaded may be read before the next update.
        let device = self.average.values().next().map_or(Device::Cpu, |(_, average)| average.device().clone());
        let load = |name: &str, shape: &[usize]| -> Result<Buffer, OptimError> {
            let saved = super::state::tensor(state, &saved_name(name), shape)?;
            Ok(Buffer::load(&saved.to_device(&device)?)?)
        };
        let mut average = BTreeMap::new();
        for (name, (shape, _)) in &self.average {
            average.insert(name.clone(), (shape.clone(), load(name, shape)?));
        }
        let mut buffers = BTreeMap::new();
        for (name, (shape, _)) in &self.buffers {
            let is_there = state.find(&saved_name(name)).is_some();
            let buffer = if is_there { Some(load(name, shape)?) } else { None };
            buffers.insert(name.clone(), (shape.clone(), buffer));
        }
        (self.average, self.buffers, self.num_updates) = (average, buffers, num_updates);
        Ok(())
    }

    /// Names, shapes and averages of weights and buffers.
    fn all(&self) -> impl Iterator<Item = (&str, &[usize], &Buffer)> {
        let weights = self.average.iter().map(|(name, (shape, average))| (name.as_str(), shape.as_slice(), average));
        let buffers = self.buffers.iter().filter_map(|(name, (shape, average))| {
            let average = average.as_ref()?;
            Some((name.as_str(), shape.as_slice(), average))
        });
        weights.chain(buffers)
    }
}

/// Name of an average in a saved state.
fn saved_name(name: &str) -> String {
    format!("average.{name}")
}

/// average = decay · average + (1 − decay) · value
fn blend(average: &mut Buffer, value: &Tensor, decay: f64) -> Result<(), OptimError> {
    average.follow(value)?;
    match average {
        Buffer::Cpu(average) => {
            let (keep, take) = (decay as f32, (1.0 - decay) as f32);
            kernels::with_f32(value, |value| {
                kernels::for_each_chunk(average, value, |a, v| *a = keep * *a + take * v);
            })?;
        }
        Buffer::Device(average) => *average = kernels::axpby(average, value, decay, 1.0 - decay)?,
    }
    Ok(())
}

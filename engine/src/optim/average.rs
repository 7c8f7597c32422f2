//! Exponential moving average of the weights.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::OptimError;
use super::kernels::{self, Buffer};
use crate::models::{ParamStore, Params};

/// Name of the update count in a saved state.
const COUNT: &str = "average.num_updates";

/// The average of the weights over the last steps, which a constant learning rate needs to be evaluated fairly.
///
/// Update `t` (from 0) uses the decay min(`decay`, (1 + t) / (10 + t)), so that the initial weights
/// are forgotten within some tens of steps (the rule of `ExponentialMovingAverage` in TensorFlow).
#[derive(Debug)]
pub struct WeightAverage {
    decay: f64,
    num_updates: u64,
    average: BTreeMap<String, (Vec<usize>, Buffer)>,
}

impl WeightAverage {
    /// Starts at the present weights. Errors: [`OptimError::Setting`] unless 0 <= decay < 1.
    pub fn new(store: &ParamStore, decay: f64) -> Result<Self, OptimError> {
        if !(0.0..1.0).contains(&decay) {
            return Err(OptimError::Setting { key: "ema_decay", expected: "0 <= x < 1", found: decay });
        }
        let copy = |(name, var): (&str, &candle_core::Var)| {
            Ok((name.to_owned(), (var.dims().to_vec(), Buffer::load(&var.as_detached_tensor())?)))
        };
        Ok(Self { decay, num_updates: 0, average: store.vars().map(copy).collect::<Result<_, OptimError>>()? })
    }

    /// Takes in the weights after a step. Errors: [`OptimError::MissingWeight`].
    pub fn update(&mut self, store: &ParamStore) -> Result<(), OptimError> {
        let early = (1.0 + self.num_updates as f64) / (10.0 + self.num_updates as f64);
        let decay = self.decay.min(early);
        let vars: BTreeMap<_, _> = store.vars().collect();
        for (name, (_, average)) in &mut self.average {
            let Some(weight) = vars.get(name.as_str()) else {
                return Err(OptimError::MissingWeight { name: name.clone() });
            };
            average.follow(weight)?;
            match average {
                Buffer::Cpu(average) => {
                    let (keep, take) = (decay as f32, (1.0 - decay) as f32);
                    kernels::with_f32(weight, |weight| {
                        kernels::for_each_chunk(average, weight, |a, w| *a = keep * *a + take * w);
                    })?;
                }
                Buffer::Device(average) => *average = kernels::axpby(average, weight, decay, 1.0 - decay)?,
            }
        }
        self.num_updates += 1;
        Ok(())
    }

    /// Averaged weights (a copy) with the present buffers of `store`.
    pub fn params(&self, store: &ParamStore) -> Result<Params, OptimError> {
        let mut params = store.buffers().clone();
        for (name, (shape, average)) in &self.average {
            params.insert(name.clone(), average.save(shape)?);
        }
        Ok(params)
    }

    /// Everything that decides later updates, under names that begin with `average.`: a copy.
    pub fn state(&self) -> Result<Params, OptimError> {
        let mut state = Params::default();
        state.insert(COUNT, Tensor::from_slice(&[self.num_updates as i64], 1, &Device::Cpu)?);
        for (name, (shape, average)) in &self.average {
            state.insert(format!("average.{name}"), average.save(shape)?);
        }
        Ok(state)
    }

    /// Restores what [`Self::state`] gave, exactly; other names are ignored.
    /// Errors: [`OptimError::MissingState`], [`OptimError::Shape`]; nothing is changed then.
    pub fn load_state(&mut self, state: &Params) -> Result<(), OptimError> {
        let num_updates = super::state::count(state, COUNT)?;
        let mut average = BTreeMap::new();
        for (name, (shape, _)) in &self.average {
            let buffer = super::state::buffer(state, &format!("average.{name}"), shape)?;
            average.insert(name.clone(), (shape.clone(), buffer));
        }
        (self.average, self.num_updates) = (average, num_updates);
        Ok(())
    }
}

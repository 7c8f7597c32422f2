//! A backward pass in which gradients of variables go past candle.
//!
//! candle adds each gradient that reaches a tensor to a cleared one: two new tensors and three passes over memory, which
//! for all weights of a large model take as long as its optimizer. Functions of ours leave the gradients of variables here
//! instead, as they are.

use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, TensorId};

/// Gradients by the variable they belong to.
type Reached = HashMap<TensorId, Tensor>;

thread_local! {
    /// What reached variables so far, while this thread is in [`backward`].
    static REACHED: RefCell<Option<Reached>> = const { RefCell::new(None) };
}

/// Gradients of the sum of `loss` (any shape) in all variables that it depends on: what `loss.backward()` gives.
/// Errors: candle's.
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    backward_onto(loss, [])
}

/// The same where gradients have `reached` some variables before: those of `loss` are added to them, in place where the
/// function allows it, as in one pass over both. Nobody else may read them any more.
pub fn backward_onto<'a>(loss: &Tensor, reached: impl IntoIterator<Item = (&'a Tensor, Tensor)>) -> Result<GradStore> {
    let before: Reached = reached.into_iter().map(|(variable, gradient)| (variable.id(), gradient)).collect();
    let collecting = Collecting { outer: REACHED.replace(Some(before)) };
    let mut store = loss.backward()?;
    let reached = REACHED.take().unwrap_or_default();
    drop(collecting);
    for (variable, gradient) in reached {
        let sum = match store.get_id(variable) {
            // From operations of candle's own.
            Some(other) => other.add(&gradient)?,
            None => gradient,
        };
        store.insert_id(variable, sum);
    }
    Ok(store)
}

/// Puts back what an outer pass of this thread has collected, also after an error or a panic.
struct Collecting {
    outer: Option<Reached>,
}

impl Drop for Collecting {
    fn drop(&mut self) {
        REACHED.set(self.outer.take());
    }
}

/// Leaves a gradient of `input` where [`backward`] finds it, when `input` is a variable; else it is to be handed to candle.
pub(super) fn leave(input: &Tensor, gradient: Option<Tensor>) -> Result<Option<Tensor>> {
    REACHED.with_borrow_mut(|reached| match (reached, gradient) {
        (Some(reached), Some(gradient)) if input.is_variable() => {
            let sum = match reached.remove(&input.id()) {
                Some(before) => before.add(&gradient)?,
                None => gradient,
            };
            reached.insert(input.id(), sum);
            Ok(None)
        }
        (_, gradient) => Ok(gradient),
    })
}

/// Takes what reached `variable` so far out, for a function that adds to it in place and returns the sum.
pub(super) fn take_reached(variable: &Tensor) -> Option<Tensor> {
    REACHED.with_borrow_mut(|reached| reached.as_mut()?.remove(&variable.id()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::{Precision, embedding, layer_norm};

    fn var(values: &[[f32; 2]]) -> Var {
        Var::from_vec(values.as_flattened().to_vec(), (values.len(), 2), &Device::Cpu).unwrap()
    }

    fn numbers(store: &GradStore, var: &Var) -> Vec<f32> {
        store.get(var).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn gradients_are_those_of_candle_bit_for_bit() {
        let table = var(&[[0.5, -2.0], [3.0, 0.25], [1.0, -1.5]]);
        let vector = |values: Vec<f32>| Var::from_vec(values, 2, &Device::Cpu).unwrap();
        let (scale, shift) = (vector(vec![1.5, -0.5]), vector(vec![0.25, 0.0]));
        let ids = Tensor::new(&[[2_u32, 0, 2]], &Device::Cpu).unwrap();
        // The table is read three times: by rows, as a head, and by an operation of candle's.
        let x = layer_norm(&embedding(&table, None, &ids).unwrap(), &scale, &shift, 1e-5).unwrap();
        let logits = crate::linear(&x, &table, Precision::F32).unwrap();
        let loss = (logits.sqr().unwrap().sum_all().unwrap() + table.sum_all().unwrap()).unwrap();
        let (ours, theirs) = (backward(&loss).unwrap(), loss.backward().unwrap());
        for var in [&table, &scale, &shift] {
            assert_eq!(numbers(&ours, var), numbers(&theirs, var));
        }
    }

    #[test]
    fn a_pass_goes_on_where_another_ended() {
        let table = var(&[[0.5, -2.0], [3.0, 0.25], [1.0, -1.5]]);
        let ids = Tensor::new(&[[2_u32, 0, 2]], &Device::Cpu).unwrap();
        let body = |table: &Tensor| embedding(table, None, &ids).unwrap();
        let head = |x: &Tensor, table: &Tensor| crate::linear(x, table, Precision::F32).unwrap().sqr().unwrap();
        let whole = backward(&head(&body(&table), &table).sum_all().unwrap()).unwrap();
        // The same in two passes: first the head's, then the body's by the gradient of what came out of it.
        let x = Var::from_tensor(&body(&table).detach()).unwrap();
        let mut of_head = backward(&head(&x, &table).sum_all().unwrap()).unwrap();
        let (of_table, of_x) = (of_head.remove(&table).unwrap(), of_head.remove(&x).unwrap());
        let rest = (body(&table) * of_x).unwrap().sum_all().unwrap();
        let both = backward_onto(&rest, [(table.as_tensor(), of_table)]).unwrap();
        assert_eq!(numbers(&both, &table), numbers(&whole, &table));
    }

    #[test]
    fn nothing_is_left_behind_by_a_pass_that_fails() {
        let table = var(&[[1.0, 2.0]]);
        let ids = Tensor::new(&[[0_u32]], &Device::Cpu).unwrap();
        let x = embedding(&table, None, &ids).unwrap();
        let failing =
            crate::function::record(&[&x], vec![0.0_f32; 2], (1, 1, 2), |_, _| candle_core::bail!("no gradient"));
        assert!(backward(&failing.unwrap()).is_err());
        assert_eq!(numbers(&x.backward().unwrap(), &table), [1.0, 1.0], "candle's own pass has all gradients");
    }
}

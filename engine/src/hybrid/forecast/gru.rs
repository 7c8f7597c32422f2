//! A gated recurrent cell with a head of two numbers, forward and backward, in plain `f64`.
//!
//! With inputs x, state h and weights stored by row:
//!
//! ```text
//! r, z = sigmoid(W x + U h + b)        reset and update gate
//! n    = tanh(W x + b + r * (U h))     candidate
//! h'   = (1 - z) n + z h
//! mean, ln_variance = V h' + c         the head
//! ```
//! Source: Cho et al. 2014, arXiv 1406.1078, with the reset gate after the product, as cuDNN has it.

use rand::Rng;
use rand::RngExt;

/// Inputs, units, and gates of all units.
pub(super) const INPUTS: usize = 12;
pub(super) const HIDDEN: usize = 8;
const GATES: usize = 3 * HIDDEN;

/// Rows of gates: one for each input, each unit, and the bias.
const ROWS: usize = INPUTS + HIDDEN + 1;
const HEAD: usize = ROWS * GATES;

/// Weights of the head: each output's units and bias.
const HEAD_WIDTH: usize = HIDDEN + 1;

/// Numbers that make a cell.
pub(super) const NUM_WEIGHTS: usize = HEAD + 2 * HEAD_WIDTH;

pub(super) type State = [f64; HIDDEN];
pub(super) type Inputs = [f64; INPUTS];

/// What a step forward leaves for the step backward.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trace {
    pub inputs: Inputs,
    before: State,
    reset: State,
    update: State,
    candidate: State,
    /// U h of the candidate.
    recalled: State,
    /// h'.
    pub after: State,
}

/// Weights small enough to keep the gates open, the head at 0: an untrained cell expects no change.
pub(super) fn initial_weights(rng: &mut impl Rng) -> Vec<f64> {
    let limit = (1.0 / HIDDEN as f64).sqrt();
    let mut weights: Vec<f64> = (0..NUM_WEIGHTS).map(|_| limit * (2.0 * rng.random::<f64>() - 1.0)).collect();
    weights[HEAD..].fill(0.0);
    weights
}

/// One step: the state after `inputs`, with all that led to it.
pub(super) fn forward(weights: &[f64], inputs: &Inputs, before: &State) -> Trace {
    let (rows, _) = weights.as_chunks::<GATES>();
    let mut from_inputs = rows[ROWS - 1];
    for (input, row) in inputs.iter().zip(rows) {
        add_scaled(&mut from_inputs, row, *input);
    }
    let mut from_state = [0.0; GATES];
    for (unit, row) in before.iter().zip(&rows[INPUTS..]) {
        add_scaled(&mut from_state, row, *unit);
    }
    let (mut reset, mut update, mut candidate, mut recalled, mut after) =
        ([0.0; HIDDEN], [0.0; HIDDEN], [0.0; HIDDEN], [0.0; HIDDEN], [0.0; HIDDEN]);
    for unit in 0..HIDDEN {
        let [r, z, n] = [unit, unit + HIDDEN, unit + 2 * HIDDEN];
        reset[unit] = sigmoid(from_inputs[r] + from_state[r]);
        update[unit] = sigmoid(from_inputs[z] + from_state[z]);
        recalled[unit] = from_state[n];
        candidate[unit] = (from_inputs[n] + reset[unit] * recalled[unit]).tanh();
        after[unit] = (1.0 - update[unit]) * candidate[unit] + update[unit] * before[unit];
    }
    Trace { inputs: *inputs, before: *before, reset, update, candidate, recalled, after }
}

/// Mean and log-variance that the head reads from a state.
pub(super) fn head(weights: &[f64], state: &State) -> [f64; 2] {
    let (rows, _) = weights[HEAD..].as_chunks::<HEAD_WIDTH>();
    [0, 1].map(|output| {
        let row = &rows[output];
        row[HIDDEN] + state.iter().zip(row).map(|(unit, weight)| unit * weight).sum::<f64>()
    })
}

/// Adds to `gradient` and `to_state` what the head's outputs, worth `to_outputs`, owe to weights and state.
pub(super) fn head_backward(
    weights: &[f64],
    state: &State,
    to_outputs: [f64; 2],
    gradient: &mut [f64],
    to_state: &mut State,
) {
    let (rows, _) = weights[HEAD..].as_chunks::<HEAD_WIDTH>();
    let (gradient_rows, _) = gradient[HEAD..].as_chunks_mut::<HEAD_WIDTH>();
    for ((row, gradient), to_output) in rows.iter().zip(gradient_rows).zip(to_outputs) {
        for unit in 0..HIDDEN {
            gradient[unit] += to_output * state[unit];
            to_state[unit] += to_output * row[unit];
        }
        gradient[HIDDEN] += to_output;
    }
}

/// Adds to `gradient` what a state worth `to_after` owes to the weights; returns what it owes to inputs and state.
pub(super) fn backward(weights: &[f64], trace: &Trace, to_after: &State, gradient: &mut [f64]) -> (Inputs, State) {
    let (mut to_inputs_gates, mut to_state_gates, mut to_before) = ([0.0; GATES], [0.0; GATES], [0.0; HIDDEN]);
    for unit in 0..HIDDEN {
        let Trace { reset, update, candidate, recalled, before, .. } = trace;
        let (reset, update, candidate) = (reset[unit], update[unit], candidate[unit]);
        let to_candidate = to_after[unit] * (1.0 - update) * (1.0 - candidate * candidate);
        let to_update = to_after[unit] * (before[unit] - candidate) * update * (1.0 - update);
        let to_reset = to_candidate * recalled[unit] * reset * (1.0 - reset);
        let [r, z, n] = [unit, unit + HIDDEN, unit + 2 * HIDDEN];
        (to_inputs_gates[r], to_state_gates[r]) = (to_reset, to_reset);
        (to_inputs_gates[z], to_state_gates[z]) = (to_update, to_update);
        (to_inputs_gates[n], to_state_gates[n]) = (to_candidate, to_candidate * reset);
        to_before[unit] = to_after[unit] * update;
    }
    let (rows, _) = weights.as_chunks::<GATES>();
    let (gradient_rows, _) = gradient.as_chunks_mut::<GATES>();
    let mut to_inputs = [0.0; INPUTS];
    for index in 0..INPUTS {
        to_inputs[index] = dot(&rows[index], &to_inputs_gates);
        add_scaled(&mut gradient_rows[index], &to_inputs_gates, trace.inputs[index]);
    }
    for unit in 0..HIDDEN {
        to_before[unit] += dot(&rows[INPUTS + unit], &to_state_gates);
        add_scaled(&mut gradient_rows[INPUTS + unit], &to_state_gates, trace.before[unit]);
    }
    add_scaled(&mut gradient_rows[ROWS - 1], &to_inputs_gates, 1.0);
    (to_inputs, to_before)
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn add_scaled(sum: &mut [f64; GATES], row: &[f64; GATES], factor: f64) {
    for (sum, value) in sum.iter_mut().zip(row) {
        *sum += factor * value;
    }
}

fn dot(a: &[f64; GATES], b: &[f64; GATES]) -> f64 {
    // Four sums side by side, so that the processor can add them at once.
    let (a, b) = (a.as_chunks::<4>().0, b.as_chunks::<4>().0);
    let mut sums = [0.0; 4];
    for (a, b) in a.iter().zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}

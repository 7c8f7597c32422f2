//! AdamW's arithmetic.

use super::simd::kernel;

/// Numbers of one step, the same for every weight of a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// β1, the share of the first moment that stays.
    pub beta1: f32,
    /// 1 − β1.
    pub rest1: f32,
    /// β2, the share of the second moment that stays.
    pub beta2: f32,
    /// 1 − β2.
    pub rest2: f32,
    /// Learning rate over 1 − β1^t.
    pub step_size: f32,
    /// 1 over the root of 1 − β2^t.
    pub inv_root: f32,
    /// ε.
    pub epsilon: f32,
    /// 1 − learning rate · weight decay, the share of the weight that stays.
    pub keep: f32,
}

kernel! {
    /// One pass over as many weights as there are gradients and moments, in place, on this thread.
    /// Source: Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2.
    pub fn adamw(w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], n: AdamWStep) {
        for ((w, &g), (m, v)) in w.iter_mut().zip(g).zip(m.iter_mut().zip(v.iter_mut())) {
            *m = n.beta1 * *m + n.rest1 * g;
            *v = n.beta2 * *v + n.rest2 * g * g;
            *w = n.keep * *w - n.step_size * *m / (v.sqrt() * n.inv_root + n.epsilon);
        }
    }
}

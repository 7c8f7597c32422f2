//! What a network's logits are from those of a teacher.

use candle_core::{Result, Tensor, bail};

/// T² · KL(softmax(teacher / T) ‖ softmax(student / T)) of each row: logits (n, v) of one shape, f32 or f64, to (n) in nats.
/// Differentiable in the student's logits alone; T² keeps the gradient's size whatever the temperature.
/// Errors: shapes that differ.
/// Source: Hinton et al. 2015, arXiv 1503.02531, section 2.
pub fn distillation_loss(student: &Tensor, teacher: &Tensor, temperature: f64) -> Result<Tensor> {
    if student.dims() != teacher.dims() {
        bail!("distillation_loss: expected logits of one shape, found {:?} and {:?}", student.dims(), teacher.dims());
    }
    let log_q = log_softmax(&(student / temperature)?)?;
    let log_p = log_softmax(&(teacher.detach() / temperature)?)?;
    (log_p.exp()? * (log_p - log_q)?)?.sum(1)? * (temperature * temperature)
}

fn log_softmax(logits: &Tensor) -> Result<Tensor> {
    let shifted = logits.broadcast_sub(&logits.max_keepdim(1)?.detach())?;
    shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(1)?.log()?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::check::{gradient_error, wave};

    #[test]
    fn two_classes_by_hand() {
        let teacher = Tensor::new(&[[0.0_f64, 0.0], [2.0, 0.0]], &Device::Cpu).unwrap();
        let student = Tensor::new(&[[3.0_f64.ln(), 0.0], [2.0, 0.0]], &Device::Cpu).unwrap();
        // 1/2 against 3/4 and 1/4: ln(2/3)/2 + ln(2)/2.
        let found = distillation_loss(&student, &teacher, 1.0).unwrap().to_vec1::<f64>().unwrap();
        let expected = 0.5 * ((2.0_f64 / 3.0).ln() + 2.0_f64.ln());
        assert!((found[0] - expected).abs() < 1e-12 && found[1].abs() < 1e-12, "{found:?}");
        assert!(distillation_loss(&student, &teacher.narrow(0, 0, 1).unwrap(), 1.0).is_err());
    }

    #[test]
    fn gradient_agrees_with_central_differences() {
        let teacher = (wave(&[4, 5], 2.0).unwrap() * -1.0).unwrap();
        for temperature in [1.0, 3.0] {
            let loss = |x: &[Tensor]| distillation_loss(&x[0], &teacher, temperature)?.sum_all();
            let error = gradient_error(&[wave(&[4, 5], 2.0).unwrap()], loss).unwrap();
            assert!(error < 1e-8, "{error}");
        }
    }
}

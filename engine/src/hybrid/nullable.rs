//! Floats in JSON, which has neither NaN nor infinity: `null` stands for both and is read back as NaN.
//!
//! A step that diverged must not make the file that tells of it unreadable. Where bits matter, see `exact`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// f32 or f64.
pub(crate) trait Float: Copy + Serialize + for<'de> Deserialize<'de> {
    /// What `null` is read as.
    const FROM_NULL: Self;
    /// Itself, unless it is NaN or infinite.
    fn finite(self) -> Option<Self>;
}

impl Float for f32 {
    const FROM_NULL: Self = f32::NAN;

    fn finite(self) -> Option<Self> {
        self.is_finite().then_some(self)
    }
}

impl Float for f64 {
    const FROM_NULL: Self = f64::NAN;

    fn finite(self) -> Option<Self> {
        self.is_finite().then_some(self)
    }
}

/// Use as `#[serde(with = "nullable")]`.
pub(crate) fn serialize<T: Float, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    value.finite().serialize(serializer)
}

pub(crate) fn deserialize<'de, T: Float, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(T::FROM_NULL))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Both {
        #[serde(with = "crate::hybrid::nullable")]
        short: f32,
        #[serde(with = "crate::hybrid::nullable")]
        long: f64,
    }

    fn through_json(short: f32, long: f64) -> Both {
        serde_json::from_str(&serde_json::to_string(&Both { short, long }).unwrap()).unwrap()
    }

    #[test]
    fn what_json_cannot_hold_comes_back_as_nan() {
        for (short, long) in [(f32::NAN, f64::NAN), (f32::INFINITY, f64::NEG_INFINITY)] {
            let back = through_json(short, long);
            assert!(back.short.is_nan() && back.long.is_nan());
        }
        let back = through_json(0.1, 0.1);
        assert_eq!((back.short, back.long), (0.1, 0.1));
    }
}

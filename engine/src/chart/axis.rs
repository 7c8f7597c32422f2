//! From values to px: the range of an axis, and where a value stands in it.

use super::description::{Axis, Scale};
use super::{ChartError, ticks};

/// Beyond this, differences of values overflow.
const MOST: f64 = 1e300;
/// Decimal logarithm of `MOST`: no logarithmic axis goes further, in either direction.
const MOST_DECADES: f64 = 300.0;
/// Lines that leave a plot need not be followed further than this, px.
const FAR_PX: f64 = 1e6;

/// Why a value has no place on an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placeless {
    /// NaN, or too large.
    NotANumber,
    /// Zero or below on a logarithmic axis.
    NotAboveZero,
}

/// `value` where equal lengths are equal differences: its decimal logarithm on a logarithmic scale.
pub(super) fn straightened(scale: Scale, value: f64) -> Result<f64, Placeless> {
    if value.is_nan() || value.abs() > MOST {
        return Err(Placeless::NotANumber);
    }
    match scale {
        Scale::Linear => Ok(value),
        Scale::Log if value > 1.0 / MOST => Ok(value.log10()),
        Scale::Log => Err(Placeless::NotAboveZero),
    }
}

/// Smallest and largest of some straightened values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Extent {
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Extent {
    /// Of no value.
    pub(super) const EMPTY: Self = Self { low: f64::INFINITY, high: f64::NEG_INFINITY };

    /// With `value`.
    pub(super) fn include(&mut self, value: f64) {
        self.low = self.low.min(value);
        self.high = self.high.max(value);
    }

    /// With all of `other`.
    pub(super) fn join(&mut self, other: Self) {
        self.low = self.low.min(other.low);
        self.high = self.high.max(other.high);
    }

    /// True without any value.
    pub(super) fn is_empty(self) -> bool {
        self.low > self.high
    }

    fn len(self) -> f64 {
        self.high - self.low
    }
}

/// Room that an axis leaves beside its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Margin {
    /// None: lines reach from edge to edge.
    None,
    /// A little, and down to zero where that is near: for y.
    Around,
    /// A little: for points over x.
    Narrow,
}

/// A range of straightened values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Range {
    pub(super) scale: Scale,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) is_whole: bool,
}

impl Range {
    /// The range that `axis` asks for, else that of `data` with a margin.
    pub(super) fn of(axis: &Axis, data: Extent, margin: Margin) -> Result<Self, ChartError> {
        let Axis { scale, is_whole, .. } = *axis;
        if let Some(asked) = axis.range {
            let (low, high) = asked_range(axis, asked)?;
            return Ok(Self { scale, low, high, is_whole });
        }
        let Extent { low, high } = if data.is_empty() { Extent { low: 0.0, high: 1.0 } } else { widened(data, axis) };
        let share = match margin {
            Margin::None => 0.0,
            Margin::Around => 0.06,
            Margin::Narrow => 0.03,
        };
        let by = (high - low) * share;
        let (mut padded_low, padded_high) = (low - by, high + by);
        if scale == Scale::Linear && margin == Margin::Around && low >= 0.0 && low < 0.2 * high {
            padded_low = 0.0;
        } else if scale == Scale::Linear && low >= 0.0 {
            padded_low = padded_low.max(0.0);
        }
        let reach = if scale == Scale::Log { MOST_DECADES } else { f64::INFINITY };
        Ok(Self { scale, low: padded_low.max(-reach), high: padded_high.min(reach), is_whole })
    }

    /// What is drawn of it.
    pub(super) fn contains(self, straightened: f64) -> bool {
        (self.low..=self.high).contains(&straightened)
    }

    /// Its ticks, at least `least_px` apart on `len_px`.
    pub(super) fn ticks(self, len_px: f64, least_px: f64) -> Vec<ticks::Tick> {
        let most = (len_px / least_px).floor().clamp(1.0, 40.0);
        match self.scale {
            Scale::Linear => ticks::linear(self.low, self.high, most, self.is_whole),
            Scale::Log => ticks::log(self.low, self.high, most),
        }
    }
}

fn asked_range(axis: &Axis, (low, high): (f64, f64)) -> Result<(f64, f64), ChartError> {
    let error = || ChartError::Range { axis: axis.label.clone(), low, high };
    let ends = (straightened(axis.scale, low), straightened(axis.scale, high));
    let (Ok(low), Ok(high)) = ends else { return Err(error()) };
    let is_wide = high - low > 1e-12 * low.abs().max(high.abs());
    if is_wide { Ok((low, high)) } else { Err(error()) }
}

/// `data`, made so wide that ticks in it differ: a single value stands in the middle.
fn widened(data: Extent, axis: &Axis) -> Extent {
    let size = data.low.abs().max(data.high.abs());
    if data.len() > 1e-9 * size && data.len() > 0.0 {
        return data;
    }
    let middle = data.low + data.len() / 2.0;
    let by = match axis.scale {
        Scale::Log => 0.5,
        Scale::Linear if axis.is_whole => (0.05 * size).max(1.0),
        Scale::Linear if size > 0.0 => 0.1 * size,
        Scale::Linear => 1.0,
    };
    Extent { low: middle - by, high: middle + by }
}

/// A range on its px.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ruler {
    pub(super) range: Range,
    /// Px of its lower end.
    pub(super) from_px: f64,
    /// Px of its upper end.
    pub(super) to_px: f64,
}

impl Ruler {
    /// Px of a value.
    pub(super) fn px(&self, value: f64) -> Result<f64, Placeless> {
        straightened(self.range.scale, value).map(|value| self.px_of_straightened(value))
    }

    /// Px of a straightened value.
    pub(super) fn px_of_straightened(&self, value: f64) -> f64 {
        let Range { low, high, .. } = self.range;
        let share = (value - low) / (high - low);
        (self.from_px + share * (self.to_px - self.from_px)).clamp(-FAR_PX, FAR_PX)
    }

    /// True for a px between its ends.
    pub(super) fn holds(&self, px: f64) -> bool {
        let (low, high) = (self.from_px.min(self.to_px), self.from_px.max(self.to_px));
        // Rounding may leave an end a hair outside.
        (low - 1e-6..=high + 1e-6).contains(&px)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(axis: &Axis, values: &[f64], margin: Margin) -> (f64, f64) {
        let mut extent = Extent::EMPTY;
        values.iter().filter_map(|value| straightened(axis.scale, *value).ok()).for_each(|value| extent.include(value));
        let range = Range::of(axis, extent, margin).expect("a range from data");
        (range.low, range.high)
    }

    #[test]
    fn data_gives_the_range() {
        let y = Axis::new("y", "");
        assert_eq!(range(&y, &[1.0, 10.0], Margin::None), (1.0, 10.0));
        assert_eq!(range(&y, &[0.5, 10.0], Margin::Around).0, 0.0, "zero is near");
        assert!(range(&y, &[9.0, 10.0], Margin::Around).0 > 8.0, "zero is far");
        assert_eq!(range(&y, &[], Margin::Around), (0.0, 1.06));
        assert_eq!(range(&y.clone().log(), &[1.0, 1000.0, 0.0, -5.0], Margin::None), (0.0, 3.0));
        assert_eq!(range(&y, &[f64::NAN, 1e305, 2.0, 3.0], Margin::None), (2.0, 3.0));
        assert_eq!(
            range(&y.clone().log(), &[7.3e-290, 6.6e282], Margin::Around),
            (-300.0, 300.0),
            "values have labels"
        );
    }

    #[test]
    fn a_single_value_stands_in_the_middle() {
        for value in [0.0, 5.0, -3.0, 1e200, 1e-200] {
            let (low, high) = range(&Axis::new("y", ""), &[value], Margin::None);
            assert!(low < value && value < high, "{value}: {low} to {high}");
        }
        assert_eq!(range(&Axis::new("x", "").whole(), &[7.0], Margin::None), (6.0, 8.0));
    }

    #[test]
    fn a_range_that_is_none_is_refused() {
        for axis in [
            Axis::new("x", "").between(2.0, 2.0),
            Axis::new("x", "").between(3.0, 2.0),
            Axis::new("x", "").between(f64::NAN, 2.0),
            Axis::new("x", "").between(0.0, 2.0).log(),
        ] {
            let error = Range::of(&axis, Extent::EMPTY, Margin::None);
            assert!(matches!(error, Err(ChartError::Range { .. })), "{axis:?}");
        }
    }

    #[test]
    fn values_have_their_place() {
        let range = Range { scale: Scale::Log, low: 0.0, high: 2.0, is_whole: false };
        let ruler = Ruler { range, from_px: 100.0, to_px: 0.0 };
        assert_eq!((ruler.px(1.0), ruler.px(10.0), ruler.px(100.0)), (Ok(100.0), Ok(50.0), Ok(0.0)));
        assert_eq!(ruler.px(0.0), Err(Placeless::NotAboveZero));
        assert_eq!(ruler.px(f64::INFINITY), Err(Placeless::NotANumber));
    }
}

//! A plot's data as a table: every value, not what was drawn.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::curve::{Band, Curve};

/// One row for each step that any curve has a value at; "NaN" and empty cells are kept apart. A
/// curve with bands of uncertainty adds their ends.
#[must_use]
pub fn csv_of(curves: &[Curve<'_>]) -> String {
    let mut columns = Vec::new();
    for curve in curves.iter().filter(|curve| curve.is_read_out) {
        let name = curve.name.to_lowercase();
        columns.push((name.clone(), curve.series));
        for Band { kind, low, high } in curve.bands.into_iter().flatten() {
            columns.push((format!("{name}_{}_low", kind.column()), low));
            columns.push((format!("{name}_{}_high", kind.column()), high));
        }
    }
    let mut rows: BTreeMap<u64, Vec<Option<f32>>> = BTreeMap::new();
    for (index, (_, series)) in columns.iter().enumerate() {
        for (x, y) in series.iter() {
            rows.entry(x as u64).or_insert_with(|| vec![None; columns.len()])[index] = Some(y);
        }
    }
    let mut text = String::from("step");
    for (name, _) in &columns {
        text.push(',');
        text.push_str(name);
    }
    text.push('\n');
    for (step, cells) in rows {
        // Writing into a string cannot fail.
        let _ = write!(text, "{step}");
        for cell in cells {
            match cell {
                Some(value) => {
                    let _ = write!(text, ",{value}");
                }
                None => text.push(','),
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plots::{BandKind, CurveStyle, Series};

    #[test]
    fn rows_line_up_by_step() {
        let (mut loss, mut forecast) = (Series::default(), Series::default());
        [(1.0, 2.5), (2.0, f32::NAN), (3.0, 0.5)].into_iter().for_each(|(x, y)| loss.push(x, y));
        forecast.push(2.0, 1.5);
        let color = egui::Color32::WHITE;
        let curves = [
            Curve::new("Measured", color, CurveStyle::Solid, &loss),
            Curve::new("Forecast", color, CurveStyle::Dashed, &forecast).with_band(
                BandKind::Calibrated,
                &forecast,
                &forecast,
            ),
        ];
        let expected =
            "step,measured,forecast,forecast_90_low,forecast_90_high\n1,2.5,,,\n2,NaN,1.5,1.5,1.5\n3,0.5,,,\n";
        assert_eq!(csv_of(&curves), expected);
    }
}

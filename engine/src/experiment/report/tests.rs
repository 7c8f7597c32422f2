#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::chart::{Theme, render_svg};
use crate::experiment::literal;

fn conditions() -> Conditions {
    Conditions {
        title: "A title".to_owned(),
        dataset: "glyphs, 10 to train on".to_owned(),
        model: "105866 parameters".to_owned(),
        machine: MachineRecord {
            processor: "a processor".to_owned(),
            num_cores: 2,
            memory_bytes: 16 << 30,
            system: "a system".to_owned(),
            vector_instructions: "AVX2".to_owned(),
            gpu: None,
        },
        num_threads: 2,
        num_side_by_side: 1,
        version: "0.1.0".to_owned(),
        commit: Some("0123abc".to_owned()),
        day: "2026-11-28".to_owned(),
        command: "foretrain experiment".to_owned(),
        seconds: 90.0,
    }
}

/// `report` through its JSON must give the same page and the same pictures; the page is returned.
#[track_caller]
fn check(report: &Report, name: &str, num_charts: usize) -> String {
    let json = serde_json::to_vec_pretty(report).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(value["experiment"], name);
    let read = Report::from_json(&json).unwrap();
    assert_eq!(read.markdown(), report.markdown());
    let (charts, again) = (report.charts(), read.charts());
    assert_eq!(charts.len(), num_charts);
    for ((file, chart), (file_again, chart_again)) in charts.iter().zip(&again) {
        assert_eq!(file, file_again);
        for theme in [Theme::Light, Theme::Dark] {
            assert_eq!(render_svg(chart, theme).unwrap(), render_svg(chart_again, theme).unwrap(), "{file}");
        }
    }
    let page = report.markdown();
    assert!(page.starts_with("# A title\n\n") && page.contains(&report.verdict()), "{page}");
    assert!(page.contains("\n## Conditions\n") && page.ends_with("- Command: `foretrain experiment`\n"), "{page}");
    for (file, _) in &charts {
        assert!(page.contains(&format!("]({file}.svg)")), "{page}");
    }
    assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
    page
}

#[test]
fn an_arena_is_made_from_its_json() {
    let report = Report::Arena(Measured { conditions: conditions(), result: literal::arena() });
    let page = check(&report, "arena", 2);
    assert!(page.contains("- Seeds: 1, 2; tuning seed 0\n") && page.contains("## Tuning"), "{page}");
}

#[test]
fn an_arena_of_the_first_version_reads_still() {
    let arena = Measured { conditions: conditions(), result: literal::arena() };
    let json = serde_json::to_vec(&arena).unwrap();
    let read = Report::from_json(&json).unwrap();
    assert_eq!(read.markdown(), Report::Arena(arena).markdown());
    Report::from_json(b"{\"experiment\":\"other\"}").unwrap_err();
    Report::from_json(b"[]").unwrap_err();
}

#[test]
fn corrections_are_made_from_their_json() {
    let report = Report::Corrections(Measured { conditions: conditions(), result: literal::corrections() });
    let page = check(&report, "corrections", 3);
    // Before: 0.5 and 0.25 nats; after: 0.125 twice, but for the sign.
    assert!(page.contains("| 0.55 | 50 | 2 | 0.3750 | 0.1250 | 66.7 | 75.0 | 0.812 (0.750) |"), "{page}");
    assert!(page.contains("| 0.55 | 50 | 75.0 | 4.2 | 2.5 | 3.0 | 0 | 0.1000 |"), "{page}");
}

#[test]
fn tiers_are_made_from_their_json() {
    let report = Report::Tiers(Measured { conditions: conditions(), result: literal::tiers() });
    let page = check(&report, "tiers", 2);
    assert!(page.contains("| vanilla | 10.0 ± 0.0 | 1.00 (1.00 to 1.00) |"), "{page}");
    assert!(page.contains("| aggressive | – | 1 | 1 |"), "{page}");
    assert!(page.contains("| conservative | auto | 50 | 0.6 | 15 | 0.25 |"), "{page}");
}

#[test]
fn a_ladder_is_made_from_its_json() {
    let report = Report::Ladder(Measured { conditions: conditions(), result: literal::ladder() });
    let page = check(&report, "ladder", 2);
    assert!(
        page.contains("| 1m | 1030000 | 12 of 40, out of time | 1.0000 | 1.0500 | +5.00 % | 2.00 | 30 |"),
        "{page}"
    );
    assert!(page.contains("| 11m | 10800000 | none: not opened | – |"), "{page}");
}

#[test]
fn growth_is_made_from_its_json() {
    let report = Report::Growth(Measured { conditions: conditions(), result: literal::growth() });
    let page = check(&report, "growth", 2);
    assert!(page.contains("- Seeds: 1, 2; tuning seed 0\n") && page.contains("## Tuning"), "{page}");
    assert!(page.contains("train 26 of 40 steps with 2 of 4 blocks, then go on with all"), "{page}");
    assert!(page.contains("| loss over that of full depth given the same time | 0.800 (0.800 to 0.800) |"), "{page}");
}

#[test]
fn quantization_is_made_from_its_json() {
    let report = Report::Quantization(Measured { conditions: conditions(), result: literal::quantization() });
    let page = check(&report, "quantization", 2);
    assert!(page.contains("| full precision | 32.00 | 97.00 ± 1.41 | 0.1500 ± 0.0707 | – | – | – |"), "{page}");
    assert!(page.contains("| int8, after training | 4.50 | 96.90 ± 1.41 | 0.5000 ± 0.0000 |"), "{page}");
    assert!(page.contains("| 3 | missed |") && page.contains("| 0.3 | met |"), "{page}");
}

#[test]
fn features_are_made_from_their_json() {
    let report = Report::Features(Measured { conditions: conditions(), result: literal::features() });
    let page = check(&report, "features", 2);
    assert!(page.contains("| 0.1500 ± 0.0707 | 1.0000 (1.0000 to 1.0000) | 2 of 2 | yes |"), "{page}");
    assert!(page.contains("| 1.1000 (1.1000 to 1.1000) | 0 of 2 | – | 0.275 ± 0.000 |"), "{page}");
    assert!(page.contains("| 200.0 MiB |"), "{page}");
}

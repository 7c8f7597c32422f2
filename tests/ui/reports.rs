//! Reports and races as the engine tells of them.

use std::sync::Arc;

use foretrain_engine::experiment::{CurvePoint, RaceView, Report};
use foretrain_engine::session::EventKind;
use serde_json::{Value, json};

use crate::scene;

fn point(step: u64, loss: f64) -> CurvePoint {
    CurvePoint { step, seconds: step as f64 * 0.04, cost: step as f64 * 0.6, loss }
}

pub fn curve(scale: f64) -> Vec<CurvePoint> {
    (1..=20).map(|index| point(index * 10, scale * (2.3 / f64::from(index as u32) + 0.1))).collect()
}

pub fn race() -> RaceView {
    let curves = ["hybrid", "vanilla, same steps", "vanilla, same time", "frozen"];
    let curves = curves.iter().enumerate().map(|(index, name)| ((*name).to_owned(), curve(1.0 + 0.1 * index as f64)));
    RaceView { what: "comparing: seed 1 of 1".to_owned(), curves: curves.collect() }
}

/// A report as its file holds it: so that older ones are read, too.
pub fn report(num_seeds: u64) -> Report {
    report_of(num_seeds, 76_800)
}

/// The same with as many example-backwards of the hybrid, of 307,200.
pub fn report_of(num_seeds: u64, hybrid_backwards: u64) -> Report {
    let config = scene::config();
    let recipe = json!({
        "hybrid": config.hybrid, "optimizer": config.optimizer, "schedule": config.schedule, "num_steps": 1200,
        "batch_size": 256, "num_micro_batches": 1, "sequence_length": 0, "augmentation": config.augmentation,
    });
    let names = ["hybrid", "vanilla, same steps", "vanilla, same time", "frozen"];
    let tuned = |name: &str| {
        let tried = |setting: &str, loss: Option<f64>| {
            json!({ "setting": setting, "learning_rate": 0.004, "batch_size": 256, "num_steps": 1200,
                "validation_loss": loss, "seconds": 30.0 })
        };
        json!({
            "contender": { "name": name, "what": format!("what {name} is"), "recipe": recipe },
            "tried": [tried("learning rate 0.004", Some(0.05)), tried("learning rate 0.008", None)],
            "seed": 7, "best": 0, "is_at_edge": true,
        })
    };
    let result = |index: u64, seed: u64| {
        let measured = json!({ "loss": 0.03 * (1.0 + 0.1 * index as f64) + 0.001 * seed as f64, "accuracy": 0.99,
            "num_examples": 4000, "loss_error": 0.001 });
        let share = json!({ "num_steps": 300, "seconds": 7.5 });
        json!({
            "seed": seed, "num_steps": 1200, "seconds": 30.0 + index as f64, "example_cost": 153_600.0,
            "example_backwards": if index == 0 { hybrid_backwards } else { 307_200 }, "examples_per_unit": 1,
            "validation": measured, "test": measured, "curve": curve(1.0 + 0.1 * index as f64),
            "phases": [share, share, share, share], "corrections": [], "divergences": [], "events": [], "costs": null,
            "has_diverged": false,
        })
    };
    let seeds: Vec<u64> = (1..=num_seeds).collect();
    let results: Vec<Vec<Value>> =
        (0..4).map(|index| seeds.iter().map(|seed| result(index, *seed)).collect()).collect();
    let machine = json!({ "processor": "a processor", "num_cores": 2, "memory_bytes": 1, "system": "Linux",
        "vector_instructions": "AVX2" });
    let value = json!({
        "conditions": { "title": "glyphs-cnn with AdamW: prediction against its controls", "dataset": "glyphs",
            "model": "105866 parameters", "machine": machine, "num_threads": 2, "version": "0.1.0", "commit": null,
            "day": "2026-01-01", "command": "foretrain experiment arena --preset glyphs", "seconds": 300.0 },
        "result": {
            "plan": { "recipe": recipe, "vanilla": config.hybrid, "rate_factors": [1.0, 2.0], "batch_divisors": [1, 2],
                "seeds": seeds, "tuning_seed": 7 },
            "tuned": names.map(tuned), "results": results,
        },
    });
    Report::from_json(value.to_string().as_bytes()).unwrap()
}

/// A corrections experiment whose one correction brought an error of 0.5 nats down to `after`.
pub fn corrections(after: f64) -> EventKind {
    let Report::Arena(arena) = report(1) else { panic!("an arena") };
    let mut result = json!(arena.result.results[0][0]);
    result["corrections"] = json!([[40, { "cosine": 0.9, "predicted_loss": 1.5, "corrected_loss": 1.0 + after,
        "actual_loss": 1.0, "slice_fraction": 0.25 }]]);
    let phase =
        |seconds: f64, median: f64| json!({ "num_steps": 100, "seconds": seconds, "median_step_seconds": median });
    result["phases"] = json!([phase(4.0, 0.04), phase(4.0, 0.04), phase(2.0, 0.02), phase(4.05, 0.0405)]);
    let recipe = json!(arena.result.plan.recipe);
    let value = json!({
        "experiment": "corrections",
        "conditions": arena.conditions,
        "result": {
            "plan": { "recipe": recipe, "confidence_thresholds": [0.55], "horizons": [50], "seeds": [7] },
            "settings": [{ "confidence_threshold": 0.55, "max_predict_steps": 50, "results": [result] }],
        },
    });
    let report = Report::from_json(value.to_string().as_bytes()).unwrap();
    EventKind::Experimented { report: Arc::new(report), folder: "/runs/experiments/two".into() }
}

pub fn experimented(num_seeds: u64) -> EventKind {
    EventKind::Experimented { report: Arc::new(report(num_seeds)), folder: "/runs/experiments/one".into() }
}

fn told(value: &Value) -> EventKind {
    let report = Report::from_json(value.to_string().as_bytes()).unwrap();
    EventKind::Experimented { report: Arc::new(report), folder: "/runs/experiments/three".into() }
}

/// Two tiers with one seed each: the second one saves three quarters of the example-backwards at 9% less loss.
pub fn tiers() -> EventKind {
    let Report::Arena(arena) = report(1) else { panic!("an arena") };
    let (vanilla, bold) = (json!(arena.result.results[1][0]), json!(arena.result.results[0][0]));
    let mut contenders = [json!(arena.result.tuned[1].contender), json!(arena.result.tuned[0].contender)];
    contenders[0]["name"] = json!("vanilla");
    contenders[0]["recipe"]["hybrid"]["strategy"] = json!("None");
    contenders[1]["name"] = json!("bold");
    told(&json!({
        "experiment": "tiers",
        "conditions": arena.conditions,
        "result": { "plan": { "tiers": contenders, "seeds": [1] }, "results": [[vanilla], [bold]] },
    }))
}

/// A ladder whose first rung kept its quality and whose second one had no memory.
pub fn ladder() -> EventKind {
    let Report::Arena(arena) = report(1) else { panic!("an arena") };
    let result = json!(arena.result.results[1][0]);
    let recipe = json!(arena.result.plan.recipe);
    let trained = json!({ "Trained": { "vanilla": result, "hybrid": result } });
    let no_memory = json!({ "NoMemory": { "needed_bytes": 8_589_934_592_u64, "budget_bytes": 4_294_967_296_u64,
        "budget_source": "the machine's" } });
    let rung = |size: &str, num_params: u64, outcome: Value| json!({ "size": size, "num_params": num_params, "num_micro_batches": 1, "outcome": outcome });
    told(&json!({
        "experiment": "ladder",
        "conditions": arena.conditions,
        "result": {
            "plan": { "sizes": ["P100K", "P1M"], "recipe": recipe, "vanilla": arena.result.plan.vanilla,
                "seconds_per_rung": 60.0, "loss_tolerance": 0.01, "max_examples": 100, "seed": 1 },
            "rungs": [rung("P100K", 105_866, trained), rung("P1M", 1_000_000, no_memory)],
        },
    }))
}

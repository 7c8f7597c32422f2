//! Types of token embedding and head on the export screen: asked for by keyboard, kept, sent, and what was tried shown.

use egui::Key;
use egui::accesskit::Role;
use egui_kittest::kittest::Queryable;
use foretrain::state::Screen;
use foretrain_engine::models::{DataShape, ModelPreset};
use foretrain_engine::quant::{
    ChosenTable, QuantScheme, StrayTables, TableChoice, TableReason, TableType, Tables, TriedTables,
};
use foretrain_engine::session::{Command, EventKind, QuantizeReport};

use crate::scene::Window;
use crate::screens::{IMAGES, click, commands, quantized, tell, window_with_model};

const TEXT: DataShape = DataShape::Text { vocab_size: 64 };

/// Opens the choice called `field` and goes down by `steps` types, by keyboard alone.
fn choose(harness: &mut Window, field: &str, steps: usize) {
    harness.get_by_role_and_label(Role::ComboBox, field).focus();
    harness.run_steps(2);
    harness.key_press(Key::Enter);
    harness.run_steps(4);
    // The first is what nobody asked for.
    for _ in 0..=steps {
        harness.key_press(Key::Tab);
        harness.run_steps(2);
    }
    harness.key_press(Key::Enter);
    harness.run_steps(4);
}

#[test]
fn only_tables_that_a_model_has_are_offered() {
    for (model, shape, has_embedding, has_head) in [
        (ModelPreset::MnistCnn, IMAGES, false, false),
        (ModelPreset::Gpt2Char, TEXT, true, false),
        (ModelPreset::Llama1100M, TEXT, true, true),
    ] {
        let mut harness = window_with_model(Screen::Ship, model, shape);
        // What was chosen for another model is not sent for one that has no such table.
        harness.state_mut().saved_mut().ship.tables = Tables::both(TableType::Int8);
        harness.run_steps(2);
        let is_there = |field: &str| harness.query_by_role_and_label(Role::ComboBox, field).is_some();
        assert_eq!((is_there("Embedding type"), is_there("Head type")), (has_embedding, has_head), "{model:?}");
        click(&mut harness, "Export for CPU");
        let sent = commands(&mut harness);
        let [Command::Export(_, export)] = sent.as_slice() else { panic!("expected Export, found {sent:?}") };
        let of = |has: bool| has.then_some(TableType::Int8);
        assert_eq!(export.options.tables, Tables { embedding: of(has_embedding), head: of(has_head) }, "{model:?}");
    }
}

#[test]
fn types_are_chosen_by_keyboard_and_sent() {
    let mut harness = window_with_model(Screen::Ship, ModelPreset::Llama1100M, TEXT);
    choose(&mut harness, "Embedding type", 1);
    choose(&mut harness, "Head type", 3);
    let asked = Tables { embedding: Some(TableType::Int3K), head: Some(TableType::Int8) };
    assert_eq!(harness.state().saved().ship.tables, asked);
    harness.get_by_label("int3-k: 3.4 bits per weight (Q3_K)");
    for (button, strays) in [
        ("Export for CPU", StrayTables::Refuse),
        ("Export for all targets", StrayTables::LeaveOut),
        ("Measure", StrayTables::LeaveOut),
    ] {
        click(&mut harness, button);
        let sent = commands(&mut harness);
        let (job, options) = match sent.as_slice() {
            [Command::Quantize(job, quantize), ..] => (*job, quantize.options),
            [Command::Export(job, export)] => (*job, export.options),
            _ => panic!("expected Quantize or Export, found {sent:?}"),
        };
        assert_eq!((options.tables, options.stray_tables), (asked, strays), "{button}");
        tell(&mut harness, job, EventKind::Cancelled);
    }
}

/// A report that says what was tried.
fn searched() -> QuantizeReport {
    let tried = |embedding: &str, head: &str, bytes, loss| TriedTables {
        embedding: embedding.to_owned(),
        head: Some(head.to_owned()),
        bytes,
        loss,
    };
    let chosen =
        |storage: &str| ChosenTable { storage: storage.to_owned(), reason: TableReason::Measured, fallback: None };
    let choice = TableChoice {
        embedding: chosen("Q3_K"),
        head: Some(chosen("Q4_K")),
        most_growth: TableChoice::MOST_GROWTH,
        tried: vec![
            tried("F16", "F16", 65_536, 2.0),
            tried("Q3_K", "F16", 39_808, 2.002),
            tried("F16", "Q3_K", 39_808, 2.03),
            tried("F16", "Q4_K", 41_984, 2.004),
            tried("Q3_K", "Q4_K", 16_256, 2.006),
        ],
    };
    QuantizeReport { tables: Some(choice), ..quantized(QuantScheme::Ternary) }
}

#[test]
fn what_was_tried_is_shown_with_the_verdict() {
    let mut harness = window_with_model(Screen::Ship, ModelPreset::Llama1100M, TEXT);
    click(&mut harness, "int8");
    click(&mut harness, "Measure");
    let sent = commands(&mut harness);
    let [Command::Quantize(job, _)] = sent.as_slice() else { panic!("expected one Quantize, found {sent:?}") };
    tell(&mut harness, *job, EventKind::Quantized(Box::new(searched())));
    for text in ["15.9 KiB", "7.4335", "+0.60%", "stored: the smallest within 1%", "+3.05%"] {
        harness.get_by_label(text);
    }
    assert_eq!(harness.query_all_by_label("grows by more than 1%").count(), 1);
}

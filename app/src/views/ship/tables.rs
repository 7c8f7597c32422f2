//! Token embedding and head of a language model: what they are to be stored as, and what was tried.

use egui::{RichText, Ui};
use foretrain_engine::export::ModelCard;
use foretrain_engine::quant::{TableChoice, TableType, Tables};

use crate::theme::{font, palette, space};
use crate::widgets::{combo_ui, field_ui, hint_ui, number, number_cell_ui};

/// What a predicted speed is.
pub(super) const ABOUT_SPEED: &str = "The memory's data sheet over the bytes that each token reads: no program is faster than \
     this, and most reach half to nine tenths of it";

/// Fields for those tables that this model has; image models have none.
pub(super) fn fields_ui(tables: &mut Tables, card: &ModelCard, is_mixed: bool, ui: &mut Ui) {
    if !card.is_language_model() {
        return;
    }
    let left = if is_mixed { "Automatic: within the budget" } else { "Automatic: measured where weights are ternary" };
    field_ui(ui, "Embedding type", |ui| type_ui("embedding-type", left, &mut tables.embedding, ui));
    let has_head = card.model.has_head_of_its_own();
    if has_head {
        field_ui(ui, "Head type", |ui| type_ui("head-type", left, &mut tables.head, ui));
    }
    let what = if has_head { "These two tables" } else { "This table, which is the head, too," };
    let automatic = if is_mixed {
        "Automatic shares the budget between all tensors, tables counted.".to_owned()
    } else {
        format!(
            "Automatic takes for ternary models the smallest type with which perplexity, as measured, grows by at most \
             {:.0}%; with int8 and int4 an embedding stays f16 and a head int8.",
            TableChoice::MOST_GROWTH * 100.0
        )
    };
    hint_ui(
        ui,
        &format!(
            "{what} can be much of a small file. {automatic} Where rows fill no blocks of 256, int3-k and int4-k are Q4_0. \
             With bf16 and f16 there is no choice: measuring, and exporting for all targets, goes without and says so."
        ),
    );
}

/// A choice of one table's type; `None` is called `left`.
fn type_ui(salt: &str, left: &'static str, table: &mut Option<TableType>, ui: &mut Ui) {
    combo_ui(ui, salt, table.map_or(left, in_full), |ui| {
        ui.selectable_value(table, None, left);
        for each in TableType::ALL {
            ui.selectable_value(table, Some(each), in_full(each));
        }
    });
}

fn in_full(table: TableType) -> &'static str {
    match table {
        TableType::Int3K => "int3-k: 3.4 bits per weight (Q3_K)",
        TableType::Int4K => "int4-k: 4.5 bits per weight (Q4_K)",
        TableType::Int8 => "int8: 8 to 8.5 bits per weight (Q8_0)",
        TableType::F16 => "f16: half precision, 16 bits per weight",
    }
}

/// What was measured with tables in several types; nothing where nothing was.
pub(super) fn tried_ui(choice: &TableChoice, label: &str, ui: &mut Ui) {
    if choice.tried.is_empty() {
        return;
    }
    let p = palette(ui);
    let most = format!("{:.0}%", choice.most_growth * 100.0);
    ui.add_space(space::XS);
    hint_ui(
        ui,
        &format!("Types tried, all other weights as stored. Perplexity may grow by {most} against the first row."),
    );
    egui::Grid::new(("tried-tables", label)).num_columns(6).spacing([space::LG, 2.0]).show(ui, |ui| {
        let small = |text: String| RichText::new(text).size(font::SMALL);
        let size = if choice.head.is_some() { "Size of both" } else { "Size" };
        for title in ["Embedding", "Head"] {
            ui.label(small(title.to_owned()).color(p.text_weak));
        }
        for title in [size, "Perplexity", "Grows by"] {
            number_cell_ui(ui, small(title.to_owned()).color(p.text_weak));
        }
        ui.end_row();
        for tried in &choice.tried {
            let growth = choice.growth(tried);
            let (color, verdict) = if choice.is_stored(tried) {
                (p.good, format!("stored: the smallest within {most}"))
            } else if growth <= choice.most_growth {
                (p.text, String::new())
            } else {
                // NaN, too.
                (p.warn, format!("grows by more than {most}"))
            };
            ui.label(small(tried.embedding.clone()).color(p.text_strong));
            ui.label(small(tried.head.clone().unwrap_or_else(|| "the embedding".to_owned())).color(p.text_strong));
            number_cell_ui(ui, small(number::bytes(tried.bytes)));
            number_cell_ui(ui, small(format!("{:.4}", tried.loss.exp())));
            number_cell_ui(ui, small(format!("{:+.2}%", growth * 100.0)).color(color));
            ui.label(small(verdict).color(color));
            ui.end_row();
        }
    });
}

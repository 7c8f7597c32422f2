//! What became of token embedding and head, with the figures that decided it.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::tables::{Table, TableType, Tables, has_table_choice, tables_of};
use super::{Container, QuantScheme, QuantizedWeights, TensorPlan};

/// Why a table is stored as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TableReason {
    /// The smallest that measuring allowed.
    Measured,
    /// Somebody asked for it.
    Asked,
    /// A budget for the whole file had room for it, by what its rounding costs.
    Budget,
    /// What is taken where nothing was measured.
    Unmeasured,
}

/// How a table is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChosenTable {
    /// The storage: "Q3_K".
    pub storage: String,
    /// Why this one.
    pub reason: TableReason,
    /// Why it is not the type that was asked for; `None` where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
}

/// A measurement with certain tables; all other weights as they are stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TriedTables {
    /// Storage of the token embedding.
    pub embedding: String,
    /// Storage of the head; `None` where the embedding is the head, too.
    pub head: Option<String>,
    /// Bytes of both.
    pub bytes: u64,
    /// Validation loss, nats per token.
    pub loss: f64,
}

/// How both tables are stored, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableChoice {
    /// The token embedding.
    pub embedding: ChosenTable,
    /// The head; `None` where the embedding is the head, too.
    pub head: Option<ChosenTable>,
    /// By which share perplexity may grow, against the first of `tried`.
    pub most_growth: f64,
    /// What was measured, tables in half precision first (but for one that was asked for); empty when nothing was.
    pub tried: Vec<TriedTables>,
}

impl TableChoice {
    /// By which share perplexity may grow against tables in half precision.
    pub const MOST_GROWTH: f64 = 0.01;

    /// The tables of `plans`, of which those that are not in `asked` were chosen for the reason in `left`, with what was
    /// measured for it; `None` where tables follow the scheme alone.
    #[must_use]
    pub fn new(
        plans: &[TensorPlan],
        (scheme, container): (QuantScheme, Container),
        asked: Tables,
        (left, tried): (TableReason, Vec<TriedTables>),
    ) -> Option<Self> {
        if asked == Tables::default() && !has_table_choice(plans, scheme, container) {
            return None;
        }
        let chosen = |wanted: Table| {
            let (_, plan) = tables_of(plans).find(|(table, _)| *table == wanted)?;
            let reason = if asked.of(wanted).is_some() { TableReason::Asked } else { left };
            let fallback = asked.of(wanted).and_then(|table| table.fallback(plan.rows().1, container));
            Some(ChosenTable { storage: plan.storage.label().to_owned(), reason, fallback })
        };
        let (embedding, head) = (chosen(Table::Embedding)?, chosen(Table::Head));
        Some(Self { embedding, head, most_growth: Self::MOST_GROWTH, tried })
    }

    /// [`Self::new`] of stored weights.
    #[must_use]
    pub fn of(weights: &QuantizedWeights, asked: Tables, left: (TableReason, Vec<TriedTables>)) -> Option<Self> {
        let plans: Vec<TensorPlan> = weights.tensors().iter().map(|tensor| tensor.plan.clone()).collect();
        Self::new(&plans, (weights.scheme(), weights.container()), asked, left)
    }

    /// By which share perplexity is higher than that of the first.
    #[must_use]
    pub fn growth(&self, tried: &TriedTables) -> f64 {
        let first = self.tried.first().map_or(f64::NAN, |first| first.loss);
        (tried.loss - first).exp_m1()
    }

    /// The measurement of what was chosen; `None` where nothing was measured.
    #[must_use]
    pub fn chosen(&self) -> Option<&TriedTables> {
        self.tried.iter().find(|tried| self.is_stored(tried))
    }

    /// True for the measurement of what was chosen.
    #[must_use]
    pub fn is_stored(&self, tried: &TriedTables) -> bool {
        let head = self.head.as_ref().map(|head| &head.storage);
        tried.embedding == self.embedding.storage && tried.head.as_ref() == head
    }

    /// In words, without full stops.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let most = self.most_growth * 100.0;
        let why = |reason| match reason {
            TableReason::Measured => {
                format!("the smallest type with which, as measured, perplexity grows by at most {most:.0}%")
            }
            TableReason::Asked => "as asked".to_owned(),
            TableReason::Budget => "by what its rounding costs, within the budget for all tensors".to_owned(),
            TableReason::Unmeasured => format!(
                "not measured: {} is taken unless data or somebody says otherwise",
                TableType::UNMEASURED.label()
            ),
        };
        let of = |name: &str, table: &ChosenTable| {
            let why = table.fallback.clone().unwrap_or_else(|| why(table.reason));
            format!("{name} in {}, {why}", table.storage)
        };
        let mut notes = match &self.head {
            Some(head) if *head == self.embedding => vec![of("Token embedding and head", head)],
            Some(head) => vec![of("Token embedding", &self.embedding), of("Head", head)],
            None => vec![of("Token embedding, which is the head, too,", &self.embedding)],
        };
        if let (Some(first), Some(chosen)) = (self.tried.first(), self.chosen()) {
            let head = first.head.as_ref().map_or_else(String::new, |head| format!(" and {head}"));
            notes.push(format!(
                "Perplexity {:.4} with tables in {}{head} became {:.4} ({:+.2}%)",
                first.loss.exp(),
                first.embedding,
                chosen.loss.exp(),
                self.growth(chosen) * 100.0
            ));
        }
        notes
    }

    /// All measurements as a table in Markdown; empty when there are none.
    #[must_use]
    pub fn markdown(&self) -> String {
        if self.tried.is_empty() {
            return String::new();
        }
        let mut text = format!(
            "Token embedding and head in several types, all else as stored, on the same tokens as above. Perplexity may grow \
             by {:.0}% against the first row.\n\n| embedding | head | bytes of both | perplexity | grows by | |\n\
             |---|---|---|---|---|---|\n",
            self.most_growth * 100.0
        );
        for tried in &self.tried {
            // Writing into a string cannot fail.
            let _ = writeln!(
                text,
                "| {} | {} | {} | {:.4} | {:+.2}% | {} |",
                tried.embedding,
                tried.head.as_deref().unwrap_or("the embedding"),
                tried.bytes,
                tried.loss.exp(),
                self.growth(tried) * 100.0,
                if self.is_stored(tried) { "stored" } else { "" }
            );
        }
        text
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::models::{Init, TensorKind, TensorSpec};
    use crate::quant::plan_with_tables;

    fn plans(scheme: QuantScheme, tables: Tables, has_head: bool) -> Vec<TensorPlan> {
        let spec = |name: &str, kind| TensorSpec {
            name: name.to_owned(),
            shape: vec![64, 256],
            kind,
            init: Init::Constant(0.0),
        };
        let mut specs = vec![spec("tokens", TensorKind::Embedding), spec("matrix", TensorKind::Matrix)];
        specs.extend(has_head.then(|| spec("head", TensorKind::Head)));
        plan_with_tables(&specs, scheme, Container::Gguf, tables)
    }

    #[test]
    fn notes_say_what_was_asked_measured_and_neither() {
        let ternary = (QuantScheme::TernaryBase3, Container::Gguf);
        let (none, small) = (Tables::default(), Tables::both(TableType::Int3K));
        let unmeasured = (TableReason::Unmeasured, Vec::new());
        let unmeasured = TableChoice::new(&plans(ternary.0, none, true), ternary, none, unmeasured).unwrap();
        let notes = unmeasured.notes().join("; ");
        assert!(notes.starts_with("Token embedding and head in Q8_0, not measured: int8"), "{notes}");
        assert_eq!((unmeasured.markdown(), unmeasured.chosen()), (String::new(), None));
        let budget = (TableReason::Budget, Vec::new());
        let asked = TableChoice::new(&plans(ternary.0, small, true), ternary, small, budget.clone()).unwrap();
        assert_eq!(asked.notes(), ["Token embedding and head in Q3_K, as asked"]);
        // Rows of 96.
        let mut narrow = plans(ternary.0, none, true);
        narrow.iter_mut().for_each(|plan| plan.shape = vec![64, 96]);
        let fallen = TableChoice::new(&narrow, ternary, small, budget.clone()).unwrap();
        assert!(fallen.notes()[0].ends_with("asked for as int3-k: rows of 96 fill no blocks of 256"), "{fallen:?}");
        let mixed = TableChoice::new(&plans(ternary.0, small, true), ternary, none, budget.clone()).unwrap();
        assert!(mixed.notes()[0].contains("Q3_K, by what its rounding costs, within the budget"), "{mixed:?}");
        let int8 = (QuantScheme::Int8, Container::Gguf);
        assert_eq!(TableChoice::new(&plans(int8.0, none, true), int8, none, budget), None);

        let tried =
            |embedding: &str, bytes, loss| TriedTables { embedding: embedding.to_owned(), head: None, bytes, loss };
        let rows = vec![tried("F16", 32_768, 2.0), tried("Q3_K", 7_040, 2.0_f64.ln_1p()), tried("Q4_K", 9_216, 2.005)];
        let table = Tables { embedding: Some(TableType::Int4K), head: None };
        let measured =
            TableChoice::new(&plans(ternary.0, table, false), ternary, none, (TableReason::Measured, rows)).unwrap();
        let notes = measured.notes();
        assert!(notes[0].contains("which is the head, too, in Q4_K, the smallest type"), "{notes:?}");
        assert_eq!(notes[1], "Perplexity 7.3891 with tables in F16 became 7.4261 (+0.50%)");
        let text = measured.markdown();
        assert!(text.contains("| Q4_K | the embedding | 9216 | 7.4261 | +0.50% | stored |"), "{text}");
        assert!(text.contains("| F16 | the embedding | 32768 | 7.3891 | +0.00% |  |"), "{text}");
    }
}

//! Token embedding and head of a language model: which storage they get where the matrices are integers.
//!
//! With ternary matrices these two tables take most of a small file, and how few bits they bear differs from model to
//! model: an export chooses by measuring, see `session`. Here are the candidates, and what is taken without a measurement.

use foretrain_edge::gguf::{Q4_0_BLOCK_LEN, Q4_K_BLOCK_LEN, Q8_0_BLOCK_LEN};
use serde::{Deserialize, Serialize};

use super::plan::{Container, Storage, TensorPlan, eight_bit, plan};
use super::{QuantError, QuantScheme};
use crate::models::{TensorKind, TensorSpec};

/// How a table is stored, where rows fill its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TableType {
    /// Q3_K: 3.4 bits per weight.
    Int3K,
    /// Q4_K: 4.5 bits per weight.
    Int4K,
    /// Q8_0, or INT8 in safetensors: 8 to 8.5 bits per weight.
    Int8,
    /// IEEE half precision.
    F16,
}

impl TableType {
    /// All of them, smallest first.
    pub const ALL: [Self; 4] = [Self::Int3K, Self::Int4K, Self::Int8, Self::F16];
    /// What ternary models get where nothing was asked or measured: the smallest that costs no model anything to speak of.
    pub const UNMEASURED: Self = Self::Int8;

    /// The name to show and to type.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Int3K => "int3-k",
            Self::Int4K => "int4-k",
            Self::Int8 => "int8",
            Self::F16 => "f16",
        }
    }

    /// The type called `label`.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.label() == label)
    }

    /// Why rows of `row_len` that are to be stored so are stored otherwise; `None` where they are not.
    pub(super) fn fallback(self, row_len: usize, container: Container) -> Option<String> {
        let block_len = match self {
            Self::Int3K | Self::Int4K => Q4_K_BLOCK_LEN,
            Self::Int8 => Q8_0_BLOCK_LEN,
            Self::F16 => return None,
        };
        // A whole block of each kind.
        let is_another = self.storage(row_len, container) != self.storage(Q4_K_BLOCK_LEN, container);
        is_another.then(|| format!("asked for as {}: rows of {row_len} fill no blocks of {block_len}", self.label()))
    }

    /// What this is for rows of `row_len`. Where they fill no blocks of 256, the smaller two are Q4_0; in GGUF, where they
    /// fill no blocks of 32 either, half precision.
    #[must_use]
    pub fn storage(self, row_len: usize, container: Container) -> Storage {
        let fills_blocks = row_len.is_multiple_of(Q4_K_BLOCK_LEN);
        match (self, container) {
            (Self::F16, _) | (_, Container::Transformers) => Storage::F16,
            (Self::Int8, Container::Safetensors | Container::Gguf) => eight_bit(row_len, container),
            (Self::Int3K, _) if fills_blocks => Storage::Q3KBlocks,
            (Self::Int4K, _) if fills_blocks => Storage::Q4KBlocks,
            (_, Container::Gguf) if !row_len.is_multiple_of(Q4_0_BLOCK_LEN) => Storage::F16,
            (Self::Int3K | Self::Int4K, Container::Safetensors | Container::Gguf) => Storage::Q4Blocks,
        }
    }
}

/// What somebody asks for: `None` leaves it to a measurement or, where the scheme has a rule of its own, to that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tables {
    /// The token embedding, which is the head, too, where a model has none of its own.
    pub embedding: Option<TableType>,
    /// The head.
    pub head: Option<TableType>,
}

/// What becomes of types that a way to store a model has no choice of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StrayTables {
    /// They are refused: somebody asked for them there.
    #[default]
    Refuse,
    /// They are left out, and a note says so: somebody asked for them in several ways to store a model at once.
    LeaveOut,
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// The token embedding.
    Embedding,
    /// The head.
    Head,
}

impl Tables {
    /// Both as `table`.
    #[must_use]
    pub fn both(table: TableType) -> Self {
        Self { embedding: Some(table), head: Some(table) }
    }

    /// What was asked for `table`.
    #[must_use]
    pub fn of(self, table: Table) -> Option<TableType> {
        match table {
            Table::Embedding => self.embedding,
            Table::Head => self.head,
        }
    }

    /// Both, with `table` where nothing was asked.
    #[must_use]
    pub fn or(self, table: TableType) -> Self {
        Self { embedding: self.embedding.or(Some(table)), head: self.head.or(Some(table)) }
    }

    /// Those that such a way to store a model has a choice of, with a note where `strays` were left out.
    /// Errors: [`QuantError::Setting`] for a type of a table that this model lacks, and for strays that are refused.
    pub fn fitting(
        self,
        strays: StrayTables,
        plans: &[TensorPlan],
        scheme: QuantScheme,
        container: Container,
    ) -> Result<(Self, Option<String>), QuantError> {
        let refuse = |setting, expected: &str, found: &str| {
            Err(QuantError::Setting { setting, expected: expected.to_owned(), found: found.to_owned() })
        };
        let (setting, types) = match (self.embedding, self.head) {
            (None, None) => return Ok((self, None)),
            (Some(_), None) => ("embedding type", "The type of the token embedding was"),
            (None, Some(_)) => ("head type", "The type of the head was"),
            (Some(_), Some(_)) => ("embedding type", "The types of token embedding and head were"),
        };
        if plans.iter().all(|plan| plan.kind != TensorKind::Embedding) {
            return refuse(setting, "a language model", "one that reads images");
        }
        if self.head.is_some() && plans.iter().all(|plan| plan.kind != TensorKind::Head) {
            return refuse("head type", "a model with a head of its own", "one whose token embedding is its head");
        }
        let (expected, found, why) = if scheme.is_float() {
            let why = format!("{} gives no table a type of its own", scheme.label());
            ("a scheme of integers, whose tables may differ from it, or no type", scheme.label(), why)
        } else if container == Container::Transformers {
            let found = "transformers, which reads these tables as f16";
            ("the format gguf or safetensors, or no type", found, "transformers reads these tables as f16".to_owned())
        } else {
            return Ok((self, None));
        };
        match strays {
            StrayTables::Refuse => refuse(setting, expected, found),
            StrayTables::LeaveOut => Ok((Self::default(), Some(format!("{types} left out: {why}")))),
        }
    }
}

/// True where tables are worth a choice: language models with ternary matrices, in a container that has one.
#[must_use]
pub fn has_table_choice(plans: &[TensorPlan], scheme: QuantScheme, container: Container) -> bool {
    let is_ternary = matches!(scheme, QuantScheme::Ternary | QuantScheme::TernaryBase3);
    let reads_text = plans.iter().any(|plan| plan.kind == TensorKind::Embedding);
    is_ternary && reads_text && container != Container::Transformers
}

/// [`plan()`] with tables as asked. Where there is a choice and nothing was asked, as [`TableType::UNMEASURED`].
#[must_use]
pub fn plan_with_tables(
    specs: &[TensorSpec],
    scheme: QuantScheme,
    container: Container,
    tables: Tables,
) -> Vec<TensorPlan> {
    let plans = plan(specs, scheme, container);
    let has_choice = has_table_choice(&plans, scheme, container);
    with_tables(plans, container, if has_choice { tables.or(TableType::UNMEASURED) } else { tables })
}

/// `plans`, in the network's order, with the tables that `tables` says something about stored so.
#[must_use]
pub fn with_tables(mut plans: Vec<TensorPlan>, container: Container, tables: Tables) -> Vec<TensorPlan> {
    for table in [Table::Embedding, Table::Head] {
        if let Some((plan, asked)) = table_plan(&mut plans, table).zip(tables.of(table)) {
            plan.storage = asked.storage(plan.rows().1, container);
        }
    }
    plans
}

/// The plan of `table`; `None` for a head that is the embedding, and for image models.
fn table_plan(plans: &mut [TensorPlan], table: Table) -> Option<&mut TensorPlan> {
    let reads_text = plans.iter().any(|plan| plan.kind == TensorKind::Embedding);
    let kind = match table {
        // The token embedding is the first, positions follow.
        Table::Embedding => TensorKind::Embedding,
        Table::Head => TensorKind::Head,
    };
    plans.iter_mut().find(|plan| reads_text && plan.kind == kind)
}

/// The tables of `plans`, embedding first.
pub fn tables_of(plans: &[TensorPlan]) -> impl Iterator<Item = (Table, &TensorPlan)> {
    let first_of = |kind| plans.iter().find(move |plan| plan.kind == kind);
    let embedding = first_of(TensorKind::Embedding);
    let head = first_of(TensorKind::Head).filter(|_| embedding.is_some());
    [(Table::Embedding, embedding), (Table::Head, head)].into_iter().filter_map(|(table, plan)| Some((table, plan?)))
}

/// Ways to store the table of `plan`, by rising bytes; half precision is the last.
#[must_use]
pub fn table_candidates(plan: &TensorPlan, container: Container) -> Vec<TensorPlan> {
    let mut candidates: Vec<TensorPlan> = Vec::new();
    for table in TableType::ALL {
        let candidate = TensorPlan { storage: table.storage(plan.rows().1, container), ..plan.clone() };
        // Where rows fill no blocks, two of them are one.
        if candidates.last().is_none_or(|last| last.num_bytes() < candidate.num_bytes()) {
            candidates.push(candidate);
        }
    }
    candidates
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::models::Init;

    fn specs(row_len: usize, has_head: bool) -> Vec<TensorSpec> {
        let spec = |name: &str, shape: &[usize], kind| TensorSpec {
            name: name.to_owned(),
            shape: shape.to_vec(),
            kind,
            init: Init::Constant(0.0),
        };
        let mut specs = vec![
            spec("tokens", &[65, row_len], TensorKind::Embedding),
            spec("positions", &[9, row_len], TensorKind::Embedding),
            spec("matrix", &[row_len, row_len], TensorKind::Matrix),
        ];
        specs.extend(has_head.then(|| spec("lm_head.weight", &[65, row_len], TensorKind::Head)));
        specs
    }

    #[track_caller]
    fn check(row_len: usize, scheme: QuantScheme, container: Container, tables: Tables, expected: &str) {
        let plans = plan_with_tables(&specs(row_len, true), scheme, container, tables);
        let found: Vec<_> = plans.iter().map(|plan| plan.storage.label()).collect();
        assert_eq!(found.join(" "), expected);
    }

    #[test]
    fn asked_types_fall_back_where_rows_fill_no_block() {
        let (small, none) = (Tables::both(TableType::Int3K), Tables::default());
        let (ternary, int8) = (QuantScheme::TernaryBase3, QuantScheme::Int8);
        check(256, ternary, Container::Gguf, small, "Q3_K F16 TQ1_0 Q3_K");
        check(256, ternary, Container::Safetensors, small, "Q3_K F16 TQ1_0 Q3_K");
        check(96, ternary, Container::Gguf, small, "Q4_0 F16 Q8_0 Q4_0");
        check(100, ternary, Container::Gguf, small, "F16 F16 F16 F16");
        check(100, ternary, Container::Safetensors, small, "Q4_0 F16 TQ1_0 Q4_0");
        check(256, ternary, Container::Gguf, none, "Q8_0 F16 TQ1_0 Q8_0");
        check(256, ternary, Container::Safetensors, none, "INT8 F16 TQ1_0 INT8");
        check(256, ternary, Container::Transformers, small, "F16 F16 BITNET F16");
        let mixed = Tables { embedding: Some(TableType::Int4K), head: None };
        check(256, ternary, Container::Gguf, mixed, "Q4_K F16 TQ1_0 Q8_0");
        // Other schemes keep their rule unless somebody asks.
        check(256, int8, Container::Gguf, none, "F16 F16 Q8_0 Q8_0");
        check(256, int8, Container::Gguf, mixed, "Q4_K F16 Q8_0 Q8_0");
    }

    #[test]
    fn candidates_rise_to_half_precision() {
        let of = |row_len, container| {
            let plans = plan(&specs(row_len, true), QuantScheme::Ternary, container);
            let found = tables_of(&plans).map(|(_, plan)| {
                let labels =
                    table_candidates(plan, container).iter().map(|plan| plan.storage.label()).collect::<Vec<_>>();
                labels.join(" ")
            });
            found.collect::<Vec<_>>().join("; ")
        };
        assert_eq!(of(256, Container::Gguf), "Q3_K Q4_K Q8_0 F16; Q3_K Q4_K Q8_0 F16");
        assert_eq!(of(256, Container::Safetensors), "Q3_K Q4_K INT8 F16; Q3_K Q4_K INT8 F16");
        assert_eq!(of(96, Container::Gguf), "Q4_0 Q8_0 F16; Q4_0 Q8_0 F16");
        assert_eq!(of(100, Container::Gguf), "F16; F16");
    }

    fn fitting(
        tables: Tables,
        strays: StrayTables,
        has_head: bool,
        (scheme, container): (QuantScheme, Container),
    ) -> Result<(Tables, Option<String>), QuantError> {
        tables.fitting(strays, &plan(&specs(256, has_head), scheme, container), scheme, container)
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let refusal = |tables: Tables, has_head, target| {
            fitting(tables, StrayTables::Refuse, has_head, target).unwrap_err().to_string()
        };
        let head = Tables { embedding: None, head: Some(TableType::Int8) };
        let embedding = Tables { embedding: Some(TableType::Int8), head: None };
        let ternary = (QuantScheme::Ternary, Container::Gguf);
        let text = refusal(head, false, ternary);
        assert!(text.contains("head type") && text.contains("token embedding is its head"), "{text}");
        let text = refusal(embedding, true, (QuantScheme::Bf16, Container::Gguf));
        assert!(text.contains("embedding type") && text.contains("bf16"), "{text}");
        assert!(refusal(embedding, true, (QuantScheme::Ternary, Container::Transformers)).contains("transformers"));
        let images = plan(&specs(256, true)[2..], ternary.0, ternary.1);
        for strays in [StrayTables::Refuse, StrayTables::LeaveOut] {
            // What the model lacks is refused either way.
            let of_images = |tables: Tables| tables.fitting(strays, &images, ternary.0, ternary.1);
            assert_eq!(of_images(Tables::default()).unwrap(), (Tables::default(), None));
            let refused = of_images(Tables::both(TableType::F16)).unwrap_err().to_string();
            assert!(refused.contains("a language model"), "{refused}");
            assert!(fitting(head, strays, false, (QuantScheme::Bf16, Container::Safetensors)).is_err());
            for (tables, has_head) in [(head, true), (embedding, false), (Tables::default(), false)] {
                assert_eq!(fitting(tables, strays, has_head, ternary).unwrap(), (tables, None));
            }
        }
    }

    #[test]
    fn strays_are_left_out_with_a_note() {
        let note = |tables, target| {
            let (left, note) = fitting(tables, StrayTables::LeaveOut, true, target).unwrap();
            assert_eq!(left, Tables::default());
            note.unwrap()
        };
        let head = Tables { embedding: None, head: Some(TableType::Int8) };
        let bf16 = (QuantScheme::Bf16, Container::Safetensors);
        assert_eq!(note(head, bf16), "The type of the head was left out: bf16 gives no table a type of its own");
        let both = note(Tables::both(TableType::Int4K), (QuantScheme::Ternary, Container::Transformers));
        assert_eq!(both, "The types of token embedding and head were left out: transformers reads these tables as f16");
    }

    #[test]
    fn labels_come_back() {
        for table in TableType::ALL {
            assert_eq!(TableType::from_label(table.label()), Some(table));
        }
        assert_eq!(TableType::from_label("q3_k"), None);
    }
}

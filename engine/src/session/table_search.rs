//! Which storage token embedding and head get: the smallest with which the model stays as good, found by measuring.
//!
//! Each table is tried by itself first, from small to large, the other one in half precision; then both together, because
//! two costs that are small may not be small at once. Figures are of the validation part, as those of the whole export.
//! The head is tried first: what it reads stays the same while the embedding does.

use std::collections::BTreeMap;

use super::SessionError;
use super::shipping::before_last;
use super::shrinking::Shrinking;
use crate::device::Watch;
use crate::evaluation::{BeforeLast, Evaluation};
use crate::models::Params;
use crate::quant::{self, QuantizedWeights, Table, TableChoice, TensorPlan, TriedTables, table_candidates, tables_of};

/// Chosen tables.
#[derive(Debug)]
pub(super) struct Found {
    /// The weights with the chosen tables among them.
    pub weights: QuantizedWeights,
    /// What was measured, in that order.
    pub tried: Vec<TriedTables>,
    /// Of `weights`.
    pub measured: Evaluation,
}

/// A search among `tables`, all else staying as `weights` has it.
pub(super) struct TableSearch<'a> {
    of: &'a Shrinking<'a>,
    /// Before quantization.
    trained: &'a Params,
    /// Ways to store each table that is to be chosen, by rising bytes.
    tables: Vec<Vec<TensorPlan>>,
    weights: QuantizedWeights,
    /// Which way of each table `weights` has.
    levels: Vec<usize>,
    /// Which of the tables the last block alone reads.
    head: Option<usize>,
    /// What that block reads with these ways of the other tables.
    read: Option<(Vec<usize>, BeforeLast)>,
    measured: BTreeMap<Vec<usize>, Evaluation>,
    tried: Vec<TriedTables>,
}

impl<'a> TableSearch<'a> {
    /// Among the tables of `weights` that nobody asked for; they are in half precision, the largest way to store them.
    pub fn new(of: &'a Shrinking<'a>, trained: &'a Params, weights: QuantizedWeights) -> Self {
        let plans: Vec<TensorPlan> = weights.tensors().iter().map(|tensor| tensor.plan.clone()).collect();
        let is_free = |table| of.options.tables.of(table).is_none();
        let free: Vec<_> = tables_of(&plans).filter(|(table, _)| is_free(*table)).collect();
        let head = free.iter().position(|(table, _)| *table == Table::Head);
        let tables: Vec<_> = free.into_iter().map(|(_, plan)| table_candidates(plan, of.container)).collect();
        let levels = last_levels(&tables);
        Self { of, trained, tables, weights, levels, head, read: None, measured: BTreeMap::new(), tried: Vec::new() }
    }

    /// Chooses. Errors: those of the forward pass, and a table that a way to store it cannot hold.
    pub fn run(mut self, watch: Watch<'_>) -> Result<Found, SessionError> {
        let last = last_levels(&self.tables);
        let wide = self.at(&last, watch)?.loss;
        // NaN is not within.
        let is_within = |found: Evaluation| (found.loss - wide).exp_m1() <= TableChoice::MOST_GROWTH;
        let alone = |table: usize, level: usize| {
            let mut levels = last.clone();
            levels[table] = level;
            levels
        };
        let mut levels = vec![0; last.len()];
        for table in (0..last.len()).rev() {
            while levels[table] < last[table] && !is_within(self.at(&alone(table, levels[table]), watch)?) {
                levels[table] += 1;
            }
        }
        while levels != last && !is_within(self.at(&levels, watch)?) {
            // The one that costs more by itself gets more bits.
            let mut worst: Option<(usize, f64)> = None;
            for table in (0..last.len()).filter(|table| levels[*table] < last[*table]) {
                let loss = self.at(&alone(table, levels[table]), watch)?.loss;
                if worst.is_none_or(|(_, most)| loss > most || loss.is_nan()) {
                    worst = Some((table, loss));
                }
            }
            let Some((table, _)) = worst else { break };
            levels[table] += 1;
        }
        let measured = self.at(&levels, watch)?;
        self.store(&levels)?;
        Ok(Found { weights: self.weights, tried: self.tried, measured })
    }

    /// The weights with tables stored in these ways, measured once.
    fn at(&mut self, levels: &[usize], watch: Watch<'_>) -> Result<Evaluation, SessionError> {
        if let Some(known) = self.measured.get(levels) {
            return Ok(*known);
        }
        self.store(levels)?;
        let found = self.measure(watch)?;
        let plans: Vec<TensorPlan> = self.weights.tensors().iter().map(|tensor| tensor.plan.clone()).collect();
        let mut tables = tables_of(&plans).map(|(_, plan)| plan.storage.label().to_owned());
        let bytes = tables_of(&plans).map(|(_, plan)| plan.num_bytes()).sum();
        let tried =
            TriedTables { embedding: tables.next().unwrap_or_default(), head: tables.next(), bytes, loss: found.loss };
        self.tried.push(tried);
        self.measured.insert(levels.to_vec(), found);
        Ok(found)
    }

    /// What the weights as they are now are worth.
    fn measure(&mut self, watch: Watch<'_>) -> Result<Evaluation, SessionError> {
        let Shrinking { checkpoint, network, dataset, max_examples, .. } = *self.of;
        let mut others = self.levels.clone();
        if let Some(head) = self.head.and_then(|head| others.get_mut(head)) {
            *head = 0;
        }
        let read = match self.read.take().filter(|(levels, _)| *levels == others) {
            Some((_, read)) => read,
            None => before_last(&checkpoint.card, network, &self.weights, dataset, max_examples, watch)?,
        };
        let found = read.evaluate(network, |block| Ok(self.weights.dequantized_for(block)?), watch);
        self.read = Some((others, read));
        found
    }

    /// Puts tables stored in these ways into the weights.
    fn store(&mut self, levels: &[usize]) -> Result<(), SessionError> {
        for (table, (current, wanted)) in self.levels.iter_mut().zip(levels).enumerate() {
            if current == wanted {
                continue;
            }
            let plans = self.tables.get(table).and_then(|ways| ways.get(*wanted)).cloned().into_iter().collect();
            let target = (self.of.scheme, self.of.container, plans);
            let stored = quant::quantize_planned(self.trained, target, self.of.options, crate::unwatched!())?;
            self.weights.replace(stored);
            *current = *wanted;
        }
        Ok(())
    }
}

/// Half precision for each.
fn last_levels(tables: &[Vec<TensorPlan>]) -> Vec<usize> {
    tables.iter().map(|ways| ways.len().saturating_sub(1)).collect()
}

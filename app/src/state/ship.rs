//! The quantize and export screen, as long as the window lives.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use foretrain_engine::quant::{PostTraining, QuantScheme, StrayTables, Tables};
use foretrain_engine::session::{
    Command, EventKind, ExportReport, JobId, ModelReport, QuantizeReport, TargetFit, fit_target,
};

use super::live::is_in_use;
use super::{HeldModel, Query};
use crate::views::ViewCtx;

/// What can be done with a model on the quantize and export screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShipAction {
    /// Measure what the chosen precisions cost.
    Measure,
    /// Export for the targets with these ids, one after the other, those without a choice of tables likewise or not.
    Export(Vec<String>, StrayTables),
}

/// What a measurement depends on, beside the model and the precision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeasureSettings {
    /// How weights find their codes.
    pub options: PostTraining,
    /// Most validation examples.
    pub max_examples: usize,
}

impl MeasureSettings {
    /// True when `other` would give the same figures in `scheme`: settings that do nothing there do not count.
    #[must_use]
    pub fn is_alike(&self, other: &Self, scheme: QuantScheme) -> bool {
        self.heeded(scheme) == other.heeded(scheme)
    }

    fn heeded(&self, scheme: QuantScheme) -> Self {
        let unset = PostTraining::default();
        let mut options = self.options;
        if scheme.is_float() {
            options = unset;
        }
        if !options.is_calibrated() {
            options.calibration_samples = unset.calibration_samples;
        }
        if !matches!(scheme, QuantScheme::Ternary | QuantScheme::TernaryBase3) {
            options.ternary_scales = unset.ternary_scales;
            options.ternary_rule = unset.ternary_rule;
        }
        Self { options, ..*self }
    }
}

/// What one precision costs: asked, and measured.
#[derive(Debug, Default)]
pub struct Measured {
    /// The last question, and the last answer.
    pub query: Query<Box<QuantizeReport>>,
    /// Settings of the last question.
    asked: Option<MeasureSettings>,
    /// Settings of the last answer.
    answered: Option<MeasureSettings>,
    /// The last question was cancelled.
    pub is_cancelled: bool,
}

impl Measured {
    /// Asks with `settings`; `command` as in [`Query::ask`].
    pub fn ask(&mut self, ctx: &ViewCtx<'_>, settings: MeasureSettings, command: impl FnOnce(JobId) -> Command) {
        self.is_cancelled = false;
        self.asked = Some(settings);
        self.query.ask(ctx, command);
    }

    /// Cancels the question under way.
    pub fn cancel(&mut self, ctx: &ViewCtx<'_>) {
        self.is_cancelled |= self.query.is_waiting();
        self.query.cancel(ctx);
    }

    /// Notes what came of the question: `kind` ended it.
    pub fn settle(&mut self, kind: &EventKind) {
        if matches!(kind, EventKind::Quantized(_)) {
            self.answered = self.asked;
        }
        self.is_cancelled = matches!(kind, EventKind::Cancelled);
    }

    /// The answer, and the settings that it was measured with.
    #[must_use]
    pub fn answer(&self) -> Option<(&QuantizeReport, MeasureSettings)> {
        Some((&**self.query.answer()?, self.answered?))
    }
}

/// State of the quantize and export screen.
#[derive(Debug, Default)]
pub struct ShipLive {
    /// The model that the answers are about.
    pub model: HeldModel,
    /// Quantized and measured, as far as that was asked for.
    pub measured: BTreeMap<QuantScheme, Measured>,
    /// An export.
    pub export: Query<Box<ExportReport>>,
    /// An export was begun, and what came of it was not seen yet.
    pub is_exporting: bool,
    /// Ids of the targets to export for next.
    pub queue: VecDeque<String>,
    /// What becomes of types of tables on targets that have no choice of them.
    pub stray_tables: StrayTables,
    /// Packages made of this model, the last one last.
    pub packages: Vec<Box<ExportReport>>,
    /// Targets that no package was made for, by name, with the reason.
    pub failures: Vec<(String, String)>,
    /// Targets whose export was cancelled while others waited, by name.
    pub cancelled: Vec<String>,
    /// Targets as they would take the model with certain types of its tables; see [`Self::fits`].
    fitted: Option<(Arc<ModelReport>, Tables, Vec<TargetFit>)>,
    /// The folder that was opened last, to tell if that failed.
    pub opened_folder: Option<crate::open_folder::Opening>,
    /// What was clicked and is not begun yet.
    pub wanted: Option<ShipAction>,
    /// What the user is asked about, because the model's run diverged.
    pub asked: Option<ShipAction>,
    /// The model that the user goes on with although its run diverged.
    pub accepted: Option<PathBuf>,
    /// Id of the target exported last.
    pub target: String,
    /// Name of the package to make, where it is not the proposed one.
    pub name: String,
    /// The package whose report was brought into view.
    pub reported: PathBuf,
    /// The failure of the last export was brought into view.
    pub is_failure_seen: bool,
}

impl ShipLive {
    /// True while answers are there or on their way.
    #[must_use]
    pub fn has_results(&self) -> bool {
        self.measured.values().any(|measured| is_in_use(&measured.query))
            || is_in_use(&self.export)
            || !self.packages.is_empty()
    }

    /// The targets of `model` with `tables` as they are chosen; worked out once for each choice, from shapes alone.
    pub fn fits(&mut self, model: &Arc<ModelReport>, tables: Tables) -> Vec<TargetFit> {
        if tables == Tables::default() {
            return model.targets.clone();
        }
        if let Some((_, _, fits)) =
            self.fitted.as_ref().filter(|(of, with, _)| Arc::ptr_eq(of, model) && *with == tables)
        {
            return fits.clone();
        }
        let with_tables =
            |fit: &TargetFit| fit_target(&model.card, fit.target.clone(), tables).unwrap_or_else(|_| fit.clone());
        let fits: Vec<TargetFit> = model.targets.iter().map(with_tables).collect();
        self.fitted = Some((Arc::clone(model), tables, fits.clone()));
        fits
    }

    /// True while something is quantized.
    #[must_use]
    pub fn is_measuring(&self) -> bool {
        self.measured.values().any(|measured| measured.query.is_waiting())
    }
}

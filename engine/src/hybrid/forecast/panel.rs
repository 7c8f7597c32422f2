//! The models side by side, and the one contract they keep.

use serde::{Deserialize, Serialize};

use super::ema_trend::EmaTrend;
use super::expected::{Expected, ForecastModel};
use super::observed::{Ahead, Observed, Plan};
use super::persistence::Persistence;
use super::power_law::PowerLaw;
use super::recurrent::Recurrent;

/// A model of ln(loss).
pub(super) trait Model {
    /// Takes in a measured step, its ln(loss) limited to what is believable.
    fn observe(&mut self, observed: &Observed, ln_loss: f64, plan: &Plan);

    /// Where ln(loss) stands; `None` before there is enough to forecast from.
    fn level(&self) -> Option<f64>;

    /// Appends what it expects of the steps after the last one observed, in order;
    /// nothing before there is enough to forecast from.
    fn look_ahead(&self, ahead: &Ahead<'_>, into: &mut Vec<Expected>);
}

/// All models, each fed the same.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Panel {
    persistence: Persistence,
    ema_trend: EmaTrend,
    power_law: PowerLaw,
    recurrent: Recurrent,
}

impl Panel {
    pub(super) fn observe(&mut self, observed: &Observed, ln_loss: f64, plan: &Plan) {
        let Self { persistence, ema_trend, power_law, recurrent } = self;
        let models: [&mut dyn Model; 4] = [persistence, ema_trend, power_law, recurrent];
        models.into_iter().for_each(|model| model.observe(observed, ln_loss, plan));
    }

    pub(super) fn model(&self, model: ForecastModel) -> &dyn Model {
        match model {
            ForecastModel::Persistence => &self.persistence,
            ForecastModel::EmaTrend => &self.ema_trend,
            ForecastModel::PowerLaw => &self.power_law,
            ForecastModel::Recurrent => &self.recurrent,
        }
    }
}

//! The loss forecaster: what the next steps' losses will be, how far that can be believed, and which of four
//! models says it best.
//!
//! ```text
//! Observed (a measured step) --> Panel: persistence, EMA trend, power law, recurrent
//!                              | every few steps each forecasts 1 to 75 steps ahead
//!                            Contest: scores what has come true, names the best of the last window
//!                            Calibration: widens or narrows intervals until 90% of losses fall inside
//!                              |
//! Forecaster: the best model's forecast stands while Predict lasts --> Outlook --> Forecast
//!                              | at each Correct step
//!                            ResidualStore: what it missed, and whether that leans to one side
//! ```
//!
//! Invariants: everything works on ln(loss), because a batch's loss scatters by a factor and not by an amount; a
//! forecast knows of the future only what is decided beforehand (the learning rate's schedule, the phase); state
//! saves and restores bit for bit.

mod calibration;
mod contest;
mod ema_trend;
mod evaluation;
mod expected;
mod forecaster;
mod gru;
mod member;
mod observed;
mod panel;
mod persistence;
mod power_law;
mod recurrent;
mod reliability;
mod residuals;
mod rollout;
mod scatter;

pub use evaluation::{BucketScore, Evaluation, RecordedStep, replay};
pub use expected::{Bucket, ForecastModel};
pub use reliability::{ReliabilityPoint, reliability};

pub(super) use forecaster::{Excess, Forecaster, push_within};
pub(super) use observed::{Observed, Plan, Rates};

//! History to points to drawing.
//!
//! Invariants: downsampling keeps each bucket's extremes; a value that is not a number breaks the
//! line and leaves a mark; forecasts are their own dashed curves, never mixed with measurements;
//! a frame's work grows with the plot's width, not with the run's length.

mod compare_series;
mod csv;
mod curve;
mod export;
mod kind;
mod legend;
mod phase_strip;
mod plot_card;
mod reliability;
mod report;
mod report_tables;
mod run_chart;
mod run_series;
mod series;
mod zoom;

pub use compare_series::CompareSeries;
pub use csv::csv_of;
pub use curve::{Band, BandKind, Curve, CurveStyle};
pub use export::{ExportSlot, export_csv, export_png, export_table};
pub use kind::{PlotKind, curves_of};
pub use phase_strip::{PhaseTrack, StripView, phase_strip_room_ui, phase_strip_ui};
pub use plot_card::{PlotAnswer, PlotView, Readout, plot_card_ui};
pub use reliability::Reliability;
pub use report::{ContenderRow, Figure, RaceCurve, ShownReport, Tuning, corrections_of, race_curves};
pub use report_tables::FigureTable;
pub use run_chart::{ChartView, run_chart};
pub use run_series::{RunSeries, SeriesKey};
pub use series::{Drawn, Run, Series, Span};

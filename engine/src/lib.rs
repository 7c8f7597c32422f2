//! Foretrain's engine: data, models, the hybrid predictive trainer, quantization and export.
//!
//! Rooms, from the public face down (a room uses only rooms below it):
//! `session -> bench, experiment, import -> export -> hybrid, offload, evaluation -> models, data, optim, memory -> quant -> device -> edge, ternary`;
//! `chart` stands beside them and uses none.
//! No room names the window; only `session` starts threads, and `offload` two for as long as a step
//! (and `bench` the one that reads from another program).

pub mod bench;
pub mod chart;
pub mod data;
pub mod device;
pub mod evaluation;
pub mod experiment;
pub mod export;
pub mod hybrid;
pub mod import;
pub mod memory;
pub mod models;
pub mod offload;
pub mod optim;
pub mod quant;
pub mod session;

//! What the machine gives: compute devices, threads, seeds, cancellation, gauges, safe files.
//!
//! Invariants: the only room that asks the operating system about memory, processors and GPUs;
//! every random number of the engine comes from [`seed`]; every file that must survive a crash is
//! written by [`atomic_file`].

pub mod atomic_file;
mod cancel;
mod compute;
mod cuda;
mod disk;
mod gauges;
mod lanes;
mod library;
mod machine;
mod panic_text;
mod placement;
mod progress;
pub mod seed;

pub use cancel::CancelFlag;
pub use compute::{ComputeDevice, ComputeError, compute_pool, observed_pool, resolved_num_threads};
pub use cuda::{Gpu, GpuError, gpus, has_cuda, start_gpu, usable_gpu, usable_gpus};
pub use disk::{existing_folder, free_disk_bytes, is_on_disk};
pub use gauges::{GaugeReading, Gauges, GpuReading, process_cpu_seconds, process_memory_bytes, system_memory_bytes};
pub use lanes::Lanes;
pub use machine::MachineRecord;
pub use panic_text::panic_text;
pub use placement::{GpuBudget, Placement};
pub use progress::{Cancelled, Progress, Watch};

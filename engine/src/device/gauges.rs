//! Memory and load of the process, the machine and its GPUs.

use serde::{Deserialize, Serialize};

/// One GPU, as its driver reports it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuReading {
    /// Product name.
    pub name: String,
    /// Memory in use by all programs, bytes.
    pub used_bytes: u64,
    /// Memory in all, bytes.
    pub total_bytes: u64,
    /// Share of the last second with work, 0 to 1.
    pub load: f32,
}

/// What the gauges show.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct GaugeReading {
    /// Resident memory of this process, bytes.
    pub process_bytes: u64,
    /// Highest resident memory of this process so far, bytes.
    pub process_peak_bytes: u64,
    /// Memory of the machine in use, bytes.
    pub system_used_bytes: u64,
    /// Memory of the machine, bytes.
    pub system_total_bytes: u64,
    /// Load of all cores, 0 to 1.
    pub cpu_load: f32,
    /// GPUs; empty without any (or without NVIDIA's driver library).
    pub gpus: Vec<GpuReading>,
}

/// Reads them.
pub struct Gauges {
    system: Option<sysinfo::System>,
    pid: Option<sysinfo::Pid>,
    nvml: Option<nvml_wrapper::Nvml>,
    peak_bytes: u64,
}

impl std::fmt::Debug for Gauges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gauges").field("has_nvml", &self.nvml.is_some()).finish_non_exhaustive()
    }
}

impl Default for Gauges {
    fn default() -> Self {
        Self {
            system: sysinfo::System::new().ok(),
            pid: sysinfo::get_current_pid().ok(),
            nvml: nvml_wrapper::Nvml::init().ok(),
            peak_bytes: 0,
        }
    }
}

impl Gauges {
    /// Reads all gauges; takes about a millisecond.
    pub fn read(&mut self) -> GaugeReading {
        let mut reading = GaugeReading {
            process_peak_bytes: kernel_peak_bytes().unwrap_or(0),
            gpus: self.nvml.as_ref().map(read_gpus).unwrap_or_default(),
            ..GaugeReading::default()
        };
        if let Some(system) = &mut self.system {
            system.refresh_memory();
            system.refresh_cpu_usage();
            if let Some(pid) = self.pid {
                system.refresh_processes(sysinfo::ProcessesToUpdate::Some(&[pid]), false);
                reading.process_bytes = system.process(pid).map_or(0, sysinfo::Process::memory);
            }
            reading.system_used_bytes = system.used_memory();
            reading.system_total_bytes = system.total_memory();
            reading.cpu_load = system.global_cpu_usage() / 100.0;
        }
        self.peak_bytes = self.peak_bytes.max(reading.process_bytes).max(reading.process_peak_bytes);
        reading.process_peak_bytes = self.peak_bytes;
        reading
    }
}

/// Resident memory of this process, bytes; `None` where the system does not tell.
#[must_use]
pub fn process_memory_bytes() -> Option<u64> {
    let (mut system, pid) = (sysinfo::System::new().ok()?, sysinfo::get_current_pid().ok()?);
    system.refresh_processes(sysinfo::ProcessesToUpdate::Some(&[pid]), false);
    system.process(pid).map(sysinfo::Process::memory)
}

/// Processor time of all threads of this process so far, seconds, to about a hundredth; `None` where the system does not
/// tell.
#[must_use]
pub fn process_cpu_seconds() -> Option<f64> {
    let (mut system, pid) = (sysinfo::System::new().ok()?, sysinfo::get_current_pid().ok()?);
    system.refresh_processes(sysinfo::ProcessesToUpdate::Some(&[pid]), false);
    system.process(pid).map(|process| process.accumulated_cpu_time() as f64 / 1e3)
}

/// Memory of this machine, bytes; `None` where the system does not tell.
#[must_use]
pub fn system_memory_bytes() -> Option<u64> {
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_memory();
    Some(system.total_memory())
}

/// Peak resident memory by the Linux kernel's own count, which misses no spike between two readings.
fn kernel_peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// GPUs that do not answer are left out.
fn read_gpus(nvml: &nvml_wrapper::Nvml) -> Vec<GpuReading> {
    let count = nvml.device_count().unwrap_or(0);
    let read = |index| {
        let gpu = nvml.device_by_index(index).ok()?;
        let memory = gpu.memory_info().ok()?;
        Some(GpuReading {
            name: gpu.name().unwrap_or_else(|_| format!("GPU {index}")),
            used_bytes: memory.used,
            total_bytes: memory.total,
            load: gpu.utilization_rates().map_or(0.0, |rates| rates.gpu as f32 / 100.0),
        })
    };
    (0..count).filter_map(read).collect()
}

//! Memory and load of the process, the machine and its GPUs.

use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::enums::device::UsedGpuMemory;
use serde::{Deserialize, Serialize};

/// One GPU, as its driver reports it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuReading {
    /// Its number, as nvidia-smi counts.
    pub index: usize,
    /// Product name.
    pub name: String,
    /// Memory in use by all programs, bytes.
    pub used_bytes: u64,
    /// Memory in use by this program, bytes. Where the driver does not tell (in a container, on Windows), what came on
    /// top since these gauges were made.
    pub own_bytes: u64,
    /// Memory in all, bytes.
    pub total_bytes: u64,
    /// Share of the last second with work, 0 to 1.
    pub load: f32,
    /// Temperature of the chip, °C; `None` where the driver does not tell.
    pub temperature_c: Option<u32>,
    /// Power drawn by the board, W; `None` where the driver does not tell.
    pub power_w: Option<f32>,
}

impl GpuReading {
    /// Memory in use by other programs, bytes.
    #[must_use]
    pub fn others_bytes(&self) -> u64 {
        self.used_bytes.saturating_sub(self.own_bytes)
    }
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
    /// Memory of each GPU in use when the gauges were made, bytes.
    gpu_before_bytes: Vec<u64>,
    peak_bytes: u64,
}

impl std::fmt::Debug for Gauges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gauges").field("has_nvml", &self.nvml.is_some()).finish_non_exhaustive()
    }
}

impl Default for Gauges {
    fn default() -> Self {
        let nvml = nvml_wrapper::Nvml::init().ok();
        let gpu_before_bytes = nvml.as_ref().map(|nvml| memory_in_use(nvml).collect()).unwrap_or_default();
        Self {
            system: sysinfo::System::new().ok(),
            pid: sysinfo::get_current_pid().ok(),
            nvml,
            gpu_before_bytes,
            peak_bytes: 0,
        }
    }
}

impl Gauges {
    /// Reads all gauges; takes about a millisecond.
    pub fn read(&mut self) -> GaugeReading {
        let mut reading = GaugeReading {
            process_peak_bytes: kernel_peak_bytes().unwrap_or(0),
            gpus: self.nvml.as_ref().map(|nvml| read_gpus(nvml, &self.gpu_before_bytes)).unwrap_or_default(),
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

/// Memory in use of each GPU, bytes; 0 of one that does not answer.
fn memory_in_use(nvml: &nvml_wrapper::Nvml) -> impl Iterator<Item = u64> {
    let used = |index| nvml.device_by_index(index).and_then(|gpu| gpu.memory_info()).map_or(0, |memory| memory.used);
    (0..nvml.device_count().unwrap_or(0)).map(used)
}

/// GPUs that do not answer are left out.
fn read_gpus(nvml: &nvml_wrapper::Nvml, before: &[u64]) -> Vec<GpuReading> {
    let count = nvml.device_count().unwrap_or(0);
    let read = |number: u32| {
        let index = number as usize;
        let gpu = nvml.device_by_index(number).ok()?;
        let memory = gpu.memory_info().ok()?;
        let on_top = memory.used.saturating_sub(before.get(index).copied().unwrap_or(0));
        Some(GpuReading {
            index,
            name: gpu.name().unwrap_or_else(|_| format!("GPU {index}")),
            used_bytes: memory.used,
            own_bytes: own_memory(&gpu).unwrap_or(on_top),
            total_bytes: memory.total,
            load: gpu.utilization_rates().map_or(0.0, |rates| rates.gpu as f32 / 100.0),
            temperature_c: gpu.temperature(TemperatureSensor::Gpu).ok(),
            power_w: gpu.power_usage().ok().map(|milliwatts| milliwatts as f32 / 1e3),
        })
    };
    (0..count).filter_map(read).collect()
}

/// Memory that this program has taken of a GPU for computing, bytes; `None` where its driver does not tell, or tells
/// of other programs by numbers that are not ours (a container's).
fn own_memory(gpu: &nvml_wrapper::Device<'_>) -> Option<u64> {
    let processes = gpu.running_compute_processes().ok()?;
    let own = processes.iter().find(|process| process.pid == std::process::id())?;
    match own.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => Some(bytes),
        UsedGpuMemory::Unavailable => None,
    }
}

//! Which machine this is, for reports.

use serde::{Deserialize, Serialize};

use super::{ComputeDevice, gpus, system_memory_bytes};

/// The machine a figure was measured on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineRecord {
    /// Processor as it names itself; empty where the system does not tell.
    pub processor: String,
    /// Threads that it runs at once.
    pub num_cores: usize,
    /// Memory, bytes; 0 where the system does not tell.
    pub memory_bytes: u64,
    /// Operating system.
    pub system: String,
    /// Widest vector instructions that kernels use.
    pub vector_instructions: String,
    /// The GPU that computed instead, where one did: "GPU 0 (NVIDIA H200)".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
}

impl MachineRecord {
    /// Of this machine.
    #[must_use]
    pub fn here() -> Self {
        let mut system = sysinfo::System::new().ok();
        if let Some(system) = &mut system {
            system.refresh_cpu_all();
        }
        let processor = system.as_ref().and_then(|system| system.cpus().first());
        Self {
            processor: processor.map_or_else(String::new, |cpu| cpu.brand().trim().to_owned()),
            num_cores: super::resolved_num_threads(0),
            memory_bytes: system_memory_bytes().unwrap_or(0),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            vector_instructions: vector_instructions().to_owned(),
            gpu: None,
        }
    }

    /// The same machine where `device`, a settled one, computed.
    #[must_use]
    pub fn computing_on(self, device: ComputeDevice) -> Self {
        let gpu = match device {
            ComputeDevice::Cpu | ComputeDevice::Auto => None,
            ComputeDevice::Cuda(index) => {
                let found = gpus().ok().and_then(|gpus| gpus.into_iter().find(|gpu| gpu.index == index));
                Some(found.map_or_else(|| format!("GPU {index}"), |gpu| gpu.to_string()))
            }
        };
        Self { gpu, ..self }
    }
}

#[cfg(target_arch = "x86_64")]
fn vector_instructions() -> &'static str {
    if std::arch::is_x86_feature_detected!("avx512f") {
        "AVX-512"
    } else if std::arch::is_x86_feature_detected!("avx2") {
        "AVX2"
    } else {
        "SSE2"
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn vector_instructions() -> &'static str {
    if cfg!(target_arch = "aarch64") { "NEON" } else { "none" }
}

//! Shared libraries of CUDA, asked for by name before anything depends on them.

#![allow(unsafe_code, reason = "opening a library runs its initializers")]

/// A library that computing on a GPU needs, by what it is and as Linux names its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Library {
    /// "cuBLAS (libcublas)".
    pub(super) what: &'static str,
    /// Without "lib" and ".so".
    file: &'static str,
}

/// What candle calls: the driver, matrix products, random numbers. Kernels are translated by the driver.
pub(super) const NEEDED: [Library; 3] = [
    Library { what: "NVIDIA's driver (libcuda)", file: "cuda" },
    Library { what: "cuBLAS (libcublas)", file: "cublas" },
    Library { what: "cuRAND (libcurand)", file: "curand" },
];

/// Ends of file names that cudarc tries, in its order: the unversioned name, CUDA's versions, the driver's.
const ENDS: [&str; 6] = [".so", ".so.13", ".so.12", ".so.11", ".so.10", ".so.1"];

impl Library {
    /// Whether the system's loader finds it. Elsewhere than on Linux the answer is yes: there opening the device tells.
    pub(super) fn is_present(self) -> bool {
        if !cfg!(target_os = "linux") {
            return true;
        }
        ENDS.iter().any(|end| {
            // SAFETY: these are NVIDIA's own libraries under their own names, which may be loaded at any time; whoever
            // computes on a GPU loads them next. The handle closes again, and no symbol of it is kept.
            unsafe { libloading::Library::new(format!("lib{}{end}", self.file)) }.is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_library_that_no_machine_has_is_missing() {
        assert!(!Library { what: "nothing", file: "foretrain-has-no-such-library" }.is_present());
    }
}

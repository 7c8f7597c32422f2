//! A flag that asks a job to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared between who wants a job to end and the job, which looks at it in every loop.
#[derive(Debug, Clone, Default)]
pub struct CancelFlag(Arc<AtomicBool>);

impl CancelFlag {
    /// Asks the job to end.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// True once somebody asked.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// True while another clone of the flag exists: somebody works on the job or watches it.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

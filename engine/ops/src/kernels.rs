//! Which tensors our own kernels take.

use std::cell::Cell;

use candle_core::Device;

thread_local! {
    static IS_WITHOUT: Cell<bool> = const { Cell::new(false) };
}

/// Whether our own operations, which compute on the processor, take tensors of `device`; on others the same is composed
/// of candle's.
#[must_use]
pub fn has_kernels(device: &Device) -> bool {
    device.is_cpu() && !IS_WITHOUT.get()
}

/// `work`, on this thread, with every operation composed of candle's: for tests of what a GPU computes, on the processor.
/// A kernel that is asked for all the same is an error, as it would be on a GPU.
pub fn without_kernels<R>(work: impl FnOnce() -> R) -> R {
    set_aside(true, work)
}

/// `work`, on this thread, which belongs to the processor also where the network computes on a GPU: within
/// [`without_kernels`] it has kernels again.
pub fn on_processor<R>(work: impl FnOnce() -> R) -> R {
    set_aside(false, work)
}

fn set_aside<R>(is_without: bool, work: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            IS_WITHOUT.set(self.0);
        }
    }
    let _restore = Restore(IS_WITHOUT.replace(is_without));
    work()
}

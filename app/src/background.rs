//! Starts work that must not keep the window waiting for the processor.

use std::io;

/// How much less of a busy processor such threads claim, in steps of `nice`: about a third of what the window gets.
#[cfg(target_os = "linux")]
const NICE: i32 = 5;

/// Does `start` on a thread of a lower priority, which all threads inherit that it starts, and theirs in turn; on
/// systems other than Linux, of the same priority. Where nothing else wants the processor they are as fast as any.
/// Errors: the system gives no thread, or `start` panics.
pub fn start<T: Send + 'static>(start: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let lowered = move || {
        lower_priority();
        start()
    };
    let thread = std::thread::Builder::new().name("background".to_owned()).spawn(lowered)?;
    thread.join().map_err(|_| io::Error::other("a thread of the engine's start panicked"))
}

/// Linux keeps a priority for each thread; other systems would lower that of the window as well.
#[cfg(target_os = "linux")]
fn lower_priority() {
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::warn!("lowering the priority of the engine's threads: {error}. The window may stutter during a run");
    }
}

#[cfg(not(target_os = "linux"))]
fn lower_priority() {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn priority() -> Option<i32> {
        rustix::process::getpriority_process(None).ok()
    }

    #[test]
    fn threads_started_in_the_background_and_theirs_leave_the_processor_to_the_window() {
        let own = priority().unwrap_or_default();
        let theirs = start(|| [priority(), std::thread::spawn(priority).join().ok().flatten()]).ok();
        // 19 is the lowest there is.
        let lowered = Some((own + NICE).min(19));
        assert_eq!(theirs, Some([lowered, lowered]));
        assert_eq!(priority(), Some(own), "the window keeps its own");
    }
}

//! What becomes of memory that nothing uses any more: fresh pages are cleared by the system before they are given, and a
//! training step that takes and frees the same gigabytes each time would wait for that each time.
//!
//! Settings of glibc's allocator; elsewhere nothing happens. Source: `man 3 mallopt`.
#![allow(unsafe_code, reason = "the C library's allocator is set by calls into it")]

#[cfg(all(target_os = "linux", target_env = "gnu"))]
use std::sync::atomic::{AtomicBool, Ordering};

/// True between [`keep_freed_pages`] and [`give_back_pages`].
#[cfg(all(target_os = "linux", target_env = "gnu"))]
static KEEPS: AtomicBool = AtomicBool::new(false);

/// All threads take memory from one pool, so that what one of them freed serves another. For the start of a program.
pub fn share_freed_pages() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    set(libc::M_ARENA_MAX, 1);
}

/// Freed memory stays with the process, for what is next, until [`give_back_pages`]: as much as was in use at the peak, or
/// a little more, as blocks of other sizes leave gaps.
pub fn keep_freed_pages() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        KEEPS.store(true, Ordering::SeqCst);
        // No block is a mapping of its own, which goes when it is freed, and the heap never shrinks.
        set(libc::M_MMAP_MAX, 0);
        set(libc::M_TRIM_THRESHOLD, -1);
    }
}

/// Gives the system what is free, and from now on large blocks once they are, if [`keep_freed_pages`] was called. Who
/// allocates meanwhile waits: some tenths of a second for a few gigabytes.
pub fn give_back_pages() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if KEEPS.swap(false, Ordering::SeqCst) {
        // glibc's most mappings, and the largest thresholds that it comes to by itself.
        set(libc::M_MMAP_MAX, 1 << 16);
        set(libc::M_MMAP_THRESHOLD, 32 << 20);
        set(libc::M_TRIM_THRESHOLD, 64 << 20);
        trim_pages();
    }
}

/// Gives the system what is free now, whatever holds from here on: blocks of other sizes would not fit into the gaps.
pub fn trim_pages() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: takes no pointer; glibc locks what it touches.
    unsafe {
        libc::malloc_trim(0)
    };
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn set(what: libc::c_int, value: libc::c_int) {
    // SAFETY: takes no pointer; glibc locks what it touches. Refused, it is a setting less.
    unsafe { libc::mallopt(what, value) };
}

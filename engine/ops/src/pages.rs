//! What becomes of memory that nothing uses any more: fresh pages are cleared by the system before they are given, and a
//! training step that takes and frees the same gigabytes each time would wait for that each time.
//!
//! Settings of glibc's allocator; elsewhere nothing happens. Source: `man 3 mallopt`.
#![allow(unsafe_code, reason = "the C library's allocator is set by calls into it")]

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
        // Blocks of up to 2 GiB, and no end.
        set(libc::M_MMAP_THRESHOLD, i32::MAX);
        set(libc::M_TRIM_THRESHOLD, -1);
    }
}

/// Gives the system what is free, from now on as soon as it is.
pub fn give_back_pages() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // Most that glibc comes to by itself.
        set(libc::M_MMAP_THRESHOLD, 32 << 20);
        set(libc::M_TRIM_THRESHOLD, 64 << 20);
        // SAFETY: takes no pointer; glibc locks what it touches.
        unsafe { libc::malloc_trim(0) };
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn set(what: libc::c_int, value: libc::c_int) {
    // SAFETY: takes no pointer; glibc locks what it touches. Refused, everything goes on as before.
    unsafe { libc::mallopt(what, value) };
}

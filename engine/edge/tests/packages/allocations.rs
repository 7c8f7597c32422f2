//! What opening a package takes from the allocator, thread by thread, so that tests may run side by side.
#![allow(unsafe_code, reason = "an allocator that counts is an unsafe trait; each call goes to the system's own")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    /// Bytes in use, and the most there were.
    static IN_USE: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends has no counters any more.
    let _ = IN_USE.try_with(|in_use| {
        in_use.set(in_use.get() + bytes);
        MOST.with(|most| most.set(most.get().max(in_use.get())));
    });
}

// SAFETY: every call is the system allocator's with the same arguments; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Both may be there while content moves.
        count(new_size.cast_signed());
        count(-layout.size().cast_signed());
        // SAFETY: the caller keeps the contract.
        unsafe { System.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The result of `work`, and the most bytes that this thread had from the allocator meanwhile, beyond what it had before.
pub fn most_allocated<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = IN_USE.get();
    MOST.set(before);
    let result = work();
    (result, (MOST.get() - before).cast_unsigned())
}

#[test]
fn allocations_are_counted_even_when_they_are_gone() {
    let (len, most) = most_allocated(|| {
        let mut bytes = vec![0_u8; 1000];
        bytes.extend_from_slice(&[1; 2000]);
        Vec::<u64>::with_capacity(10).capacity() + bytes.len()
    });
    assert_eq!(len, 3010);
    assert!((4000..=7000).contains(&most), "{most}");
}

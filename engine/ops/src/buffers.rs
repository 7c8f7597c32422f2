//! Reading tensors as slices, and new buffers that a kernel fills.
#![allow(unsafe_code, reason = "output buffers are not cleared before they are written")]

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, Device, Layout, Result, Storage, StorageRef, Tensor, bail};

use super::bf16;
use super::kernels::has_kernels;
use super::real::Real;

/// Work per parallel task, in elements: enough to hide the cost of handing it over.
const TASK_ELEMENTS: usize = 16 * 1024;

/// How many rows of `width` elements make one parallel task: a function of the shape alone, so that
/// sums over tasks do not depend on the number of threads.
pub(super) fn rows_per_task(width: usize) -> usize {
    (TASK_ELEMENTS / width.max(1)).max(1)
}

/// A buffer of `len` numbers of no particular value, for a kernel that writes every one.
#[allow(clippy::uninit_vec, reason = "see SAFETY")]
pub(super) fn unwritten<T: Real>(len: usize) -> Vec<T> {
    let mut buffer = Vec::with_capacity(len);
    // SAFETY: the capacity is `len`; T is f32 or f64, which have no destructor and for which every
    // bit pattern is a number; each caller writes all of the buffer before anything reads it.
    unsafe { buffer.set_len(len) };
    buffer
}

/// Buffers kept for later, at most. More than the layers of the largest network that fits.
const MAX_SHELVED: usize = 128;

/// What [`Scratch`] buffers hold.
pub(super) trait Shelved: Copy + 'static {
    /// What a new buffer is filled with.
    const ZERO: Self;
    /// Buffers waiting to be used again, the latest last.
    fn shelf() -> &'static Mutex<Vec<Vec<Self>>>;
}

impl Shelved for f32 {
    const ZERO: Self = 0.0;

    fn shelf() -> &'static Mutex<Vec<Vec<Self>>> {
        static SHELF: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());
        &SHELF
    }
}

impl Shelved for f64 {
    const ZERO: Self = 0.0;

    fn shelf() -> &'static Mutex<Vec<Vec<Self>>> {
        static SHELF: Mutex<Vec<Vec<f64>>> = Mutex::new(Vec::new());
        &SHELF
    }
}

/// A buffer of numbers of no particular value for use inside an operation, given back on drop and used again:
/// fresh memory costs a page fault every 4 KiB, which takes longer than most of our loops.
///
/// What waits on the shelf was in use at one time before; when the shapes change, each new buffer replaces an old one.
#[derive(Debug)]
pub(super) struct Scratch<T: Shelved> {
    /// At least `len` numbers.
    buffer: Vec<T>,
    len: usize,
}

impl<T: Shelved> Scratch<T> {
    /// `len` numbers.
    pub(super) fn new(len: usize) -> Self {
        if len == 0 {
            return Self { buffer: Vec::new(), len };
        }
        let mut shelf = T::shelf().lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |buffer: &Vec<T>| buffer.len() >= len && buffer.len() / 2 <= len;
        // The smallest, lest a larger one be missing where it is needed; of these the latest, the likeliest in a cache.
        let smallest =
            shelf.iter().enumerate().rev().filter(|(_, buffer)| fits(buffer)).min_by_key(|(_, buffer)| buffer.len());
        if let Some((index, _)) = smallest {
            return Self { buffer: shelf.remove(index), len };
        }
        let oldest = if shelf.is_empty() { None } else { Some(shelf.remove(0)) };
        drop(shelf);
        drop(oldest);
        Self { buffer: vec![T::ZERO; len], len }
    }
}

impl<T: Shelved> Drop for Scratch<T> {
    fn drop(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let mut shelf = T::shelf().lock().unwrap_or_else(PoisonError::into_inner);
        if shelf.len() < MAX_SHELVED {
            shelf.push(std::mem::take(&mut self.buffer));
        }
    }
}

/// Gives the buffers that operations keep for their next call back to the system. Training is as correct without, but
/// after a large network they would hold memory that nothing uses.
pub fn release_scratch() {
    f32::shelf().lock().unwrap_or_else(PoisonError::into_inner).clear();
    f64::shelf().lock().unwrap_or_else(PoisonError::into_inner).clear();
    bf16::release_scratch();
}

impl<T: Shelved> Deref for Scratch<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.buffer[..self.len]
    }
}

impl<T: Shelved> DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.buffer[..self.len]
    }
}

/// The elements of `storage` under `layout`. Errors: another dtype, or not contiguous.
pub(super) fn slice<'a, T: Real>(op: &str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    if !has_kernels(&Device::Cpu) {
        bail!("{op}: a kernel of the processor was asked for where there is none");
    }
    let all = T::cpu_storage_as_slice(storage)?;
    match layout.contiguous_offsets() {
        Some((start, end)) => match all.get(start..end) {
            Some(elements) => Ok(elements),
            None => bail!("{op}: expected {end} elements, found {}", all.len()),
        },
        None => bail!("{op}: expected a contiguous tensor, found strides {:?}", layout.stride()),
    }
}

/// A tensor on the CPU, locked for reading.
pub(super) struct Reading<'a> {
    storage: StorageRef<'a>,
    layout: &'a Layout,
}

impl<'a> Reading<'a> {
    /// Locks `tensor` for reading.
    pub(super) fn of(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self { storage, layout }
    }

    /// Its elements. Errors: not on the CPU, another dtype, or not contiguous.
    pub(super) fn slice<T: Real>(&self, op: &str) -> Result<&[T]> {
        match &*self.storage {
            Storage::Cpu(storage) => slice(op, storage, self.layout),
            Storage::Cuda(_) | Storage::Metal(_) => bail!("{op}: expected a tensor on the CPU, found one on a GPU"),
        }
    }
}

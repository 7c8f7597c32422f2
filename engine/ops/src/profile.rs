//! Where processor time goes, by kind of operation, as measured around the CPU kernels.
//!
//! A [`Ledger`] adds up what the threads that follow it spend, while it is recording. A thread's time counts once, to the
//! innermost kind at work: what attention or a convolution multiplies is attention's or the convolution's. A product that is
//! spread over several threads counts for each of them, because what they do inside it cannot be seen from here. candle's own
//! operations, copies and waiting threads count as nothing.
//!
//! Invariants: no result depends on it. Where no ledger records, a kernel costs one read of a flag more. Other threads than
//! those that follow a ledger never write into it, so that several trainings go on side by side.

use std::cell::{Cell, OnceCell};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A kind of operation, forward and backward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Products of matrices, with the biases added to them and the sums of their gradients.
    Product,
    /// Causal attention: its products and its softmax.
    Attention,
    /// Layer, root-mean-square and batch norm.
    Norm,
    /// GELU, the gates of feed-forward parts, rounding of activations.
    Activation,
    /// Convolutions, with the bias and the ReLU that end them.
    Convolution,
    /// Pooling.
    Pooling,
    /// Embedding tables and rotary positions.
    Embedding,
    /// Cross entropy and error norms.
    Loss,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Product,
        Self::Attention,
        Self::Norm,
        Self::Activation,
        Self::Convolution,
        Self::Pooling,
        Self::Embedding,
        Self::Loss,
    ];
}

/// Ledgers that record now, of all threads.
static NUM_RECORDING: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static HERE: Here = const { Here { book: OnceCell::new(), open: Cell::new(None) } };
}

/// Time of threads by kind of operation. Clones are the same ledger.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Book>);

#[derive(Debug, Default)]
struct Book {
    is_recording: AtomicBool,
    nanos: [AtomicU64; Kind::ALL.len()],
}

impl Ledger {
    /// Makes this thread write into this ledger for as long as it lives. A thread follows the first one that it is given to:
    /// false where it follows another.
    pub fn follow(&self) -> bool {
        HERE.with(|here| Arc::ptr_eq(here.book.get_or_init(|| Arc::clone(&self.0)), &self.0))
    }

    /// Records until what is returned is dropped.
    #[must_use]
    pub fn record(&self) -> Recording<'_> {
        let is_first = !self.0.is_recording.swap(true, Ordering::Relaxed);
        if is_first {
            NUM_RECORDING.fetch_add(1, Ordering::Relaxed);
        }
        Recording { book: is_first.then_some(&*self.0) }
    }

    /// What was recorded since this was last asked, in the order of [`Kind::ALL`].
    #[must_use]
    pub fn take(&self) -> [Duration; Kind::ALL.len()] {
        self.0.nanos.each_ref().map(|nanos| Duration::from_nanos(nanos.swap(0, Ordering::Relaxed)))
    }
}

/// A ledger that records.
#[derive(Debug)]
pub struct Recording<'a> {
    /// `None` where it was recording already: whoever began ends it.
    book: Option<&'a Book>,
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        if let Some(book) = self.book {
            book.is_recording.store(false, Ordering::Relaxed);
            NUM_RECORDING.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What a thread is at.
#[derive(Debug)]
struct Here {
    book: OnceCell<Arc<Book>>,
    /// The innermost operation whose time is taken.
    open: Cell<Option<Open>>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    kind: Kind,
    /// Threads that work for this one.
    num_threads: usize,
    since: Instant,
}

impl Here {
    fn begin(&self, kind: Kind, num_threads: usize) -> Timing {
        let Some(book) = self.book.get().filter(|book| book.is_recording.load(Ordering::Relaxed)) else {
            return Timing::nothing();
        };
        let outer = self.open.get();
        if outer.is_some_and(|outer| outer.kind == kind && outer.num_threads == num_threads) {
            return Timing::nothing();
        }
        let now = Instant::now();
        if let Some(outer) = outer {
            book.add(outer, now);
        }
        self.open.set(Some(Open { kind, num_threads, since: now }));
        Timing { outer: Some(outer), stays_here: PhantomData }
    }

    fn end(&self, outer: Option<Open>) {
        let now = Instant::now();
        if let (Some(book), Some(open)) = (self.book.get(), self.open.get()) {
            book.add(open, now);
        }
        self.open.set(outer.map(|outer| Open { since: now, ..outer }));
    }
}

impl Book {
    fn add(&self, open: Open, now: Instant) {
        let nanos = now.saturating_duration_since(open.since).as_nanos() as u64;
        let [product, attention, norm, activation, convolution, pooling, embedding, loss] = &self.nanos;
        let sum = match open.kind {
            Kind::Product => product,
            Kind::Attention => attention,
            Kind::Norm => norm,
            Kind::Activation => activation,
            Kind::Convolution => convolution,
            Kind::Pooling => pooling,
            Kind::Embedding => embedding,
            Kind::Loss => loss,
        };
        sum.fetch_add(nanos.saturating_mul(open.num_threads as u64), Ordering::Relaxed);
    }
}

/// An operation whose time is taken until this is dropped, on the thread that began it.
#[must_use]
pub(crate) struct Timing {
    /// What it interrupted; `None` where nothing is recorded.
    outer: Option<Option<Open>>,
    stays_here: PhantomData<*const ()>,
}

impl Timing {
    fn nothing() -> Self {
        Self { outer: None, stays_here: PhantomData }
    }
}

impl Drop for Timing {
    fn drop(&mut self) {
        if let Some(outer) = self.outer {
            HERE.with(|here| here.end(outer));
        }
    }
}

/// Takes the time of an operation on this thread.
#[inline]
pub(crate) fn time(kind: Kind) -> Timing {
    time_of_threads(kind, 1)
}

/// Takes the time of an operation that `num_threads` threads are busy with for this one.
#[inline]
pub(crate) fn time_of_threads(kind: Kind, num_threads: usize) -> Timing {
    if NUM_RECORDING.load(Ordering::Relaxed) == 0 {
        return Timing::nothing();
    }
    HERE.with(|here| here.begin(kind, num_threads))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use candle_core::{DType, Tensor, Var};
    use rayon::prelude::*;

    use super::*;
    use crate::check::wave;
    use crate::{
        Activations, Gpt2LayerShape, Gpt2LayerWeights, Kept, Precision, conv2d_relu_pool, cross_entropy, gpt2_layer,
    };

    fn pool(num_threads: usize, ledger: &Ledger) -> rayon::ThreadPool {
        let ledger = ledger.clone();
        let follow = move |_| assert!(ledger.follow());
        rayon::ThreadPoolBuilder::new().num_threads(num_threads).start_handler(follow).build().unwrap()
    }

    fn busy_until(end: Instant) {
        while Instant::now() < end {
            std::hint::spin_loop();
        }
    }

    /// In the order of [`Kind::ALL`].
    fn of(times: [Duration; Kind::ALL.len()], kind: Kind) -> Duration {
        Kind::ALL.into_iter().zip(times).find(|(found, _)| *found == kind).unwrap().1
    }

    #[test]
    fn what_is_nested_counts_once() {
        let ledger = Ledger::default();
        let began = Instant::now();
        let times = pool(1, &ledger).install(|| {
            let _recording = ledger.record();
            let attention = time(Kind::Attention);
            busy_until(Instant::now() + Duration::from_millis(2));
            {
                let _norm = time(Kind::Norm);
                busy_until(Instant::now() + Duration::from_millis(4));
                // The same kind within itself changes nothing.
                let _again = time(Kind::Norm);
                busy_until(Instant::now() + Duration::from_millis(1));
            }
            busy_until(Instant::now() + Duration::from_millis(2));
            drop(attention);
            ledger.take()
        });
        let whole = began.elapsed();
        assert!(of(times, Kind::Attention) >= Duration::from_millis(4), "{times:?}");
        assert!(of(times, Kind::Norm) >= Duration::from_millis(5), "{times:?}");
        assert!(times.iter().sum::<Duration>() <= whole, "{times:?} in {whole:?}");
    }

    #[test]
    fn threads_add_up_and_spread_products_count_for_each() {
        let ledger = Ledger::default();
        pool(2, &ledger).install(|| {
            let _recording = ledger.record();
            (0..8).into_par_iter().for_each(|_| {
                let _loss = time(Kind::Loss);
                busy_until(Instant::now() + Duration::from_millis(1));
            });
            let _product = time_of_threads(Kind::Product, 3);
            busy_until(Instant::now() + Duration::from_millis(1));
        });
        let times = ledger.take();
        assert!(of(times, Kind::Loss) >= Duration::from_millis(8), "{times:?}");
        assert!(of(times, Kind::Product) >= Duration::from_millis(3), "{times:?}");
        assert_eq!(ledger.take(), [Duration::ZERO; 8], "taken once");
    }

    #[test]
    fn only_its_threads_write_into_a_ledger_and_only_while_it_records() {
        let (ours, theirs) = (Ledger::default(), Ledger::default());
        let work = |_: rayon::BroadcastContext<'_>| {
            let _timing = time(Kind::Pooling);
            busy_until(Instant::now() + Duration::from_micros(100));
        };
        let (our_pool, their_pool) = (pool(2, &ours), pool(2, &theirs));
        our_pool.broadcast(work);
        assert_eq!(ours.take(), [Duration::ZERO; 8], "nothing is recorded");
        let recording = ours.record();
        let again = ours.record();
        drop(again);
        their_pool.broadcast(work);
        our_pool.broadcast(work);
        drop(recording);
        our_pool.broadcast(work);
        let times = ours.take();
        let found = of(times, Kind::Pooling);
        assert!(found >= Duration::from_micros(200), "{times:?}");
        assert_eq!(times.iter().sum::<Duration>(), found);
        assert_eq!(theirs.take(), [Duration::ZERO; 8]);
        assert!(our_pool.install(|| !theirs.follow()));
    }

    /// Loss and a gradient of a GPT-2 layer under cross entropy.
    fn layer_step() -> (Vec<f32>, Vec<f32>) {
        let (c, hidden) = (8, 20);
        let var = |shape: &[usize], size: f64| {
            Var::from_tensor(&wave(shape, size).unwrap().to_dtype(DType::F32).unwrap()).unwrap()
        };
        let x = var(&[3, 67, c], 1.5);
        let shapes: [&[usize]; 12] =
            [&[c], &[c], &[c, 3 * c], &[3 * c], &[c, c], &[c], &[c], &[c], &[c, hidden], &[hidden], &[hidden, c], &[c]];
        let w = shapes.map(|shape| var(shape, 0.6));
        let weights = Gpt2LayerWeights {
            ln_1_weight: &w[0],
            ln_1_bias: &w[1],
            c_attn_weight: &w[2],
            c_attn_bias: &w[3],
            attn_c_proj_weight: &w[4],
            attn_c_proj_bias: &w[5],
            ln_2_weight: &w[6],
            ln_2_bias: &w[7],
            c_fc_weight: &w[8],
            c_fc_bias: &w[9],
            mlp_c_proj_weight: &w[10],
            mlp_c_proj_bias: &w[11],
        };
        let shape = Gpt2LayerShape {
            num_heads: 2,
            eps: 1e-5,
            activations: Activations::Floats,
            precision: Precision::F32,
            kept: Kept::Activations,
        };
        let logits = gpt2_layer(&x, &weights, shape).unwrap().reshape((3 * 67, c)).unwrap();
        let targets = Tensor::zeros(3 * 67, DType::U32, x.device()).unwrap();
        let losses = cross_entropy(&logits, &targets).unwrap();
        let gradient = losses.sum_all().unwrap().backward().unwrap().get(&w[2]).unwrap().clone();
        (losses.to_vec1().unwrap(), gradient.flatten_all().unwrap().to_vec1().unwrap())
    }

    #[test]
    fn recording_changes_no_bit_and_sees_the_kinds_of_a_layer() {
        let ledger = Ledger::default();
        let threads = pool(2, &ledger);
        let unwatched = threads.install(layer_step);
        assert_eq!(ledger.take(), [Duration::ZERO; 8]);
        let began = Instant::now();
        let watched = {
            let _recording = ledger.record();
            threads.install(layer_step)
        };
        let whole = began.elapsed();
        let bits = |(losses, gradient): &(Vec<f32>, Vec<f32>)| -> Vec<u32> {
            losses.iter().chain(gradient).map(|x| x.to_bits()).collect()
        };
        assert_eq!(bits(&watched), bits(&unwatched));
        let times = ledger.take();
        for (kind, time) in Kind::ALL.into_iter().zip(times) {
            let is_in_it = matches!(kind, Kind::Product | Kind::Attention | Kind::Norm | Kind::Activation | Kind::Loss);
            assert_eq!(time > Duration::ZERO, is_in_it, "{kind:?}: {times:?}");
        }
        assert!(times.iter().sum::<Duration>() <= 2 * whole, "{times:?} in {whole:?} on two threads");
    }

    #[test]
    fn a_convolution_keeps_its_products_and_leaves_pooling_its_own() {
        let ledger = Ledger::default();
        pool(2, &ledger).install(|| {
            let _recording = ledger.record();
            let var = |shape: &[usize]| Var::from_tensor(&wave(shape, 0.5).unwrap()).unwrap();
            let (x, weight, bias) = (var(&[4, 32, 12, 12]), var(&[32, 32, 3, 3]), var(&[32]));
            let y = conv2d_relu_pool(&x, &weight, &bias, 1).unwrap();
            y.sum_all().unwrap().backward().unwrap();
        });
        let times = ledger.take();
        assert!(of(times, Kind::Convolution) > of(times, Kind::Pooling), "{times:?}");
        assert!(of(times, Kind::Pooling) > Duration::ZERO, "{times:?}");
        assert_eq!(of(times, Kind::Product), Duration::ZERO);
    }
}

//! Why integer kernels and the same rounded inputs multiplied as floats do not always end at the same answer.
//!
//! Products with integer weights are exact in the kernels, sums of floats are not. Given equal inputs the two differ in the
//! last bits; some layers later such a difference takes an input across the middle between two of its 255 levels, and from
//! that token on the sequence is another one. A kernel that is wrong differs at every token of every sequence.

use foretrain_edge::{Activations, Package};

use super::builder::{Random, Scheme, write};
use super::language_models::{gpt2, llama, text_files};

/// Nats: far above the last bits of a loss, far below what one input at another level moves it by.
const SAME: f32 = 2e-5;
const SEQUENCES: u64 = 12;

#[test]
fn kernels_and_rounded_floats_part_only_where_an_input_takes_another_level() {
    for scheme in [Scheme::Int8, Scheme::Int4, Scheme::Ternary, Scheme::TernaryBase3] {
        for (name, built) in [("gpt2", gpt2(scheme)), ("llama", llama(scheme, 128, true))] {
            let dir = write(&text_files(&built));
            let open = |activations| Package::open_with(dir.path(), activations).unwrap();
            let packages = [Activations::Bytes, Activations::RoundedFloats, Activations::Floats].map(open);
            let mut whole = 0;
            for seed in 0..SEQUENCES {
                let mut random = Random::new(100 + seed);
                let tokens: Vec<u32> = (0..13).map(|_| (random.uniform() * 30.0) as u32).collect();
                let [kernels, rounded, exact] =
                    packages.each_ref().map(|package| package.token_losses(&tokens).unwrap());
                let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).collect::<Vec<_>>();
                let (parted, cost) = (apart(&kernels, &rounded), apart(&rounded, &exact));
                let first = parted.iter().position(|distance| *distance > SAME).unwrap_or(parted.len());
                whole += u64::from(first == parted.len());
                // What follows is no further away than roundings take answers anyway.
                let largest = |distances: &[f32]| distances.iter().copied().fold(0.0, f32::max);
                assert!(largest(&parted) <= 2.0 * largest(&cost), "{scheme:?} {name} {seed}");
            }
            assert!(whole >= SEQUENCES / 2, "{scheme:?} {name}: {whole} of {SEQUENCES} sequences agree throughout");
        }
    }
}

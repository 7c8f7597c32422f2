//! Which examples are held out: by rule, and the rule in words.

use super::draw::Draw;
use crate::device::seed::Stream;

/// Splits examples are drawn with this seed, so that one dataset has one split.
const SPLIT_SEED: u64 = 0;

/// Which examples of `labels` go to validation, in order: a seeded tenth of each class, at least one where a class
/// has two or more.
pub(super) fn stratified(labels: &[u32], num_classes: usize) -> Vec<bool> {
    let mut members = vec![Vec::new(); num_classes];
    for (i, &label) in labels.iter().enumerate() {
        if let Some(members) = members.get_mut(label as usize) {
            members.push(i);
        }
    }
    let mut is_held_out = vec![false; labels.len()];
    for (class, members) in members.iter_mut().enumerate() {
        Draw::new(SPLIT_SEED, Stream::Split, class as u64).shuffle(members);
        let wanted = if members.len() < 2 { 0 } else { (members.len() / 10).max(1) };
        for &i in members.iter().take(wanted) {
            is_held_out[i] = true;
        }
    }
    is_held_out
}

/// Which of `num_examples` go to validation: the last `num_held_out`.
pub(super) fn last(num_examples: usize, num_held_out: usize) -> Vec<bool> {
    (0..num_examples).map(|i| i + num_held_out >= num_examples).collect()
}

/// True when the held-out examples miss a class that the others have.
pub(super) fn misses_class(labels: &[u32], is_held_out: &[bool], num_classes: usize) -> bool {
    let mut seen = vec![(false, false); num_classes];
    for (&label, &is_held_out) in labels.iter().zip(is_held_out) {
        if let Some(seen) = seen.get_mut(label as usize) {
            if is_held_out {
                seen.1 = true;
            } else {
                seen.0 = true;
            }
        }
    }
    seen.iter().any(|&(kept, held_out)| kept && !held_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stratified_takes_a_tenth_of_each_class() {
        let labels: Vec<u32> = (0..100).map(|i| u32::from(i >= 80)).collect();
        let held_out = stratified(&labels, 2);
        let counts = |range: std::ops::Range<usize>| held_out[range].iter().filter(|&&x| x).count();
        assert_eq!((counts(0..80), counts(80..100)), (8, 2));
        assert_eq!(held_out, stratified(&labels, 2));
    }

    #[test]
    fn a_single_example_stays_in_training() {
        assert_eq!(stratified(&[0, 1, 1], 2).iter().filter(|&&x| x).count(), 1);
        assert!(!stratified(&[0, 1, 1], 2)[0]);
    }

    #[test]
    fn last_takes_the_end() {
        assert_eq!(last(4, 1), [false, false, false, true]);
        assert_eq!(last(2, 5), [true, true]);
    }

    #[test]
    fn sorted_labels_are_noticed() {
        assert!(misses_class(&[0, 0, 1, 1], &last(4, 1), 2));
        assert!(!misses_class(&[0, 1, 0, 1], &last(4, 2), 2));
    }
}

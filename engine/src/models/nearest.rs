//! The name that was probably meant.

use super::TensorSpec;

/// The name among those `found` that was probably meant by `name`, one of `specs`: one that no other tensor has comes
/// first. `None` where nothing was found.
pub(crate) fn nearest_found<'a>(
    name: &str,
    specs: &[TensorSpec],
    found: impl Iterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    let strangers = found.clone().filter(|found| specs.iter().all(|spec| spec.name != **found));
    nearest(name, strangers).or_else(|| nearest(name, found))
}

/// The candidate with the fewest single-character edits from `name`; `None` without candidates.
pub(crate) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates.min_by_key(|candidate| (edits(name, candidate), candidate.len()))
}

/// Insertions, deletions and replacements from `a` to `b` (Levenshtein's distance), by bytes.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let replaced = diagonal + usize::from(x != y);
            diagonal = *cell;
            left = replaced.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in
            [("", "", 0), ("abc", "", 3), ("", "ab", 2), ("kitten", "sitting", 3), ("abc", "abc", 0)]
        {
            assert_eq!(edits(a, b), expected, "{a} {b}");
            assert_eq!(edits(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn the_nearest_wins() {
        let names = ["model.norm.weight", "model.layers.0.mlp.up.weight", "lm_head.weight"];
        assert_eq!(nearest("model.layers.0.mlp.up_proj.weight", names.into_iter()), Some(names[1]));
        assert_eq!(nearest("x", std::iter::empty()), None);
    }
}

//! "Did you mean": the closest of the names that exist. For messages only, it decides nothing.

/// The candidate nearest to `given` by edit distance, when it is near enough to be a slip of the
/// hand: at most a third of the letters differ.
#[must_use]
pub fn closest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_lowercase();
    let allowed = given.chars().count().div_ceil(3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&given, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters must be added, removed, replaced or swapped with their neighbour.
fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().take(64).collect();
    let to: Vec<char> = to.chars().take(64).collect();
    let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX / 2);
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut current = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let replaced = at(&previous, j) + usize::from(a != b);
            let mut best = replaced
                .min(at(&previous, j + 1) + 1)
                .min(at(&current, j) + 1);
            let swapped = i > 0 && j > 0 && from.get(i - 1) == Some(b) && to.get(j - 1) == Some(a);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut previous, current);
    }
    at(&previous, to.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_hand_finds_its_word_and_another_word_does_not() {
        let names = ["key", "data", "token", "agent"];
        assert_eq!(closest("tokne", names), Some("token"));
        assert_eq!(closest("Agent", names), Some("agent"));
        assert_eq!(closest("dta", names), Some("data"));
        assert_eq!(closest("customer", names), None);
        assert_eq!(closest("", []), None);
    }
}

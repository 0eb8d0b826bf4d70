//! The shrink guard: a list that has lost too much is more likely cut or half written than meant.

use super::{PartitionSource, Percent};

/// What a new list of partitions would drop of the one in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shrink {
    /// Partitions of the list in force.
    pub before: usize,
    /// Those of them that the new list does not name.
    pub removed: usize,
    /// The new list names none at all.
    pub emptied: bool,
}

impl PartitionSource {
    /// Why a list that loses so many is refused, and how to have it if it is meant. One partition may always
    /// go, but never the last.
    #[must_use]
    pub fn shrunk(&self, shrink: Shrink) -> Option<String> {
        let Shrink {
            before,
            removed,
            emptied,
        } = shrink;
        // Validation lets no other text through; if it did, nothing but one might go.
        let guard = Percent::parse(&self.shrink_guard).map_or(0, Percent::percent) as usize;
        if guard >= 100 || removed == 0 {
            return None;
        }
        if !emptied && (removed == 1 || removed.saturating_mul(100) <= guard.saturating_mul(before))
        {
            return None;
        }
        let enough = if emptied || before == 0 {
            100
        } else {
            removed.saturating_mul(100).div_ceil(before).min(100)
        };
        let it_would = if emptied {
            format!("it is empty and would drop all {before} partitions")
        } else {
            format!("it would drop {removed} of {before} partitions")
        };
        Some(format!(
            "{it_would}, more than the {guard}% that shrink_guard allows; if that is meant, apply the service \
             with shrink_guard = \"{enough}%\", and with the old one afterwards"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(guard: &str, before: usize, removed: usize) -> Option<String> {
        let source = PartitionSource {
            shrink_guard: guard.to_owned(),
            ..PartitionSource::default()
        };
        source.shrunk(Shrink {
            before,
            removed,
            emptied: before == removed,
        })
    }

    #[test]
    fn the_guard_names_the_share_with_which_the_same_list_is_taken() {
        assert_eq!(
            told("20%", 6, 4).unwrap(),
            "it would drop 4 of 6 partitions, more than the 20% that shrink_guard allows; if that is meant, \
             apply the service with shrink_guard = \"67%\", and with the old one afterwards"
        );
        assert_eq!(told("67%", 6, 4), None);
        assert!(told("66%", 6, 4).is_some());
        assert!(
            told("99%", 300, 300)
                .unwrap()
                .contains("it is empty and would drop all 300 partitions")
        );
        assert!(told("99%", 300, 300).unwrap().contains("\"100%\""));
        assert_eq!(told("100%", 300, 300), None);
    }

    #[test]
    fn one_partition_of_a_short_list_may_always_go_but_never_the_last() {
        for before in 2..=5 {
            assert_eq!(told("20%", before, 1), None, "1 of {before}");
            assert!(told("20%", before, 2).is_some(), "2 of {before}");
        }
        assert!(told("20%", 1, 1).is_some());
        assert_eq!(told("0%", 4, 1), None);
    }
}

//! Times that were measured, and what is usual and what is worst of them.

use std::collections::BTreeMap;

use crate::clock::MILLI;

/// What was measured, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures(BTreeMap<Figure, Vec<i64>>);

/// A measure. All are in nanoseconds; those that count from X may be below zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    /// From when an agent fell silent to the start elsewhere, less X.
    TakeoverBeyondExpiry,
    /// From when an agent was killed to the first start of something that it had.
    AgentDeathFirst,
    /// The same to the start of each of them.
    AgentDeathEach,
    /// From when a warden was killed to each start of what it held.
    WardenDeath,
    /// From the last process of a run that was asked to stop for a move to the next one: for an even spread,
    /// which is a few at a time.
    HandOverBalance,
    /// The same when a machine is drained, which is all that it has at once.
    HandOverDrain,
    /// The last moment that a run wrote down, from the latest deadline that it can have had, its agent stopped.
    WrotePastDeadline,
    /// When a run was seen to be gone, from that deadline, everything of it stopped or frozen.
    GonePastDeadline,
    /// From when a machine was no longer frozen until each daemon was gone that its wardens could not end before.
    LingeredAfterThaw,
    /// From the heal of the last fault until all ran again exactly once.
    Recovery,
    /// From the kill of all directors until one of the next answered.
    DirectorReady,
    /// From the kill of the leader until a write was accepted.
    WriteAfterKill,
    /// From when the leader was stopped or cut until a write was accepted.
    WriteAfterSilence,
    /// From when the leading one of several servers of the store was killed until another one led.
    StoreAfterKill,
    /// The same until a write was accepted.
    WriteAfterServer,
    /// From when the store was there again until a write was accepted.
    WriteAfterStore,
}

impl Figure {
    const ALL: [Self; 16] = [
        Self::TakeoverBeyondExpiry,
        Self::AgentDeathFirst,
        Self::AgentDeathEach,
        Self::WardenDeath,
        Self::HandOverBalance,
        Self::HandOverDrain,
        Self::WrotePastDeadline,
        Self::GonePastDeadline,
        Self::LingeredAfterThaw,
        Self::Recovery,
        Self::DirectorReady,
        Self::WriteAfterKill,
        Self::WriteAfterSilence,
        Self::StoreAfterKill,
        Self::WriteAfterServer,
        Self::WriteAfterStore,
    ];

    const fn text(self) -> &'static str {
        match self {
            Self::TakeoverBeyondExpiry => "takeover after silence, beyond X",
            Self::AgentDeathFirst => "agent killed: until the first start elsewhere",
            Self::AgentDeathEach => "agent killed: until each start elsewhere",
            Self::WardenDeath => "warden killed: until each start of what it held",
            Self::HandOverBalance => "planned hand-over for balance: gap",
            Self::HandOverDrain => "planned hand-over of a drain: gap",
            Self::WrotePastDeadline => "agent stopped: runs executed past the latest deadline",
            Self::GonePastDeadline => "everything stopped: runs gone past the latest deadline",
            Self::LingeredAfterThaw => {
                "everything stopped, below `kernel`: lingering daemons gone after the heal"
            }
            Self::Recovery => "from the last heal until all runs",
            Self::DirectorReady => "all directors killed: until one answers again",
            Self::WriteAfterKill => "leader killed: until a write is accepted",
            Self::WriteAfterSilence => "leader stopped or cut: until a write is accepted",
            Self::StoreAfterKill => "leading server of the store killed: until another one leads",
            Self::WriteAfterServer => {
                "leading server of the store killed: until a write is accepted"
            }
            Self::WriteAfterStore => "store there again: until a write is accepted",
        }
    }

    /// What is promised of it, where something is.
    const fn goal(self) -> &'static str {
        match self {
            Self::TakeoverBeyondExpiry => "p99 ≤ 50 ms, at most 1 s",
            Self::AgentDeathFirst => "p99 ≤ 50 ms for one partition",
            Self::HandOverBalance => "p99 ≤ 10 ms beside the start of the program",
            Self::WriteAfterKill => "p99 ≤ 2.5 s, at most 10 s",
            Self::WrotePastDeadline | Self::GonePastDeadline => "≤ 50 ms",
            Self::LingeredAfterThaw => "≤ 1 s",
            Self::AgentDeathEach
            | Self::WardenDeath
            | Self::HandOverDrain
            | Self::Recovery
            | Self::DirectorReady
            | Self::WriteAfterSilence
            | Self::StoreAfterKill
            | Self::WriteAfterServer
            | Self::WriteAfterStore => "",
        }
    }
}

impl Figures {
    /// Adds the time from one moment to another.
    pub(crate) fn add(&mut self, figure: Figure, from: u64, to: u64) {
        let (from, to) = (i64::try_from(from), i64::try_from(to));
        if let (Ok(from), Ok(to)) = (from, to) {
            self.0.entry(figure).or_default().push(to - from);
        }
    }

    /// Adds the times from one moment to each of several, and the first of them as another figure.
    pub(crate) fn add_all(&mut self, [first, each]: [Figure; 2], spans: &[(u64, u64)]) {
        for &(from, to) in spans {
            self.add(each, from, to);
        }
        let shortest = spans
            .iter()
            .min_by_key(|(from, to)| to.saturating_sub(*from));
        if let Some(&(from, to)) = shortest {
            self.add(first, from, to);
        }
    }

    /// A table in Markdown.
    pub(crate) fn table(&self) -> String {
        let mut text = String::from(
            "| in milliseconds | times | p50 | p99 | worst | goal |\n| --- | --- | --- | --- | --- | --- |\n",
        );
        for figure in Figure::ALL {
            let mut all = self.0.get(&figure).cloned().unwrap_or_default();
            all.sort_unstable();
            let row = match all.last() {
                None => "0 | - | - | -".to_owned(),
                Some(&worst) => format!(
                    "{} | {} | {} | {}",
                    all.len(),
                    shown(percentile(&all, 50)),
                    shown(percentile(&all, 99)),
                    shown(worst)
                ),
            };
            text.push_str(&format!(
                "| {} | {row} | {} |\n",
                figure.text(),
                figure.goal()
            ));
        }
        text
    }
}

/// The value that so many percent do not exceed.
fn percentile(sorted: &[i64], percent: usize) -> i64 {
    let at = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(at).copied().unwrap_or_default()
}

fn shown(nanos: i64) -> String {
    let milli = i64::try_from(MILLI).unwrap_or(1);
    let tenths = nanos * 10 / milli;
    let sign = if tenths < 0 { "-" } else { "" };
    format!("{sign}{}.{}", tenths.abs() / 10, tenths.abs() % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let all: Vec<i64> = (1..=200).collect();
        assert_eq!(percentile(&all, 50), 100);
        assert_eq!(percentile(&all, 99), 198);
        assert_eq!(percentile(&[7], 99), 7);
    }

    #[test]
    fn times_are_shown_in_milliseconds_also_below_zero() {
        assert_eq!(shown(1_250_000), "1.2");
        assert_eq!(shown(-150_000_000), "-150.0");
        let mut figures = Figures::default();
        figures.add(Figure::Recovery, 5, 2_000_005);
        let figure = [Figure::AgentDeathFirst, Figure::AgentDeathEach];
        figures.add_all(figure, &[(1, 4_000_001), (1, 3_000_001)]);
        let table = figures.table();
        for row in [
            "until all runs | 1 | 2.0 | 2.0 | 2.0 |",
            "first start elsewhere | 1 | 3.0 | 3.0 | 3.0 |",
            "each start elsewhere | 2 | 3.0 | 4.0 | 4.0 |",
        ] {
            assert!(table.contains(row), "{table}");
        }
    }
}

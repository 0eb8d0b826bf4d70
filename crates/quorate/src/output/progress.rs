//! How far everything has come up: a bar on a terminal, a line now and then elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use quorate_api::resources::Progress;

use super::{eta, say, stderr_draws};

/// Lines elsewhere than on a terminal come at most this often.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Said of partitions that wait for a fence hook.
pub(crate) const WAITS_FOR_FENCE: &str = "waiting for a fence hook";
/// Said of partitions that are kept on an agent that is silent.
pub(crate) const ON_SILENT: &str = "on a silent agent";

/// Shows progress until it is dropped.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: Option<ProgressBar>,
    title: String,
    said: Option<(Instant, String)>,
}

impl Bar {
    /// Shows nothing yet.
    pub(crate) fn new(title: &str) -> Self {
        let bar = stderr_draws().then(|| {
            let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
            // A template that does not parse would be a defect; the bar is then drawn plainly.
            if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {msg}")
            {
                bar.set_style(style.progress_chars("━╸ "));
            }
            bar.set_prefix(title.to_owned());
            bar
        });
        Self {
            bar,
            title: title.to_owned(),
            said: None,
        }
    }

    /// Shows how far it is now.
    pub(crate) fn show(&mut self, progress: &Progress) {
        let text = describe(progress);
        if let Some(bar) = &self.bar {
            bar.set_length(progress.total);
            bar.set_position(progress.running);
            bar.set_message(text);
            return;
        }
        let line = format!(
            "{}: {}/{} run{}{text}",
            self.title,
            progress.running,
            progress.total,
            if text.is_empty() { "" } else { ", " }
        );
        self.line(line);
    }

    /// Shows a line below the title when there is nothing to count.
    pub(crate) fn note(&mut self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        } else {
            self.line(format!("{}: {text}", self.title));
        }
    }

    /// Lets something else be said without drawing over it.
    pub(crate) fn pause(&self, say: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(say),
            None => say(),
        }
    }

    fn line(&mut self, line: String) {
        let due = self
            .said
            .as_ref()
            .is_none_or(|(at, last)| at.elapsed() >= LINE_EVERY && *last != line);
        if due {
            say(&line);
            self.said = Some((Instant::now(), line));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn describe(progress: &Progress) -> String {
    let mut parts = Vec::new();
    let failing = progress.failing.min(progress.starting);
    let counts = [
        (progress.starting - failing, "starting"),
        (failing, "failing"),
        (
            progress.waiting.saturating_sub(progress.unplaceable),
            "waiting",
        ),
        (progress.unplaceable, "without a place"),
        (progress.fencing, WAITS_FOR_FENCE),
        (progress.unknown, ON_SILENT),
        (progress.stopping, "stopping"),
        (progress.failed, "failed"),
    ];
    for (count, word) in counts {
        if count > 0 {
            parts.push(format!("{count} {word}"));
        }
    }
    if let Some(left) = progress.eta_ms {
        // When the rest will run, nobody can promise.
        let rest = failing + progress.unplaceable + progress.fencing + progress.unknown;
        let whose = if rest > 0 { " for the others" } else { "" };
        let left = eta(Duration::from_millis(left));
        parts.push(format!("about {left} left{whose}"));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_in_words_without_zeros() {
        let progress = Progress {
            total: 10,
            running: 4,
            starting: 2,
            waiting: 4,
            eta_ms: Some(12_000),
            ..Progress::default()
        };
        assert_eq!(describe(&progress), "2 starting, 4 waiting, about 12s left");
        let failing = Progress {
            failing: 2,
            ..progress
        };
        assert_eq!(
            describe(&failing),
            "2 failing, 4 waiting, about 12s left for the others"
        );
        let fencing = Progress {
            total: 5,
            running: 4,
            fencing: 1,
            ..Progress::default()
        };
        assert_eq!(describe(&fencing), "1 waiting for a fence hook");
    }
}

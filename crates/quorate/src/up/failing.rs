//! What fails while everything comes up, told when it happens and once: a misspelt command is seen at its first
//! failure, and a thousand partitions that fail for one reason are one line.

use std::collections::BTreeSet;

use quorate_api::resources::PartitionView;

use crate::cli::exit_text;
use crate::daemon;
use crate::output::one_line;

/// Reasons that are told; the summary names what does not run.
const TOLD_MAX: usize = 10;

/// The failures that were told.
#[derive(Debug, Default)]
pub(super) struct Failing {
    /// A service and how a run of it ended.
    told: BTreeSet<(String, String)>,
}

impl Failing {
    /// Whether there is room for more.
    pub(super) fn listens(&self) -> bool {
        self.told.len() < TOLD_MAX
    }

    /// A line for each reason among these that was not told yet.
    pub(super) fn news(&mut self, partitions: &[PartitionView]) -> Vec<String> {
        let mut lines = Vec::new();
        for partition in partitions.iter().filter(|partition| !partition.running) {
            let exit = partition.exit.as_ref();
            let Some(exit) = exit.filter(|exit| exit.class != "stopped") else {
                continue;
            };
            let how = one_line(&exit_text(exit));
            let reason = (partition.service.clone(), how.clone());
            if self.listens() && self.told.insert(reason) {
                let name = format!("{}/{}", partition.service, partition.key);
                let on = partition.agent.as_deref();
                let on = on.map_or_else(String::new, |agent| format!(" on {agent}"));
                lines.push(format!(
                    "! {name} failed{on}: {how}; {} why {}",
                    daemon::typed(),
                    daemon::quoted(&name)
                ));
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(key: &str, class: &str, cause: &str) -> PartitionView {
        serde_json::from_value(serde_json::json!({
            "service": "feeds", "key": key, "state": "assumed", "running": false, "agent": "a1", "token": 1,
            "since": null, "restarts": 0, "waiting": null, "weight": 1,
            "exit": { "class": class, "code": null, "signal": null, "cause": cause },
        }))
        .expect("a partition")
    }

    #[test]
    fn each_reason_of_a_service_is_told_once() {
        let mut failing = Failing::default();
        let all = [
            failed("a", "not_started", "/nosuch does not exist"),
            failed("b", "not_started", "/nosuch does not exist"),
            failed("c", "stopped", ""),
        ];
        let [line] = failing.news(&all).try_into().expect("one line");
        assert!(
            line.starts_with("! feeds/a failed on a1: not started: /nosuch does not exist; "),
            "{line}"
        );
        assert!(line.ends_with(" why feeds/a"), "{line}");
        assert!(failing.news(&all).is_empty());
        assert_eq!(failing.news(&[failed("b", "killed", "too long")]).len(), 1);
        let many = (0..100).map(|n| failed("b", "crash", &n.to_string()));
        assert_eq!(failing.news(&many.collect::<Vec<_>>()).len(), TOLD_MAX - 2);
    }
}

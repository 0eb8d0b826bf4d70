//! Folding who may do what.

use crate::access::{self, Credentials, Node};
use crate::history::Change;
use crate::ids::NodeName;

use super::apply::Fold;
use super::{Cluster, Refused};

impl Cluster {
    /// The tokens of people and of machines that join.
    #[must_use]
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    pub(super) fn fold_access(
        &mut self,
        fold: &mut Fold,
        record: access::Record,
    ) -> Result<(), Refused> {
        self.credentials
            .check(fold.wall, &record)
            .map_err(Refused::Access)?;
        if let access::Record::Admitted(admission) = &record
            && !self.credentials.has_let_in(admission)
            && self.knows(admission.node, &admission.name)
        {
            // It comes as if it were new; whoever has the certificate of before is somebody else.
            self.bar(fold, admission.node, admission.name.as_str());
        }
        let changed = self.credentials.fold((fold.at, fold.wall), record);
        let changed = changed.map_err(Refused::Access)?;
        fold.changes.extend(changed.map(Change::Access));
        Ok(())
    }

    fn knows(&self, node: Node, name: &NodeName) -> bool {
        match node {
            Node::Agent => self.agents.contains_key(name.as_str()),
            Node::Director => self.directors.contains_key(name.as_str()),
        }
    }

    /// What a machine that was forgotten or removed can show counts no longer.
    pub(super) fn bar(&mut self, fold: &Fold, node: Node, name: &str) {
        // Names of agents and directors follow the rule of those of machines.
        if let Ok(name) = NodeName::new(name) {
            self.credentials.bar(node, &name, (fold.at, fold.wall));
        }
    }
}

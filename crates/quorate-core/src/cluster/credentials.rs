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
        let known = match &record {
            access::Record::Admitted(admission) => self.knows(admission.node, &admission.name),
            access::Record::TokenCreated(_)
            | access::Record::TokenRevoked { .. }
            | access::Record::JoinTokenCreated(_)
            | access::Record::JoinTokenRevoked { .. } => false,
        };
        let changed = self.credentials.fold((fold.at, fold.wall), record, known);
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

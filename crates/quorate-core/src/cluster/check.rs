//! Whether the state contradicts itself: for tests and the simulator, after every entry.

use std::collections::BTreeSet;

use crate::ids::{PartitionId, Token};

use super::{Cluster, State};

impl Cluster {
    /// Every contradiction found, as sentences; empty when all is well.
    ///
    /// S1 and S5 as far as the fold can see them: a partition has one holder, whose session is open and
    /// knows of it. S3: no two rights share a token, none is above the counter.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.check_services(&mut found);
        self.check_partitions(&mut found);
        self.check_sessions(&mut found);
        found.extend(self.credentials.contradictions());
        found.extend(self.repeats.contradictions());
        let mut directors = self.directors.values();
        if let Some(director) = directors.find(|director| director.format < self.format) {
            found.push(format!(
                "director {} does not read format {}, which the ledger has",
                director.name, self.format
            ));
        }
        found
    }

    fn check_services(&self, found: &mut Vec<String>) {
        if self.services.len() != self.service_ids.len() {
            found.push("services and their names differ in number".to_owned());
        }
        let mut listed = 0;
        for (name, id) in &self.service_ids {
            let Some(service) = self.services.get(id.0) else {
                found.push(format!("service {name} names the free slot {id}"));
                continue;
            };
            listed += service.partitions.len();
            let doomed = service.partitions.values();
            let doomed = doomed.filter(|id| self.partition(**id).is_some_and(|p| p.doomed));
            if service.name != *name || doomed.count() != service.doomed {
                found.push(format!("service {name} has a wrong name or count"));
            }
            if service.removed && service.partitions.len() != service.doomed {
                found.push(format!("removed service {name} has a partition that stays"));
            }
            if service.removed && service.partitions.is_empty() {
                found.push(format!("removed service {name} stays without a partition"));
            }
            for (key, id) in &service.partitions {
                let partition = self.partition(*id);
                if partition
                    .is_none_or(|p| p.key != *key || self.service_ids.get(name) != Some(&p.service))
                {
                    found.push(format!("{name}/{key} names the wrong slot {id}"));
                }
            }
        }
        if listed != self.partitions.len() {
            found.push(format!(
                "{listed} partitions are listed, {} exist",
                self.partitions.len()
            ));
        }
    }

    fn check_partitions(&self, found: &mut Vec<String>) {
        let mut tokens: BTreeSet<Token> = BTreeSet::new();
        for (id, partition) in self.partitions() {
            let checkpoint = partition.checkpoint();
            if checkpoint.is_some_and(|written| partition.doomed || written.token > self.last_token)
            {
                found.push(format!("the checkpoint of partition {id} is not its own"));
            }
            let Some(holder) = partition.holder() else {
                if partition.doomed {
                    found.push(format!("partition {id} is doomed, and nobody holds it"));
                }
                continue;
            };
            if !tokens.insert(holder.token) || holder.token > self.last_token {
                found.push(format!("token {} of {id} is not its own", holder.token));
            }
            let open = self.sessions.get(&holder.session);
            let session = open.or_else(|| self.expired.get(&holder.session));
            if session.is_none_or(|session| !session.held.contains(&id)) {
                found.push(format!(
                    "partition {id} is held by {}, which does not know",
                    holder.session
                ));
            }
            let stopping = matches!(partition.state, State::Stopping(..));
            if !stopping && !self.wanted(partition) {
                found.push(format!("partition {id} is not wanted, yet not stopping"));
            }
        }
    }

    fn check_sessions(&self, found: &mut Vec<String>) {
        let mut held: BTreeSet<PartitionId> = BTreeSet::new();
        for (id, session) in self.sessions.iter().chain(&self.expired) {
            for partition in &session.held {
                let holder = self.partition(*partition).and_then(|p| p.holder());
                if !held.insert(*partition) || holder.map(|holder| holder.session) != Some(*id) {
                    found.push(format!("session {id} wrongly claims {partition}"));
                }
            }
            let agent = self.agents.get(&session.agent);
            if session.id != *id || *id > self.last_session {
                found.push(format!("session {id} has a wrong id"));
            }
            let listed = |agent: &super::Agent| {
                if self.expired.contains_key(id) {
                    agent.expired.contains(id)
                } else {
                    agent.sessions.contains(id)
                }
            };
            if !agent.is_some_and(listed) {
                found.push(format!("session {id} is unknown to its agent"));
            }
            if self.expired.contains_key(id) && session.held.is_empty() {
                found.push(format!("session {id} is over and holds nothing"));
            }
        }
        for (name, agent) in &self.agents {
            if agent.info.name != *name || agent.incarnation > self.last_incarnation {
                found.push(format!("agent {name} has a wrong name or incarnation"));
            }
            if agent
                .sessions
                .iter()
                .any(|id| !self.sessions.contains_key(id))
            {
                found.push(format!("agent {name} has a session that is over"));
            }
        }
    }
}

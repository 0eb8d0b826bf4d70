//! The calls of people and programs: one method for each route.

use std::time::Duration;

use reqwest::Method;
use serde::de::DeserializeOwned;

use super::transport::Call;
use super::{Client, Error, EventStream};
use crate::checkpoint::{CheckpointView, Content};
use crate::resources::{
    AddMember, AgentView, ApplyAnswer, ApplyRequest, ClusterView, DirectorView, Done, EvictRequest,
    HistoryView, Page, PartitionState, PartitionView, Plan, Progress, ServiceView, TransferLeader,
    Why,
};
use crate::routes::{self, fill};

/// A value and the ledger position that it shows.
#[derive(Clone, Debug)]
pub struct Indexed<T> {
    /// The position. Pass it to [`Wait`] to hear of the next change.
    pub index: u64,
    /// The value.
    pub value: T,
}

/// Waits for a change: the answer comes when the ledger is past `index`, or when `wait` is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The position that is already known.
    pub index: u64,
    /// How long to wait at most.
    pub wait: Duration,
}

/// Which partitions to list. The default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionFilter {
    /// Of this service only.
    pub service: Option<String>,
    /// In this state only.
    pub state: Option<PartitionState>,
    /// On this agent only.
    pub agent: Option<String>,
    /// Only those that should run and do not, or that failed.
    pub problems: bool,
    /// With these labels, `name=value`.
    pub labels: Vec<String>,
}

/// Which agents to list. The default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentFilter {
    /// Only those that are not active.
    pub problems: bool,
    /// With these labels, `name=value`.
    pub labels: Vec<String>,
}

/// Which events to hear. The default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Of this service only.
    pub service: Option<String>,
    /// Of this partition of the service only.
    pub key: Option<String>,
    /// Of this agent only.
    pub agent: Option<String>,
    /// First those of the last so long, such as `10m`; not together with a place to go on from.
    pub since: Option<String>,
}

impl Client {
    /// All services, those that are being removed included.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn services(&self, wait: Option<Wait>) -> Result<Indexed<Vec<ServiceView>>, Error> {
        self.list(routes::SERVICES.to_owned(), Vec::new(), wait)
            .await
    }

    /// Services with something that does not run as it should, or whose source is refused.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn services_with_problems(
        &self,
        wait: Option<Wait>,
    ) -> Result<Indexed<Vec<ServiceView>>, Error> {
        let problems = vec![("problems", "true".to_owned())];
        self.list(routes::SERVICES.to_owned(), problems, wait).await
    }

    /// One service with its specification.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn service(&self, name: &str) -> Result<Indexed<ServiceView>, Error> {
        self.read(fill(routes::SERVICE, &[name]), None).await
    }

    /// Puts one service, its specification in the shape of the file.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn put_service(
        &self,
        name: &str,
        spec: &serde_json::Value,
    ) -> Result<ApplyAnswer, Error> {
        let call = Call::write(Method::PUT, fill(routes::SERVICE, &[name])).json(spec);
        Ok(self.call(call).await?.1)
    }

    /// Removes a service; its runs are stopped.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn remove_service(&self, name: &str) -> Result<Done, Error> {
        let call = Call::write(Method::DELETE, fill(routes::SERVICE, &[name]));
        Ok(self.call(call).await?.1)
    }

    /// Removes services, all or nothing; their runs are stopped.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn remove_services(&self, names: &[&str]) -> Result<Done, Error> {
        let mut call = Call::write(Method::DELETE, routes::SERVICES.to_owned());
        for name in names {
            call = call.query("name", *name);
        }
        Ok(self.call(call).await?.1)
    }

    /// Puts services, all or nothing.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn apply(&self, request: &ApplyRequest) -> Result<ApplyAnswer, Error> {
        let call = Call::post(routes::APPLY.to_owned()).json(request);
        Ok(self.call(call).await?.1)
    }

    /// What [`apply`](Self::apply) would change.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn plan(&self, request: &ApplyRequest) -> Result<Plan, Error> {
        let mut call = Call::post(routes::PLAN.to_owned()).json(request);
        call.repeat = super::transport::Repeat::Read;
        Ok(self.call(call).await?.1)
    }

    /// The partitions that the filter lets through, all pages of them.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn partitions(
        &self,
        filter: &PartitionFilter,
        wait: Option<Wait>,
    ) -> Result<Indexed<Vec<PartitionView>>, Error> {
        self.list(routes::PARTITIONS.to_owned(), filter.query(), wait)
            .await
    }

    /// One page of partitions: at most `limit`, after `cursor`.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn partitions_page(
        &self,
        filter: &PartitionFilter,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<Page<PartitionView>, Error> {
        let mut call = Call::get(routes::PARTITIONS.to_owned()).query("limit", limit);
        call.query.extend(filter.query());
        if let Some(cursor) = cursor {
            call = call.query("cursor", cursor);
        }
        Ok(self.call(call).await?.1)
    }

    /// One partition.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn partition(
        &self,
        service: &str,
        key: &str,
        wait: Option<Wait>,
    ) -> Result<Indexed<PartitionView>, Error> {
        self.read(fill(routes::PARTITION, &[service, key]), wait)
            .await
    }

    /// The last checkpoint of a partition.
    ///
    /// # Errors
    /// As [`Error`] says; `NotFound` when it has none.
    pub async fn checkpoint(
        &self,
        service: &str,
        key: &str,
    ) -> Result<Indexed<CheckpointView>, Error> {
        self.read(fill(routes::PARTITION_CHECKPOINT, &[service, key]), None)
            .await
    }

    /// Keeps a checkpoint for the owner of a partition, which proves itself by its token. With a number it
    /// replaces only one with a lower number of this token.
    ///
    /// # Errors
    /// As [`Error`] says; `Fenced` when the token has ended, `Conflict` when a later one is kept.
    pub async fn put_checkpoint(
        &self,
        service: &str,
        key: &str,
        (token, number): (u64, Option<u64>),
        content: &Content,
    ) -> Result<Done, Error> {
        let path = fill(routes::PARTITION_CHECKPOINT, &[service, key]);
        let mut call = Call::write(Method::PUT, path).query("token", token);
        if let Some(number) = number {
            call = call.query("number", number);
        }
        let call = call.json(content);
        Ok(self.call(call).await?.1)
    }

    /// Why a partition is where it is, or nowhere.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn why(&self, service: &str, key: &str) -> Result<Why, Error> {
        let path = fill(routes::PARTITION_WHY, &[service, key]);
        Ok(self.call(Call::get(path)).await?.1)
    }

    /// Who held a partition, when, with which token, and why it moved.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn history(&self, service: &str, key: &str) -> Result<HistoryView, Error> {
        let path = fill(routes::PARTITION_HISTORY, &[service, key]);
        Ok(self.call(Call::get(path)).await?.1)
    }

    /// Stops and starts runs where they are: of one partition, or of a whole service.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn restart(&self, service: &str, key: Option<&str>) -> Result<Done, Error> {
        let paths = (routes::SERVICE_RESTART, routes::PARTITION_RESTART);
        self.operate(paths, service, key).await
    }

    /// Wants runs stopped: of one partition, or of a whole service.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn stop(&self, service: &str, key: Option<&str>) -> Result<Done, Error> {
        let paths = (routes::SERVICE_STOP, routes::PARTITION_STOP);
        self.operate(paths, service, key).await
    }

    /// Wants partitions to run: one, or those of a whole service.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn start(&self, service: &str, key: Option<&str>) -> Result<Done, Error> {
        let paths = (routes::SERVICE_START, routes::PARTITION_START);
        self.operate(paths, service, key).await
    }

    /// All agents.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn agents(&self, wait: Option<Wait>) -> Result<Indexed<Vec<AgentView>>, Error> {
        self.agents_where(&AgentFilter::default(), wait).await
    }

    /// Forgets an agent that is gone for good.
    ///
    /// # Errors
    /// As [`Error`] says; `Conflict` when it is not gone.
    pub async fn forget_agent(&self, name: &str) -> Result<Done, Error> {
        let path = fill(routes::AGENT, &[name]);
        Ok(self.call(Call::write(Method::DELETE, path)).await?.1)
    }

    /// The agents that the filter lets through.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn agents_where(
        &self,
        filter: &AgentFilter,
        wait: Option<Wait>,
    ) -> Result<Indexed<Vec<AgentView>>, Error> {
        self.list(routes::AGENTS.to_owned(), filter.query(), wait)
            .await
    }

    /// One agent.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn agent(&self, name: &str, wait: Option<Wait>) -> Result<Indexed<AgentView>, Error> {
        self.read(fill(routes::AGENT, &[name]), wait).await
    }

    /// Moves everything off an agent and gives it nothing new.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn drain(&self, agent: &str) -> Result<Done, Error> {
        let path = fill(routes::AGENT_DRAIN, &[agent]);
        Ok(self.call(Call::post(path)).await?.1)
    }

    /// Takes everything from a silent agent, at the risk that its processes still execute.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn evict(&self, agent: &str, request: &EvictRequest) -> Result<Done, Error> {
        let path = fill(routes::AGENT_EVICT, &[agent]);
        Ok(self.call(Call::post(path).json(request)).await?.1)
    }

    /// Gives an agent nothing new.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn cordon(&self, agent: &str) -> Result<Done, Error> {
        let path = fill(routes::AGENT_CORDON, &[agent]);
        Ok(self.call(Call::post(path)).await?.1)
    }

    /// Gives an agent work again.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn uncordon(&self, agent: &str) -> Result<Done, Error> {
        let path = fill(routes::AGENT_UNCORDON, &[agent]);
        Ok(self.call(Call::post(path)).await?.1)
    }

    /// The directors.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn directors(&self) -> Result<Indexed<Vec<DirectorView>>, Error> {
        self.list(routes::DIRECTORS.to_owned(), Vec::new(), None)
            .await
    }

    /// The quorum of directors, as the leader sees it.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn cluster(&self) -> Result<ClusterView, Error> {
        Ok(self.call(Call::get(routes::CLUSTER.to_owned())).await?.1)
    }

    /// Adds a director that waits to be added; it does not vote yet.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn add_member(&self, member: &AddMember) -> Result<Done, Error> {
        let call = Call::post(routes::CLUSTER_MEMBERS.to_owned()).json(member);
        Ok(self.call(call).await?.1)
    }

    /// Gives a member of the quorum that has caught up a vote.
    ///
    /// # Errors
    /// As [`Error`] says; `Unavailable` while it has not caught up.
    pub async fn promote_member(&self, name: &str) -> Result<Done, Error> {
        let call = Call::post(fill(routes::CLUSTER_PROMOTE, &[name]));
        Ok(self.call(call).await?.1)
    }

    /// Removes a member of the quorum for good.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn remove_member(&self, name: &str) -> Result<Done, Error> {
        let call = Call::write(Method::DELETE, fill(routes::CLUSTER_MEMBER, &[name]));
        Ok(self.call(call).await?.1)
    }

    /// Hands leadership over, to a member or to the one that lacks least.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn transfer_leader(&self, to: Option<&str>) -> Result<Done, Error> {
        let to = TransferLeader {
            to: to.map(str::to_owned),
        };
        let call = Call::post(routes::CLUSTER_TRANSFER.to_owned()).json(&to);
        Ok(self.call(call).await?.1)
    }

    /// How far everything has come up: of one service, or of all.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn progress(
        &self,
        service: Option<&str>,
        wait: Option<Wait>,
    ) -> Result<Progress, Error> {
        let mut call = Call::get(routes::PROGRESS.to_owned());
        if let Some(service) = service {
            call = call.query("service", service);
        }
        Ok(self.call(waiting(call, wait)).await?.1)
    }

    /// The same as the leader sees it, who alone knows whether everything has settled.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn settling(
        &self,
        service: Option<&str>,
        wait: Option<Wait>,
    ) -> Result<Progress, Error> {
        let mut call = Call::get(routes::PROGRESS.to_owned()).query("leader", true);
        if let Some(service) = service {
            call = call.query("service", service);
        }
        Ok(self.call(waiting(call, wait)).await?.1)
    }

    /// Events as they happen. With `after`, the `id` of an event, first those since then.
    ///
    /// # Errors
    /// As [`Error`] says; `Gone` when those since then are no longer kept.
    pub async fn events(
        &self,
        filter: &EventFilter,
        after: Option<String>,
    ) -> Result<EventStream, Error> {
        EventStream::open(self.clone(), filter.clone(), after).await
    }

    /// Whether a director answers and is ready.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn ready(&self) -> Result<(), Error> {
        self.send(Call::get(routes::READYZ.to_owned())).await?;
        Ok(())
    }

    /// Any path as it is, for looking: the body as text, which is JSON at most paths.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn get_raw(&self, path: &str) -> Result<String, Error> {
        self.text(Call::get(path.to_owned())).await
    }

    async fn operate(
        &self,
        (whole, one): (&str, &str),
        service: &str,
        key: Option<&str>,
    ) -> Result<Done, Error> {
        let path = match key {
            None => fill(whole, &[service]),
            Some(key) => fill(one, &[service, key]),
        };
        Ok(self.call(Call::post(path)).await?.1)
    }

    async fn read<T: DeserializeOwned>(
        &self,
        path: String,
        wait: Option<Wait>,
    ) -> Result<Indexed<T>, Error> {
        let (index, value) = self.call(waiting(Call::get(path), wait)).await?;
        Ok(Indexed { index, value })
    }

    /// All pages. The index is that of the first: a change in between is heard of again.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        path: String,
        query: Vec<(&'static str, String)>,
        wait: Option<Wait>,
    ) -> Result<Indexed<Vec<T>>, Error> {
        let page = |cursor: Option<String>| {
            let mut call = Call::get(path.clone()).query("limit", routes::PAGE_MAX);
            call.query.extend(query.iter().cloned());
            match cursor {
                None => waiting(call, wait),
                Some(cursor) => call.query("cursor", cursor),
            }
        };
        let (_, first): (u64, Page<T>) = self.call(page(None)).await?;
        let (index, mut value, mut next) = (first.index, first.items, first.next);
        while let Some(cursor) = next {
            let (_, more): (u64, Page<T>) = self.call(page(Some(cursor))).await?;
            value.extend(more.items);
            next = more.next;
        }
        Ok(Indexed { index, value })
    }
}

impl PartitionFilter {
    fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = Vec::new();
        let mut add = |name, value: Option<&str>| {
            query.extend(value.map(|value| (name, value.to_owned())));
        };
        add("service", self.service.as_deref());
        add("state", self.state.map(PartitionState::as_str));
        add("agent", self.agent.as_deref());
        add("problems", self.problems.then_some("true"));
        for label in &self.labels {
            add("label", Some(label));
        }
        query
    }
}

impl AgentFilter {
    fn query(&self) -> Vec<(&'static str, String)> {
        let labels = self.labels.iter().map(|label| ("label", label.clone()));
        let problems = self.problems.then(|| ("problems", "true".to_owned()));
        problems.into_iter().chain(labels).collect()
    }
}

impl EventFilter {
    pub(super) fn query(&self) -> Vec<(&'static str, String)> {
        let all = [
            ("service", &self.service),
            ("key", &self.key),
            ("agent", &self.agent),
            ("since", &self.since),
        ];
        all.into_iter()
            .filter_map(|(name, value)| Some((name, value.clone()?)))
            .collect()
    }
}

/// The call as a blocking query.
fn waiting(call: Call, wait: Option<Wait>) -> Call {
    match wait {
        None => call,
        Some(Wait { index, wait }) => call
            .query("index", index)
            .query("wait", format!("{}ms", wait.as_millis()))
            .wait(wait),
    }
}

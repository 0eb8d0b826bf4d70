//! Properties over random clusters with ideal agents.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::{
    Just, ProptestConfig, Strategy as Random, prop, prop_assert, prop_assert_eq, prop_oneof,
    proptest,
};

use super::*;
use crate::cluster::State;
use crate::ids::PartitionKey;
use crate::record::{Record, ReleaseOutcome};

use crate::time::WallTime;

use super::world::*;

#[derive(Clone, Debug)]
enum Step {
    Join(usize),
    Expire(usize),
    Set(usize, Schedulable),
    Wait(u64),
    Fail(u32),
    Partition(u32, bool),
}

fn step() -> impl Random<Value = Step> {
    let schedulable = prop_oneof![
        3 => Just(Schedulable::Active),
        1 => Just(Schedulable::Cordoned),
        1 => Just(Schedulable::Draining),
    ];
    prop_oneof![
        3 => (0usize..5).prop_map(Step::Join),
        2 => (0usize..5).prop_map(Step::Expire),
        2 => (0usize..5, schedulable).prop_map(|(n, s)| Step::Set(n, s)),
        2 => (0u64..8).prop_map(Step::Wait),
        1 => (0u32..20).prop_map(Step::Fail),
        1 => (0u32..20, prop::bool::ANY).prop_map(|(n, here)| Step::Partition(n, here)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn with_ideal_agents_everything_runs_evenly_and_then_nothing_more_is_decided(
        count in 1usize..20,
        steps in prop::collection::vec((step(), prop::bool::ANY), 0..20),
    ) {
        let mut world = World::new();
        world.keys("feeds", spec(|spec| spec.ramp.per_agent = Some(3)), count);
        let mut here = BTreeSet::new();
        let mut failed = false;
        for (step, settles) in steps {
            match step {
                Step::Join(n) => if here.insert(n) { world.join(NAMES[n]) },
                Step::Expire(n) => if here.remove(&n) { world.expire(NAMES[n]) },
                Step::Set(n, s) => if here.contains(&n) { world.set(NAMES[n], s) },
                Step::Wait(seconds) => world.wait(seconds),
                Step::Fail(n) => {
                    let partition = world.cluster.partition(PartitionId(n));
                    if let Some(State::Assumed(holder)) = partition.map(|p| p.state()) {
                        let token = holder.token;
                        world.fold(vec![released(PartitionId(n), token, ReleaseOutcome::Move)]);
                        failed = true;
                    }
                }
                Step::Partition(n, there) => {
                    let key = format!("p{n:03}");
                    let known = world.cluster.partition_id(&service("feeds"), &PartitionKey::new(&key).unwrap());
                    if there {
                        world.fold(vec![Record::PartitionsPut { service: service("feeds"), partitions: vec![partition(&key)] }]);
                    } else if known.is_some() {
                        world.fold(vec![Record::PartitionsRemoved { service: service("feeds"), keys: vec![PartitionKey::new(&key).unwrap()] }]);
                    }
                }
            }
            if settles {
                let decision = world.decide();
                world.carry_out(&decision);
            } else {
                world.run();
            }
        }
        world.run();
        prop_assert!(world.decide().is_empty());
        // What was too slow to be assumed is kept away from there as well, for a while.
        let failed = failed || !world.planner.exiled.is_empty();
        let open: BTreeSet<&str> = world.cluster.agents().values()
            .filter(|agent| !agent.sessions().is_empty() && agent.schedulable() == Schedulable::Active)
            .map(|agent| agent.name().as_str())
            .collect();
        let counts = world.counts();
        for (id, partition) in world.cluster.partitions() {
            let runs = matches!(partition.state(), State::Assumed(_));
            prop_assert!(runs || !world.waiting(id.0).is_empty(), "{id} neither runs nor has a reason");
            prop_assert!(runs || open.is_empty(), "{id} does not run: {}", world.waiting(id.0));
        }
        if !failed {
            let loads = open.iter().map(|agent| counts.get(agent).copied().unwrap_or(0));
            let (low, high) = loads.fold((usize::MAX, 0), |(l, h), n| (l.min(n), h.max(n)));
            prop_assert!(open.is_empty() || high - low <= 1, "{counts:?}");
            let draining = world.cluster.agents().values().filter(|a| a.schedulable() == Schedulable::Draining);
            let left = draining.map(|a| counts.get(a.name().as_str()).copied().unwrap_or(0)).sum::<usize>();
            prop_assert!(open.is_empty() || left == 0);
        }
        // A new leader, who knows nothing of what was planned, leaves everything as it is.
        world.planner = Planner::new(PlannerConfig::default(), WallTime::default());
        prop_assert_eq!(world.decide().revoke, Vec::new());
    }

    #[test]
    fn a_change_of_agents_moves_exactly_the_least(
        count in 1usize..40,
        before in prop::collection::btree_set(0usize..5, 1..5),
        after in prop::collection::btree_set(0usize..5, 1..5),
    ) {
        let mut world = World::new();
        for n in &before {
            world.join(NAMES[*n]);
        }
        world.decide();
        world.wait(60);
        world.keys("feeds", spec(|_| {}), count);
        world.run();
        let held: BTreeMap<String, usize> = world.counts().into_iter().map(|(a, c)| (a.to_owned(), c)).collect();
        for n in before.difference(&after) {
            world.expire(NAMES[*n]);
        }
        for n in after.difference(&before) {
            world.join(NAMES[*n]);
        }
        let assigned = world.run();
        let of = |n: &usize| held.get(NAMES[*n]).copied().unwrap_or(0);
        let lost: usize = before.difference(&after).map(of).sum();
        let (floor, mut rest) = (count / after.len(), count % after.len());
        let mut kept: Vec<usize> = after.iter().map(of).collect();
        kept.sort_unstable_by(|a, b| b.cmp(a));
        let mut least = lost;
        for held in kept {
            let extra = usize::from(rest > 0 && held > floor);
            rest -= extra;
            least += held.saturating_sub(floor + extra);
        }
        prop_assert_eq!(assigned, least);
    }
}

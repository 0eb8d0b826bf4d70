//! Directors tell where they are reached and what they can read, so that agents and people find all of
//! them, and a new format is written only once all of them read it.

use std::collections::BTreeSet;

use crate::cluster::DIRECTORS_MAX;
use crate::ids::DirectorName;
use crate::record::{DirectorInfo, Record};

use super::Director;
use super::batch::{Batch, Reply};
use super::call::Refusal;
use super::calls::{Decided, not_found};

/// Most bytes of an address: a host name has at most 253.
const ADDRESS_MAX: usize = 300;
/// Most bytes of a version.
const VERSION_MAX: usize = 100;

impl Director {
    /// What is known already is not written again.
    pub(super) fn decide_announce(&self, director: DirectorInfo) -> Decided {
        let fits = (1..=ADDRESS_MAX).contains(&director.address.len())
            && director.version.len() <= VERSION_MAX;
        if !fits {
            return Err(Refusal::Conflict(format!(
                "the address of a director has 1 to {ADDRESS_MAX} bytes, its version at most {VERSION_MAX}"
            )));
        }
        let format = self.cluster.format();
        if director.format < format {
            let DirectorInfo { name, version, .. } = director;
            let reads = director.format;
            return Err(Refusal::Conflict(format!(
                "director {name} ({version}) reads the ledger up to format {reads}, and the ledger has format \
                 {format}; start it with the version of the others"
            )));
        }
        let known = self.cluster.directors();
        match known.get(&director.name) {
            Some(before) if *before == director => return Ok((Vec::new(), Reply::done())),
            None if known.len() >= DIRECTORS_MAX => {
                return Err(Refusal::Conflict(format!(
                    "{DIRECTORS_MAX} directors are known, as many as may be; remove those that are gone"
                )));
            }
            Some(_) | None => {}
        }
        Ok((vec![Record::DirectorKnown { director }], Reply::done()))
    }

    /// The format rises to what all directors read, and never while one of them has not told what that is.
    ///
    /// A director of an earlier version that starts at this very moment may not have told yet. It stops at the
    /// entry, and goes on once it is of the version of the others.
    pub(super) fn decide_format(
        &self,
        batch: &Batch,
        members: &BTreeSet<DirectorName>,
    ) -> (Vec<Record>, Reply) {
        let mut before = batch.records().iter();
        // Who is just telling may read less. The leader is told of the members again.
        let telling = before
            .any(|record| matches!(record, Record::DirectorKnown { .. } | Record::Format { .. }));
        let read = self.cluster.read_by_all(members).filter(|_| !telling);
        let read = read.map(|format| format.min(self.config.formats.newest));
        let higher = read.filter(|format| *format > self.cluster.format());
        let record = higher.map(|format| Record::Format { format });
        // In a later entry it might be decided by what is over then.
        let records = record.filter(|record| batch.has_room_for(record));
        (records.into_iter().collect(), Reply::done())
    }

    pub(super) fn decide_forget_director(&self, director: DirectorName) -> Decided {
        if !self.cluster.directors().contains_key(&director) {
            return Err(not_found("director", director.as_str()));
        }
        Ok((vec![Record::DirectorForgotten { director }], Reply::done()))
    }
}

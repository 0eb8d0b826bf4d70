//! Directors tell where they are reached and what they can read, so that agents and people find all of
//! them, and a new format is written only once all of them read it.

use crate::cluster::DIRECTORS_MAX;
use crate::ids::DirectorName;
use crate::record::{DirectorInfo, Record};

use super::Director;
use super::batch::Reply;
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

    pub(super) fn decide_forget_director(&self, director: DirectorName) -> Decided {
        if !self.cluster.directors().contains_key(&director) {
            return Err(not_found("director", director.as_str()));
        }
        Ok((vec![Record::DirectorForgotten { director }], Reply::done()))
    }
}

//! The papers of a director: found in its data folder, used by everything that listens and asks, and renewed
//! before they end.
//!
//! A folder with papers makes a director ask everybody who he is. Nothing else turns that on, so that nothing
//! can forget to.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use quorate_core::ids::ClusterId;
use quorate_director::Config;
use quorate_pki::{
    AUTHORITY_KEY, Authority, ClientTls, Error, FOLDER, PAPERS, Papers, Role, ServerTls, TRUST,
    Trust, Validity,
};
use quorate_raft::{Embedded, PeerTls};

use crate::failure::{Code, Failure, chain};

/// Looked at so often: the wall clock may be set, and a machine may sleep.
const LOOK_EVERY: Duration = Duration::from_mins(10);
/// Between two tries to renew.
const AGAIN_AFTER: Duration = Duration::from_mins(1);

/// The papers of one director.
#[derive(Debug)]
pub(crate) struct DirectorPapers {
    folder: PathBuf,
    trust: Trust,
    papers: Mutex<Papers>,
    server: Arc<ServerTls>,
    client: ClientTls,
    authority: Option<Arc<Authority>>,
}

impl DirectorPapers {
    /// Those of a data folder; `None` when it has no folder for them.
    ///
    /// # Errors
    /// When something in there cannot be used.
    pub(crate) fn find(data_dir: &Path) -> Result<Option<Self>, Failure> {
        let folder = data_dir.join(FOLDER);
        if !is_there(&folder) {
            return Ok(None);
        }
        let loaded = Self::load(&folder);
        loaded.map(Some).map_err(|error| unusable(&folder, &error))
    }

    fn load(folder: &Path) -> Result<Self, Error> {
        let trust = Trust::load(&folder.join(TRUST))?;
        let authority = if is_there(&folder.join(AUTHORITY_KEY)) {
            Some(Arc::new(Authority::load(folder)?))
        } else {
            None
        };
        let mut papers = Papers::load(&folder.join(PAPERS))?;
        if let Some(authority) = authority.as_ref().filter(|_| is_due(&papers)) {
            // It was off for long; it signs for itself before anybody asks.
            papers = renewed(folder, &papers, authority)?;
        }
        let server = Arc::new(ServerTls::new(&papers, &trust)?);
        let client = ClientTls::new(&trust, Some(&papers))?;
        Ok(Self {
            folder: folder.to_owned(),
            trust,
            papers: Mutex::new(papers),
            server,
            client,
            authority,
        })
    }

    /// Makes a director serve its API over TLS and ask everybody who he is.
    ///
    /// # Errors
    /// When the papers are those of a director of another name.
    pub(crate) fn protect(&self, config: &mut Config) -> Result<(), Failure> {
        are_of(&self.folder, &self.now(), config.name.as_str())?;
        config.tls = Some(Arc::clone(&self.server));
        config.to_directors = Some(self.client.clone());
        config.authority = self.authority.clone();
        if self.authority.is_none() {
            tracing::warn!(
                folder = %self.folder.display(),
                "this director has no {AUTHORITY_KEY}: while it leads no machine is let in and no certificate is \
                 renewed; copy it from another director and start this one again"
            );
        }
        config.authentication = true;
        Ok(())
    }

    /// The cluster that they are for.
    pub(crate) const fn cluster(&self) -> ClusterId {
        self.trust.cluster()
    }

    /// Their folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// TLS of who asks other directors as this one.
    pub(crate) const fn client(&self) -> &ClientTls {
        &self.client
    }

    /// What the transport between directors takes.
    pub(crate) fn of_peer(&self) -> PeerTls {
        let papers = self.now();
        PeerTls {
            chain: papers.chain_pem().into(),
            key: papers.key_pem().into(),
            authority: self.trust.pem().into(),
        }
    }

    fn now(&self) -> Papers {
        let papers = self.papers.lock();
        papers.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Renews them whenever that is due; never ends. `ledger` is the one that shows them to other directors.
    pub(crate) async fn keep(&self, ledger: Option<&Embedded>) {
        loop {
            self.until_due().await;
            match self.renew(ledger).await {
                Ok(()) => tracing::info!(papers = %self.now(), "the certificate was renewed"),
                Err(failure) => {
                    let (why, next) = (failure.first.sentence, failure.first.next);
                    tracing::error!(why, next, papers = %self.now(), "the certificate was not renewed");
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
            }
        }
    }

    async fn until_due(&self) {
        let papers = self.now();
        while let Ok(left) = papers.renew_at().duration_since(SystemTime::now()) {
            tokio::time::sleep(left.min(LOOK_EVERY)).await;
            // Made when the clock was ahead, they would be good much later than they are needed. Not looked at
            // before: at the start of a machine its clock may be behind for a moment.
            if !papers.is_good(SystemTime::now()) {
                return;
            }
        }
    }

    async fn renew(&self, ledger: Option<&Embedded>) -> Result<(), Failure> {
        let Some(authority) = self.authority.clone() else {
            return Err(Failure::new(
                Code::Config,
                format!("{} has no {AUTHORITY_KEY}", self.folder.display()),
                "copy it from another director, for its owner alone (0600), and start this one again",
            ));
        };
        let (folder, old) = (self.folder.clone(), self.now());
        let next = tokio::task::spawn_blocking(move || renewed(&folder, &old, &authority)).await;
        let next = next.map_err(|error| broken(error.to_string()))?;
        let next = next.map_err(|error| unusable(&self.folder, &error))?;
        let used = self
            .server
            .renew(&next, &self.trust)
            .and_then(|()| self.client.renew(&next));
        used.map_err(|error| unusable(&self.folder, &error))?;
        *self.papers.lock().unwrap_or_else(PoisonError::into_inner) = next;
        if let Some(ledger) = ledger.filter(|ledger| ledger.peer_address().is_some()) {
            let renewed = ledger.renew_certificate(&self.of_peer());
            renewed.map_err(|error| broken(chain(&error)))?;
        }
        Ok(())
    }
}

/// Papers that are good for another director only are not to be found out about when it is too late.
fn are_of(folder: &Path, papers: &Papers, name: &str) -> Result<(), Failure> {
    let own = papers.identity();
    if own.role() == Role::Director && own.name() == name {
        return Ok(());
    }
    Err(Failure::new(
        Code::Config,
        format!(
            "{} are those of {own}, not of director \"{name}\"",
            folder.join(PAPERS).display()
        ),
        format!(
            "start it with --name {}, or choose its own folder",
            own.name()
        ),
    ))
}

/// Checks the papers in a data folder that is to become that of this director of this cluster, if it has some.
///
/// # Errors
/// When they cannot be used, or are somebody else's.
pub(crate) fn fit(data_dir: &Path, cluster: ClusterId, name: &str) -> Result<(), Failure> {
    let folder = data_dir.join(FOLDER);
    if !is_there(&folder) {
        return Ok(());
    }
    let papers = Papers::load(&folder.join(PAPERS)).map_err(|error| unusable(&folder, &error))?;
    let theirs = papers.identity().cluster();
    if theirs != cluster {
        return Err(Failure::new(
            Code::Config,
            format!(
                "{} are those of cluster {theirs}, and this is cluster {cluster}",
                folder.join(PAPERS).display()
            ),
            "put the `pki` of one of its directors there",
        ));
    }
    are_of(&folder, &papers, name)
}

fn broken(why: String) -> Failure {
    Failure::new(Code::Failed, why, "report this as a defect")
}

fn is_due(papers: &Papers) -> bool {
    papers.renew_at() <= SystemTime::now()
}

/// Whether something is there, be it a link that leads nowhere or what cannot be looked at. Whoever has lost
/// what proves who asks must not begin to ask nobody.
fn is_there(path: &Path) -> bool {
    let found = std::fs::symlink_metadata(path);
    !found.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// The next papers of the same director, written over the last.
fn renewed(folder: &Path, papers: &Papers, authority: &Authority) -> Result<Papers, Error> {
    let validity = Validity::usual(SystemTime::now());
    let next = authority.papers(papers.identity(), &papers.hosts()?, validity)?;
    next.store(&folder.join(PAPERS))?;
    Ok(next)
}

/// What is wrong with the papers of a director.
pub(crate) fn unusable(folder: &Path, error: &Error) -> Failure {
    Failure::new(
        Code::Config,
        format!("the papers of this director: {}", chain(error)),
        format!(
            "{} holds {TRUST}, {AUTHORITY_KEY} and {PAPERS}, made by `quorate init` or `quorate join`; docs/security.md tells more",
            folder.display()
        ),
    )
}

#[cfg(test)]
mod tests {
    use quorate_pki::Identity;

    use super::*;

    #[test]
    fn papers_fit_one_director_of_one_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let (own, other) = (ClusterId(7), ClusterId(8));
        let code =
            |cluster, name| fit(dir.path(), cluster, name).map_err(|refused| refused.first.code);
        assert_eq!(code(own, "d1"), Ok(()));
        let folder = dir.path().join(FOLDER);
        std::fs::create_dir(&folder).unwrap();
        assert_eq!(code(own, "d1"), Err(Code::Config));
        let now = SystemTime::now();
        let authority = Authority::new(own, now).unwrap();
        let store = |role| {
            let identity = Identity::new(own, role, "d1").unwrap();
            let papers = authority
                .papers(&identity, &[], Validity::usual(now))
                .unwrap();
            papers.store(&folder.join(PAPERS)).unwrap();
        };
        store(Role::Director);
        assert_eq!(code(own, "d1"), Ok(()));
        assert_eq!(code(own, "d2"), Err(Code::Config));
        assert_eq!(code(other, "d1"), Err(Code::Config));
        store(Role::Agent);
        assert_eq!(code(own, "d1"), Err(Code::Config));
    }

    #[test]
    fn papers_that_were_lost_do_not_make_a_director_that_asks_nobody() {
        let dir = tempfile::tempdir().unwrap();
        assert!(DirectorPapers::find(dir.path()).unwrap().is_none());
        // As after a start without the disk that they lie on.
        std::os::unix::fs::symlink(dir.path().join("gone"), dir.path().join(FOLDER)).unwrap();
        let refused = DirectorPapers::find(dir.path()).unwrap_err();
        assert_eq!(refused.first.code, Code::Config);
    }
}

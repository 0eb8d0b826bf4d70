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
        if !folder.exists() {
            return Ok(None);
        }
        let loaded = Self::load(&folder);
        loaded.map(Some).map_err(|error| unusable(&folder, &error))
    }

    fn load(folder: &Path) -> Result<Self, Error> {
        let trust = Trust::load(&folder.join(TRUST))?;
        let authority = if folder.join(AUTHORITY_KEY).exists() {
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
        let own = self.now().identity().clone();
        if own.role() != Role::Director || own.name() != config.name.as_str() {
            return Err(Failure::new(
                Code::Config,
                format!(
                    "{} are those of {own}, not of director \"{}\"",
                    self.folder.join(PAPERS).display(),
                    config.name
                ),
                format!(
                    "start it with --name {}, or choose its own folder",
                    own.name()
                ),
            ));
        }
        config.tls = Some(Arc::clone(&self.server));
        config.to_directors = Some(self.client.clone());
        config.authority = self.authority.clone();
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

    /// Renews them whenever that is due; never ends.
    pub(crate) async fn keep(&self, ledger: &Embedded) {
        loop {
            let due = self.now().renew_at();
            while let Ok(left) = due.duration_since(SystemTime::now()) {
                tokio::time::sleep(left.min(LOOK_EVERY)).await;
            }
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

    async fn renew(&self, ledger: &Embedded) -> Result<(), Failure> {
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
        if ledger.peer_address().is_some() {
            let renewed = ledger.renew_certificate(&self.of_peer());
            renewed.map_err(|error| broken(chain(&error)))?;
        }
        Ok(())
    }
}

fn broken(why: String) -> Failure {
    Failure::new(Code::Failed, why, "report this as a defect")
}

fn is_due(papers: &Papers) -> bool {
    papers.renew_at() <= SystemTime::now()
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

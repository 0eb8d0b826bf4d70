//! How the agent knows its directors and proves itself to them: files, which are read when it begins, and
//! replaced before its certificate ends.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use quorate_api::access::CertificateRequest;
use quorate_api::client::{Client, Options};
use quorate_pki::{ClientTls, FOLDER, PAPERS, Papers, Request, TRUST, Trust};
use serde::{Deserialize, Serialize};

/// Where the files are. A last will takes it along, since whoever executes it has no configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tls {
    /// The certificates of the cluster's authority.
    ca_file: PathBuf,
    /// Certificate and key of this agent, if it has some.
    papers: Option<PathBuf>,
}

/// What the files hold. Clients that are made of it show renewed papers from the next connection on.
#[derive(Debug)]
pub(crate) struct Loaded {
    client: ClientTls,
    papers: Option<Papers>,
}

impl Tls {
    /// The files that are named, or else lie in the data folder; `None` without an authority.
    pub(crate) fn find(ca_file: Option<&Path>, data_dir: &Path) -> Option<Self> {
        let folder = data_dir.join(FOLDER);
        let there = |name| Some(folder.join(name)).filter(|path: &PathBuf| path.exists());
        let ca_file = ca_file.map(Path::to_owned).or_else(|| there(TRUST))?;
        let papers = there(PAPERS);
        Some(Self { ca_file, papers })
    }

    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read or used.
    pub(crate) fn load(&self) -> Result<Loaded, quorate_pki::Error> {
        let papers = self.papers.as_deref().map(Papers::load).transpose()?;
        let client = ClientTls::new(&Trust::load(&self.ca_file)?, papers.as_ref())?;
        Ok(Loaded { client, papers })
    }
}

/// What a client of the directors is made with.
pub(crate) fn options(loaded: Option<&Loaded>, token: Option<&str>) -> Options {
    Options {
        token: token.map(str::to_owned),
        tls: loaded.map(|loaded| loaded.client.config()),
        ..Options::default()
    }
}

/// Has the papers renewed whenever that is due, for as long as the agent lives.
#[derive(Debug)]
pub(crate) struct Renewal {
    client: Client,
    tls: ClientTls,
    papers: Papers,
    /// Where they lie; the certificates of the authority lie beside them.
    path: PathBuf,
}

/// Why papers were not renewed.
#[derive(Debug, thiserror::Error)]
enum RenewalError {
    #[error("the directors gave none")]
    Directors(#[from] quorate_api::client::Error),
    #[error(transparent)]
    Papers(#[from] quorate_pki::Error),
    #[error("it is that of {0}")]
    Another(String),
    #[error(transparent)]
    Thread(#[from] tokio::task::JoinError),
}

impl Renewal {
    /// Looked at so often: the wall clock may be set, and a machine may sleep.
    const LOOK_EVERY: Duration = Duration::from_mins(10);
    /// Between two tries. A third of the certificate's life is left for them.
    const AGAIN_AFTER: Duration = Duration::from_mins(1);

    /// `None` for an agent without papers.
    pub(crate) fn of(files: Option<&Tls>, loaded: Option<Loaded>, client: Client) -> Option<Self> {
        let (
            files,
            Loaded {
                client: tls,
                papers,
            },
        ) = files.zip(loaded)?;
        Some(Self {
            client,
            tls,
            papers: papers?,
            path: files.papers.clone()?,
        })
    }

    /// Never ends.
    pub(crate) async fn run(mut self) {
        loop {
            self.until_due().await;
            match self.renew().await {
                Ok(()) => tracing::info!(papers = %self.papers, "the certificate was renewed"),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        papers = %self.papers,
                        "the certificate was not renewed; tried again"
                    );
                    // Agents that were let in together do not ask together for ever.
                    let jitter = rand::random_range(0.0..1.0);
                    tokio::time::sleep(Self::AGAIN_AFTER.mul_f64(1.0 + jitter)).await;
                }
            }
        }
    }

    async fn until_due(&self) {
        while let Ok(left) = self.papers.renew_at().duration_since(SystemTime::now()) {
            tokio::time::sleep(left.min(Self::LOOK_EVERY)).await;
        }
    }

    async fn renew(&mut self) -> Result<(), RenewalError> {
        let request = tokio::task::spawn_blocking(Request::new).await??;
        let csr = request.csr().to_owned();
        let asked = CertificateRequest { csr };
        let signed = self.client.renew_certificate(&asked).await?;
        let next = request.complete(&signed.certificate)?;
        if next.identity() != self.papers.identity() {
            return Err(RenewalError::Another(next.identity().to_string()));
        }
        let trust = Trust::from_pem(&signed.authorities)?;
        let (path, stored) = (self.path.clone(), next.clone());
        tokio::task::spawn_blocking(move || {
            // Authorities that are exchanged count from the next start on.
            trust.store(&path.with_file_name(TRUST))?;
            stored.store(&path)
        })
        .await??;
        self.tls.renew(&next)?;
        self.papers = next;
        Ok(())
    }
}

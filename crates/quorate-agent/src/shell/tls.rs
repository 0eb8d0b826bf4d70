//! How the agent knows its directors and proves itself to them: files, which are read when a client is
//! made of them.

use std::path::{Path, PathBuf};

use quorate_api::client::Options;
use quorate_pki::{ClientTls, PAPERS, Papers, TRUST, Trust};
use serde::{Deserialize, Serialize};

/// Where the files are. A last will takes it along, since whoever executes it has no configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tls {
    /// The certificates of the cluster's authority.
    ca_file: PathBuf,
    /// Certificate and key of this agent, if it has some.
    papers: Option<PathBuf>,
}

impl Tls {
    /// The files that are named, or else lie in the data folder; `None` without an authority.
    pub(crate) fn find(ca_file: Option<&Path>, data_dir: &Path) -> Option<Self> {
        let there = |name| Some(data_dir.join(name)).filter(|path: &PathBuf| path.exists());
        let ca_file = ca_file.map(Path::to_owned).or_else(|| there(TRUST))?;
        let papers = there(PAPERS);
        Some(Self { ca_file, papers })
    }

    fn load(&self) -> Result<ClientTls, quorate_pki::Error> {
        let papers = self.papers.as_deref().map(Papers::load).transpose()?;
        ClientTls::new(&Trust::load(&self.ca_file)?, papers.as_ref())
    }
}

/// What a client of the directors is made with.
pub(crate) fn options(
    tls: Option<&Tls>,
    token: Option<&str>,
) -> Result<Options, quorate_pki::Error> {
    let tls = tls.map(Tls::load).transpose()?;
    Ok(Options {
        token: token.map(str::to_owned),
        tls: tls.map(|tls| tls.config()),
        ..Options::default()
    })
}

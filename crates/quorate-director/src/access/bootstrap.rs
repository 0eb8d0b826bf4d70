//! The first admin token: its hash in a file of the data folder, until a leader has taken it into the ledger.
//!
//! Whoever may write to a director's folder may do anything with the cluster anyway, so this is also the way
//! back for who has lost every admin token. The file is not deleted: the ledger knows its id, and takes
//! each one once.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use quorate_core::access::{Role, TokenGrant};
use quorate_core::director::call::{AccessCall, Call};
use quorate_core::ids::{CredentialId, TokenName};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::secret::{self, Kind};
use crate::engine::Handle;

/// The file, in the data folder of a director.
const FILE: &str = "bootstrap-token.json";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    id: CredentialId,
    /// SHA-256 of the token, in hexadecimal.
    sha256: String,
    name: TokenName,
}

/// Why there is no first token.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// There is one already, and whoever has it must not lose it by another start.
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    /// The file cannot be written.
    #[error("cannot write {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// Makes the first admin token of a cluster and keeps its hash in a director's data folder, which is
/// created when it is not there. The token is returned and kept nowhere: show it once.
///
/// # Errors
/// When there is one already, or the file cannot be written.
pub fn write_bootstrap_token(data_dir: &Path, name: TokenName) -> Result<String, BootstrapError> {
    let path = data_dir.join(FILE);
    let drawn = secret::draw(Kind::Api);
    let stored = Stored {
        id: drawn.id,
        sha256: drawn.hash,
        name,
    };
    let written = write(data_dir, &path, &stored);
    written.map_err(|cause| {
        if cause.kind() == io::ErrorKind::AlreadyExists {
            BootstrapError::Exists(path)
        } else {
            BootstrapError::Write { path, cause }
        }
    })?;
    Ok(drawn.text)
}

fn write(data_dir: &Path, path: &Path, stored: &Stored) -> io::Result<()> {
    std::fs::create_dir_all(data_dir)?;
    let bytes = serde_json::to_vec(stored)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    File::open(data_dir)?.sync_all()
}

/// What the folder holds; `None` when there is no such file.
fn read(data_dir: &Path) -> io::Result<Option<TokenGrant>> {
    let bytes = match std::fs::read(data_dir.join(FILE)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Stored { id, sha256, name } = serde_json::from_slice(&bytes)?;
    if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let error = "sha256 is no SHA-256 in hexadecimal";
        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
    }
    Ok(Some(TokenGrant {
        id,
        hash: sha256.to_ascii_lowercase(),
        name,
        role: Role::Admin,
        scope: None,
        expires: None,
        bootstrap: true,
    }))
}

/// Hands the first admin token in while this director leads, once.
pub(crate) async fn hand_in(handle: Handle, data_dir: PathBuf, shutdown: CancellationToken) {
    let grant = match read(&data_dir) {
        Ok(Some(grant)) => grant,
        Ok(None) => return,
        Err(error) => {
            let file = data_dir.join(FILE);
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, file = %file.display(), "the first admin token cannot be read");
            return;
        }
    };
    let mut seen = handle.watch();
    loop {
        let leading = seen.borrow_and_update().leading;
        if leading && handed_in(&handle, grant.clone()).await {
            return;
        }
        tokio::select! {
            changed = seen.changed() => if changed.is_err() { return },
            () = shutdown.cancelled() => return,
        }
    }
}

/// Whether it is decided.
async fn handed_in(handle: &Handle, grant: TokenGrant) -> bool {
    let id = grant.id.clone();
    let call = Call::Access(Box::new(AccessCall::Bootstrap(grant)));
    match handle.decide(call).await {
        Some(Ok(made)) => {
            if made.changed {
                tracing::info!(%id, "the first admin token counts from now on");
            }
            true
        }
        Some(Err(refusal)) => {
            tracing::warn!(%id, reason = %refusal, "the first admin token was refused");
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_keeps_the_hash_of_one_token_and_never_the_token() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("d1");
        assert!(read(&folder).unwrap().is_none());
        let name = TokenName::new("the first").unwrap();
        let token = write_bootstrap_token(&folder, name.clone()).unwrap();
        let kept = std::fs::read_to_string(folder.join(FILE)).unwrap();
        assert!(!kept.contains(&token[14..]), "{kept}");
        let given = secret::parse(Kind::Api, &token).unwrap();
        let grant = read(&folder).unwrap().unwrap();
        assert_eq!((grant.id, grant.role), (given.id, Role::Admin));
        assert_eq!(grant.hash, crate::engine::secret_hash(given.secret));
        let again = write_bootstrap_token(&folder, name);
        assert!(matches!(again, Err(BootstrapError::Exists(_))));
    }

    #[test]
    fn a_file_that_is_damaged_gives_nobody_anything() {
        let dir = tempfile::tempdir().unwrap();
        for bad in [
            "",
            "{}",
            r#"{"id":"a","sha256":"5a","name":"n"}"#,
            r#"{"id":"../a","sha256":"","name":"n"}"#,
        ] {
            std::fs::write(dir.path().join(FILE), bad).unwrap();
            assert!(read(dir.path()).is_err(), "{bad}");
        }
    }
}

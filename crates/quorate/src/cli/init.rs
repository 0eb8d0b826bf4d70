//! `init`: everything that a cluster of several machines begins with, in the folder of its first director.

use std::path::Path;
use std::time::SystemTime;

use quorate_core::ids::{ClusterId, DirectorName, TokenName};
use quorate_pki::{Authority, FOLDER, Identity, PAPERS, Role, Validity};
use quorate_raft::Start;
use serde::Serialize;

use super::args::InitArgs;
use super::daemon::host_name;
use super::folder::{self, Place, Store};
use crate::daemon::{absolute, quoted, typed};
use crate::failure::{Code, Exit, Failure, chain};
use crate::output::{Output, say};
use crate::papers::unusable;

/// What was made.
#[derive(Debug, Serialize)]
struct Made {
    cluster: String,
    name: String,
    address: String,
    config: String,
    ca_file: String,
    /// SHA-256 of the authority's certificate.
    authority: String,
    /// The first admin token.
    token: String,
}

pub(super) async fn init(args: &InitArgs, output: Output) -> Result<Exit, Failure> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => host_name(DirectorName::new)?,
    };
    let place = Place::of(args.listen, &args.place)?;
    let data_dir = absolute(&args.data_dir)?;
    if let Some(path) = folder::taken(&data_dir) {
        return Err(Failure::new(
            Code::DataDir,
            format!("{} is there: the folder is in use already", path.display()),
            "choose a new one with --data-dir; a cluster is founded once",
        ));
    }
    folder::make(&data_dir)?;
    let founded = founded(&name, &place, &data_dir).await;
    let told = founded.and_then(|made| {
        let id = format!("cluster/{}", made.cluster);
        output.one(&made, &id, || format!("{}\n", made.token))?;
        Ok(made)
    });
    match told {
        Ok(made) => {
            tell(&made, &place);
            Ok(Exit::Done)
        }
        Err(failure) => {
            undo(&data_dir);
            Err(failure)
        }
    }
}

/// Takes away what is half done, which would be taken for a cluster, or one whose first token nobody has.
/// Nobody has seen any of it.
fn undo(data_dir: &Path) {
    for path in std::iter::from_fn(|| folder::taken(data_dir)) {
        let gone = if path.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        if gone.is_err() {
            break;
        }
    }
}

/// The cluster: its ledger, and everything else. A store is claimed last, because nobody takes that back.
async fn founded(name: &DirectorName, place: &Place, data_dir: &Path) -> Result<Made, Failure> {
    let Some(store) = &place.ledger else {
        let ledger = data_dir.join("ledger");
        folder::make(&ledger)?;
        let ids = quorate_raft::ids(&ledger, name, Start::Found);
        let ids = ids.map_err(|error| folder::unusable(chain(&error)))?;
        return found(name, place, data_dir, ClusterId(ids.cluster));
    };
    let ledger = crate::director::open_store(&store.address)?;
    let unready = |error| crate::director::unready(&store.address, &error);
    if let Some(owner) = ledger.owner().await.map_err(unready)? {
        return Err(claimed(store, owner.cluster));
    }
    let cluster = ClusterId(rand::random_range(1..1_u64 << 53));
    let made = found(name, place, data_dir, cluster)?;
    let owner = ledger.claim(cluster).await.map_err(unready)?;
    if owner.cluster == cluster {
        Ok(made)
    } else {
        Err(claimed(store, owner.cluster))
    }
}

/// Somebody has founded a cluster there.
fn claimed(store: &Store, cluster: ClusterId) -> Failure {
    Failure::new(
        Code::Conflict,
        format!(
            "the ledger at {} is that of cluster {cluster}",
            store.address
        ),
        "`quorate join` makes a further director of it; for a new cluster choose another prefix or schema",
    )
}

fn found(
    name: &DirectorName,
    place: &Place,
    data_dir: &Path,
    cluster: ClusterId,
) -> Result<Made, Failure> {
    let pki = data_dir.join(FOLDER);
    folder::make(&pki)?;
    let hosts = place.hosts()?;
    let make = || -> Result<Authority, quorate_pki::Error> {
        let now = SystemTime::now();
        let authority = Authority::new(cluster, now)?;
        authority.store(&pki)?;
        let own = Identity::new(cluster, Role::Director, name.as_str());
        let own = own.expect("names of directors are names of machines");
        let papers = authority.papers(&own, &hosts, Validity::usual(now))?;
        papers.store(&pki.join(PAPERS))?;
        Ok(authority)
    };
    let authority = make().map_err(|error| unusable(&pki, &error))?;
    let first = TokenName::new("the first").expect("it is a name");
    let token = quorate_director::write_bootstrap_token(data_dir, first);
    let token = token.map_err(|error| folder::unusable(chain(&error)))?;
    let config = folder::write_config(data_dir, &config(name, place, data_dir, cluster))?;
    Ok(Made {
        cluster: cluster.to_string(),
        name: name.to_string(),
        address: format!("https://{}", place.address()),
        config: config.display().to_string(),
        ca_file: pki.join(quorate_pki::TRUST).display().to_string(),
        authority: authority.fingerprint().to_string(),
        token,
    })
}

/// The configuration file of a director that founds a cluster.
fn config(name: &DirectorName, place: &Place, data_dir: &Path, cluster: ClusterId) -> String {
    format!(
        "# Director {name} of cluster {cluster}. Start it with: quorate director --config FILE\n\
         # Every key is also a flag (--listen) and a variable (QUORATE_DIRECTOR__LISTEN): quorate director --help\n\n\
         [director]\n\
         name = \"{name}\"\n\
         data_dir = {}\n{}{}",
        folder::text(&data_dir.to_string_lossy()),
        place.keys(),
        MORE,
    )
}

/// What a director may be told beside where it is.
pub(super) const MORE: &str = r#"
# Of those that could lead, the highest does: 0 to 10.
# priority = 10
# While the directors are upgraded: keeps the ledger at this format, so that the way back stays open.
# hold_format = 1
# Folders that `partitions.file` of a service may be read from.
# source_root = ["/etc/quorate"]

# A command that must succeed before the work of a silent agent is given away: services name it in `fence`.
# [director.fence.power-off]
# command = ["/usr/local/sbin/power-off", "{{agent}}"]
# timeout = "30s"

# [log]
# level = "info"
# format = "json"
"#;

/// What to do next; it is not the result, so it goes beside it.
fn tell(made: &Made, place: &Place) {
    let program = typed();
    say(&format!(
        "cluster {} is made; its first director is {} at {}",
        made.cluster, made.name, made.address
    ));
    say(
        "the token of its first admin is on standard output and shown this once: keep it in a file of mode 0600\n",
    );
    say(&format!(
        "  start the director      {program} director --config {}",
        quoted(&made.config)
    ));
    say(&format!(
        "  reach it from here      export QUORATE_ADDRESS={} QUORATE_CA_FILE={} QUORATE_API_TOKEN_FILE=FILE",
        made.address,
        quoted(&made.ca_file)
    ));
    say(&format!(
        "  let a machine in        {program} join-token create --role agent    (or director)"
    ));
    if place.listen.ip().is_loopback() {
        say(
            "\nit listens on loopback, where no other machine reaches it; --listen ADDR:7400 says where else",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigFile;

    #[test]
    fn the_configuration_file_is_one_also_with_all_that_is_commented_out() {
        let listen = "10.0.0.1:7400".parse().unwrap();
        let args = super::super::args::PlaceArgs {
            advertise: None,
            peer_listen: None,
            peer_advertise: None,
            ledger: None,
        };
        let place = Place::of(listen, &args).unwrap();
        let name = DirectorName::new("d1").unwrap();
        let text = config(
            &name,
            &place,
            Path::new("/var/lib/\"quorate\""),
            ClusterId(7),
        );
        let read: ConfigFile = toml::from_str(&text).unwrap();
        assert_eq!(read.director.listen, Some(listen));
        assert_eq!(
            read.director.data_dir.as_deref(),
            Some(Path::new("/var/lib/\"quorate\""))
        );
        let keys = text.lines().map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.starts_with('[') || rest.contains(" = ") && !rest.contains(": ") => {
                rest
            }
            Some(_) | None => line,
        });
        let all: String = keys.flat_map(|line| [line, "\n"]).collect();
        let read: ConfigFile = toml::from_str(&all).unwrap();
        assert_eq!(read.director.priority, Some(10));
        assert_eq!(read.director.hold_format, Some(1));
        assert_eq!(read.director.fence.len(), 1);
        assert_eq!(read.log.level.as_deref(), Some("info"));
    }
}

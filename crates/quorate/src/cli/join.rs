//! `join`: lets this machine into a cluster, by a join token.
//!
//! The key is made here and stays here; the token names the authority that signs, so that nobody else is
//! believed, not even once. Whoever is interrupted runs the same command again, which asks with the same
//! key and takes no further use of the token.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use quorate_api::access::{EnrolAnswer, EnrolRequest};
use quorate_api::client::{Client, Options};
use quorate_core::ids::NodeName;
use quorate_pki::{
    Authority, ClientTls, Error, FOLDER, Fingerprint, PAPERS, Papers, Request, Role, TRUST, Trust,
    Validity,
};
use serde::Serialize;

use super::args::JoinArgs;
use super::daemon::host_name;
use super::folder::{self, Place, Store};
use super::init::MORE;
use super::remote::{failure_of, secret_file, short_text};
use crate::daemon::{absolute, quoted, typed};
use crate::failure::{Code, Exit, Failure, chain};
use crate::output::{Output, say};

/// Key and request, until the certificate is there.
const REQUEST: &str = "request.pem";
/// The port of a director's API.
const API_PORT: u16 = 7400;

/// What this machine is from now on.
#[derive(Debug, Serialize)]
struct Joined {
    cluster: String,
    role: String,
    name: String,
    config: String,
    expires: String,
}

pub(super) async fn join(args: &JoinArgs, output: Output) -> Result<Exit, Failure> {
    let token = token(args)?;
    let authority = authority_of(&token)?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => host_name(NodeName::new)?,
    };
    let data_dir = absolute(&args.data_dir)?;
    let pki = data_dir.join(FOLDER);
    if !is_free(&data_dir, &pki, &name)? {
        return Err(taken(&data_dir, &pki));
    }
    // Before anything is asked, so that a mistake in it costs no use of the token.
    let client = pinned(&args.directors, authority)?;
    let place = place(args, &client).await?;
    if let Some(store) = &place.ledger {
        is_there(store).await?;
    }
    folder::make(&pki)?;
    let request = Request::kept(&pki.join(REQUEST)).map_err(|error| unusable(&error))?;
    let answer = enrol(&client, token, &name, request.csr()).await?;
    let joined = Joining {
        authority,
        directors: &args.directors,
        data_dir: &data_dir,
        pki: &pki,
        place: &place,
    }
    .settle(request, &answer)
    .await?;
    tell(&joined);
    let id = format!("{}/{}", joined.role, joined.name);
    output.one(&joined, &id, || {
        format!(
            "{} {} of cluster {}\n",
            joined.role, joined.name, joined.cluster
        )
    })?;
    Ok(Exit::Done)
}

/// The token, from wherever it was given.
fn token(args: &JoinArgs) -> Result<String, Failure> {
    let text = match (&args.join_token, &args.join_token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(path)) => read_token(path)?,
        (None, None) => String::new(),
    };
    let token = text.trim();
    if token.starts_with("qrj_") && !token.contains(char::is_whitespace) {
        return Ok(token.to_owned());
    }
    Err(Failure::new(
        Code::Usage,
        "what was given is no join token",
        "ask an admin of the cluster for one: `quorate join-token create --role agent`",
    ))
}

fn read_token(path: &Path) -> Result<String, Failure> {
    let unreadable = |why: String| {
        Failure::new(
            Code::Usage,
            format!(
                "the join token cannot be read from {}: {why}",
                path.display()
            ),
            "write it into a file of mode 0600 that is yours, or give it to standard input with --join-token-file -",
        )
    };
    let read = if path == Path::new("-") {
        short_text(std::io::stdin()).map_err(|error| error.to_string())
    } else {
        secret_file(path)
    };
    read.map_err(unreadable)
}

/// The authority that a token names.
fn authority_of(token: &str) -> Result<Fingerprint, Failure> {
    let hash = token.splitn(4, '_').nth(3).unwrap_or_default();
    hash.parse().map_err(|_| {
        Failure::new(
            Code::Usage,
            "the join token names no authority: a part of it is missing, or its cluster has none",
            "copy the whole token; a cluster that has no certificates is on one machine only, where nobody needs to join",
        )
    })
}

/// Whether this machine may be made of a folder: it is new, or was left in the middle of this, or its
/// certificate has ended, or is of a clock that was ahead.
fn is_free(data_dir: &Path, pki: &Path, name: &NodeName) -> Result<bool, Failure> {
    if folder::taken(data_dir).is_none() || pki.join(REQUEST).exists() {
        return Ok(true);
    }
    let Ok(papers) = Papers::load(&pki.join(PAPERS)) else {
        return Ok(false);
    };
    if papers.is_good(SystemTime::now()) {
        return Ok(false);
    }
    if papers.identity().name() != name.as_str() {
        return Err(Failure::new(
            Code::DataDir,
            format!("{} is that of {}", data_dir.display(), papers.identity()),
            format!(
                "join with --name {}, or choose another folder",
                papers.identity().name()
            ),
        ));
    }
    Ok(true)
}

fn taken(data_dir: &Path, pki: &Path) -> Failure {
    let next = "choose a new one with --data-dir; a machine whose certificate is good need not join again, unless it was \
         forgotten or removed";
    let sentence = match Papers::load(&pki.join(PAPERS)) {
        Ok(papers) => format!("{} is that of {papers}", data_dir.display()),
        Err(_) => format!("{} is in use already", data_dir.display()),
    };
    Failure::new(Code::DataDir, sentence, next)
}

/// Where this machine would be as a director.
async fn place(args: &JoinArgs, client: &Client) -> Result<Place, Failure> {
    let listen = match args.listen {
        Some(listen) => listen,
        None => {
            let directors = client.addresses();
            let first = directors.first().map_or("", String::as_str);
            let own = folder::own_address(first).await;
            let own = own.unwrap_or_else(|| [127, 0, 0, 1].into());
            SocketAddr::new(own, API_PORT)
        }
    };
    Place::of(listen, &args.place)
}

/// Whether a store has a ledger, seen before a use of the token is taken. Whose it is the director sees.
async fn is_there(store: &Store) -> Result<(), Failure> {
    let ledger = crate::director::open_store(&store.address)?;
    let owner = ledger.owner().await;
    let owner = owner.map_err(|error| crate::director::unready(&store.address, &error))?;
    if owner.is_some() {
        return Ok(());
    }
    Err(Failure::new(
        Code::Usage,
        format!("there is no ledger at {}", store.address),
        "write the address that the other directors have; `quorate cluster status` shows it",
    ))
}

async fn enrol(
    client: &Client,
    join_token: String,
    name: &NodeName,
    csr: &str,
) -> Result<EnrolAnswer, Failure> {
    let machine = quorate_agent::machine::id();
    let request = EnrolRequest {
        join_token,
        name: name.to_string(),
        csr: csr.to_owned(),
        machine_id: (!machine.is_empty()).then_some(machine),
    };
    client.enrol(&request).await.map_err(|error| {
        let mut failure = failure_of(error);
        if [Code::Tls, Code::Unreachable].contains(&failure.first.code) {
            failure.first.next =
                "check the address, and that the join token is one of this cluster; the same command goes on"
                    .to_owned();
        }
        failure
    })
}

/// A client that believes directors of this authority, and shows nothing of its own.
fn pinned(directors: &[String], authority: Fingerprint) -> Result<Client, Failure> {
    let tls = ClientTls::pinned(authority).map_err(|error| unusable(&error))?;
    let options = Options {
        tls: Some(tls),
        ..Options::default()
    };
    client(directors, options)
}

fn client(directors: &[String], options: Options) -> Result<Client, Failure> {
    let next = "write the directors as HOST:PORT, or several with commas";
    let client = Client::with(directors.to_vec(), options)
        .map_err(|error| Failure::new(Code::Usage, chain(&error), next))?;
    // Without TLS anybody on the way has the join token, and could be the cluster.
    match client
        .addresses()
        .iter()
        .find(|address| !address.starts_with("https://"))
    {
        None => Ok(client),
        Some(plain) => Err(Failure::new(
            Code::Usage,
            format!("a machine is let in over TLS alone, and {plain} is without"),
            next,
        )),
    }
}

/// The authorities that the answer names, if the one of the join token is among them.
fn believed(authorities: &str, authority: Fingerprint) -> Result<Trust, Failure> {
    let trust = Trust::from_pem(authorities).map_err(|error| unusable(&error))?;
    if trust.is_of(authority) {
        return Ok(trust);
    }
    Err(Failure::new(
        Code::Tls,
        "the answer names another authority than the join token does",
        "check the address, and that the join token is one of this cluster",
    ))
}

fn unusable(error: &Error) -> Failure {
    folder::unusable(chain(error))
}

/// What has been asked, and is to become a folder.
struct Joining<'a> {
    authority: Fingerprint,
    directors: &'a [String],
    data_dir: &'a Path,
    pki: &'a Path,
    place: &'a Place,
}

impl Joining<'_> {
    /// Writes down what the cluster has answered.
    async fn settle(self, request: Request, answer: &EnrolAnswer) -> Result<Joined, Failure> {
        let trust = believed(&answer.authorities, self.authority)?;
        let papers = request.complete(&answer.certificate);
        let mut papers = papers.map_err(|error| unusable(&error))?;
        let role = papers.identity().role();
        let stored = trust.store(&self.pki.join(TRUST));
        stored.map_err(|error| unusable(&error))?;
        if role == Role::Director {
            papers = self.with_authority(&trust, &papers).await?;
        }
        let stored = papers.store(&self.pki.join(PAPERS));
        stored.map_err(|error| unusable(&error))?;
        let config = self.config(&papers, role)?;
        let asked = self.pki.join(REQUEST);
        std::fs::remove_file(&asked).map_err(|error| folder::unwritable(&asked, &error))?;
        Ok(Joined {
            cluster: trust.cluster().to_string(),
            role: role.to_string(),
            name: papers.identity().name().to_owned(),
            config: config.display().to_string(),
            expires: answer.expires.clone(),
        })
    }

    /// Every director has the authority, and signs its own papers for where it is.
    async fn with_authority(&self, trust: &Trust, papers: &Papers) -> Result<Papers, Failure> {
        let tls = ClientTls::new(trust, Some(papers)).map_err(|error| unusable(&error))?;
        let options = Options {
            tls: Some(tls.config()),
            ..Options::default()
        };
        let client = client(self.directors, options)?;
        let files = client.authority().await.map_err(failure_of)?;
        let authority = Authority::from_pem(&files.authorities, &files.key);
        let authority = authority.map_err(|error| unusable(&error))?;
        let hosts = self.place.hosts()?;
        let own = authority.store_over(self.pki).and_then(|()| {
            let validity = Validity::usual(SystemTime::now());
            authority.papers(papers.identity(), &hosts, validity)
        });
        own.map_err(|error| unusable(&error))
    }

    /// The configuration file; one that is there stays.
    fn config(&self, papers: &Papers, role: Role) -> Result<PathBuf, Failure> {
        let path = self.data_dir.join(folder::CONFIG);
        if path.exists() {
            return Ok(path);
        }
        let text = match role {
            Role::Director => self.of_director(papers),
            Role::Agent | Role::Person => self.of_agent(papers),
        };
        folder::write_config(self.data_dir, &text)
    }

    fn of_director(&self, papers: &Papers) -> String {
        // Over a store nobody has to let it in.
        let join = match self.place.ledger {
            Some(_) => String::new(),
            None => format!(
                "# Directors that let it into the quorum.\njoin = {}\n",
                self.joins()
            ),
        };
        format!(
            "{}[director]\n{}{join}{}{MORE}",
            head(papers, "director"),
            self.names(papers),
            self.place.keys(),
        )
    }

    fn of_agent(&self, papers: &Papers) -> String {
        format!(
            "{}[agent]\n{}# Directors; it learns of the others by itself.\njoin = {}\n{MORE_OF_AGENT}",
            head(papers, "agent"),
            self.names(papers),
            self.joins(),
        )
    }

    fn names(&self, papers: &Papers) -> String {
        format!(
            "name = \"{}\"\ndata_dir = {}\n",
            papers.identity().name(),
            folder::text(&self.data_dir.to_string_lossy())
        )
    }

    fn joins(&self) -> String {
        let directors = self.directors.iter().map(|address| folder::text(address));
        format!("[{}]", directors.collect::<Vec<_>>().join(", "))
    }
}

fn head(papers: &Papers, role: &str) -> String {
    let variable = role.to_uppercase();
    format!(
        "# {}. Start it with: quorate {role} --config FILE\n\
         # Every key is also a flag (--join) and a variable (QUORATE_{variable}__JOIN): quorate {role} --help\n\n",
        papers.identity(),
    )
}

/// What an agent may be told beside where the directors are.
const MORE_OF_AGENT: &str = r#"
# Most weight that it holds.
# capacity = 200
# How long its runs wait for the next agent process when this one has died.
# adopt_within = "5s"
# Labels that services may require.
# label = { zone = "eu-1a", disk = "ssd" }

# What may be run here, whatever the directors say; what is left out is not looked at.
# [agent.allow]
# services = ["feeds-*"]
# commands = ["/opt/feeds/"]
# users = ["feeds"]
# directories = ["/opt/feeds", "/var/lib/feeds"]
# root = false

# [log]
# level = "info"
# format = "json"
"#;

/// What to do next.
fn tell(joined: &Joined) {
    say(&format!(
        "this machine is the {} {}; its certificate ends {} and is renewed before",
        joined.role, joined.name, joined.expires
    ));
    say(&format!(
        "start it: {} {} --config {}",
        typed(),
        joined.role,
        quoted(&joined.config)
    ));
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use quorate_core::ids::ClusterId;
    use quorate_pki::Identity;

    use super::*;
    use crate::config::ConfigFile;

    #[test]
    fn the_configuration_files_say_what_was_said() {
        let cluster = ClusterId(7);
        let authority = Authority::new(cluster, SystemTime::now()).unwrap();
        let place = Place {
            listen: "10.0.0.2:7400".parse().unwrap(),
            advertise: Some("d2.example:7400".to_owned()),
            peer_listen: "10.0.0.2:7401".parse().unwrap(),
            peer_advertise: None,
            ledger: None,
        };
        let directors = ["10.0.0.1:7400".to_owned(), "https://d3:7400".to_owned()];
        let joining = Joining {
            authority: authority.fingerprint(),
            directors: &directors,
            data_dir: Path::new("/var/lib/quorate"),
            pki: Path::new("/var/lib/quorate/pki"),
            place: &place,
        };
        let papers = |role| {
            let identity = Identity::new(cluster, role, "x2").unwrap();
            let validity = Validity::usual(SystemTime::now());
            authority.papers(&identity, &[], validity).unwrap()
        };
        let read: ConfigFile =
            toml::from_str(&joining.of_director(&papers(Role::Director))).unwrap();
        let director = read.director;
        assert_eq!(director.join, directors);
        assert_eq!(director.advertise.as_deref(), Some("d2.example:7400"));
        assert_eq!(director.peer_listen, Some(place.peer_listen));
        let read: ConfigFile = toml::from_str(&joining.of_agent(&papers(Role::Agent))).unwrap();
        assert_eq!(read.agent.join, directors);
        assert_eq!(read.agent.name.unwrap().as_str(), "x2");
    }

    #[test]
    fn nobody_is_believed_but_the_authority_that_the_token_names() {
        let make = || Authority::new(ClusterId(7), SystemTime::now()).unwrap();
        let (named, other) = (make(), make());
        let answered =
            |text: &str| believed(text, named.fingerprint()).map(|trust| trust.cluster());
        assert_eq!(answered(named.trust().pem()).unwrap(), ClusterId(7));
        let both = format!("{}{}", other.trust().pem(), named.trust().pem());
        assert_eq!(answered(&both).unwrap(), ClusterId(7));
        assert_eq!(
            answered(other.trust().pem()).unwrap_err().first.code,
            Code::Tls
        );
        // Where no certificate is shown nothing is asked.
        let ask = |directors: &[String]| pinned(directors, named.fingerprint());
        assert!(ask(&["d1:7400".to_owned()]).is_ok());
        for plain in ["http://d1:7400", " http://d1"] {
            let directors = ["d2:7400".to_owned(), plain.to_owned()];
            let refused = ask(&directors).unwrap_err();
            assert_eq!(refused.first.code, Code::Usage, "{plain}");
        }
    }

    #[test]
    fn addresses_are_completed_and_tokens_taken_apart() {
        let hash = "ab".repeat(32);
        let authority = Fingerprint::from_str(&hash).unwrap();
        let directors = ["https://d1".to_owned(), "10.0.0.1:7500".to_owned()];
        let client = pinned(&directors, authority).unwrap();
        let complete = ["https://d1:7400", "https://10.0.0.1:7500"];
        assert_eq!(*client.addresses(), complete);
        let named = authority_of(&format!("qrj_0123456789_x_{hash}")).unwrap();
        assert_eq!(named.to_string(), hash);
        for bad in ["qrj_0123456789_x", "qrj_0123456789_x_ab", "qrj_"] {
            assert!(authority_of(bad).is_err(), "{bad}");
        }
    }
}

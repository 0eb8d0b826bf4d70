//! Writes that are repeated under their idempotency key when the leader that did them was killed before
//! anybody heard so: three directors, an agent, and a client of HTTP without our client's manners.

use quorate_api::routes::{IDEMPOTENCY_HEADER, SERVICE_RESTART, SERVICE_STOP, TOKENS, fill};
use quorate_pki::{Authority, ClientTls};
use serde_json::{Value, json};

use crate::quorum::Quorum;
use crate::support::eventually;

/// An admin who writes with keys of his own.
struct Writer {
    runtime: tokio::runtime::Runtime,
    http: reqwest::Client,
    token: String,
}

/// A write under a key.
#[derive(Clone, Copy)]
struct Write<'a> {
    key: &'a str,
    path: &'a str,
    body: Option<&'a Value>,
}

impl Writer {
    fn of(quorum: &Quorum) -> Self {
        let folder = quorum.dir.path();
        let authority = Authority::load(&folder.join("d1/pki")).expect("an authority");
        let tls = ClientTls::new(authority.trust(), None).expect("TLS");
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_backend_preconfigured(tls.config());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let token = std::fs::read_to_string(folder.join("admin")).expect("a token");
        Self {
            runtime: runtime.expect("a runtime"),
            http: http.build().expect("a client"),
            token: token.trim().to_owned(),
        }
    }

    /// Its status and its answer, if it is answered at all.
    fn try_write(&self, address: &str, write: Write<'_>) -> Option<(u16, Value)> {
        let Write { key, path, body } = write;
        let mut request = self
            .http
            .post(format!("https://{address}{path}"))
            .bearer_auth(&self.token)
            .header(IDEMPOTENCY_HEADER, key);
        if let Some(body) = body {
            request = request.json(body);
        }
        self.runtime.block_on(async {
            let response = request.send().await.ok()?;
            let status = response.status().as_u16();
            Some((status, response.json().await.ok()?))
        })
    }

    /// The same, again under the same key until a director says that it is done or is not.
    fn write(&self, quorum: &Quorum, director: &str, write: Write<'_>) -> (u16, Value) {
        eventually("it is decided", || {
            let answered = self.try_write(&quorum.address(director), write);
            answered.filter(|(status, _)| *status < 500)
        })
    }
}

fn tokens_called(quorum: &Quorum, director: &str, name: &str) -> usize {
    let tokens = eventually("tokens are listed", || {
        quorum.json(director, &["token", "ls"])
    });
    let tokens = tokens.as_array().expect("a list").iter();
    tokens.filter(|token| token["name"] == name).count()
}

#[test]
fn what_a_killed_leader_has_done_is_not_done_again_under_the_same_key() {
    let mut quorum = Quorum::of_three();
    quorum.agent("a1", "d3");
    quorum.apply(2);
    assert_eq!(quorum.runs(), 2);
    let writer = Writer::of(&quorum);
    let (restart, stop) = (fill(SERVICE_RESTART, &["s"]), fill(SERVICE_STOP, &["s"]));
    let of = |key, path| Write {
        key,
        path,
        body: None,
    };
    let restart = |key| of(key, restart.as_str());
    let stop = of("k1", stop.as_str());
    let viewer = json!({ "name": "once", "role": "viewer" });
    let token = Write {
        key: "k2",
        path: TOKENS,
        body: Some(&viewer),
    };

    // What the client would hear is lost with the leader: at it, and at a director that passes it on.
    let leader = quorum.leader();
    let follower = quorum.directors.keys().find(|name| **name != leader);
    let follower = follower.expect("another").clone();
    let first = writer.write(&quorum, &follower, restart("k1"));
    assert_eq!(first.0, 200, "{first:?}");
    let made = writer.write(&quorum, &leader, token);
    assert_eq!(made.0, 200);
    eventually("both were restarted", || (quorum.runs() == 4).then_some(()));
    quorum.kill(&leader);

    let left: Vec<String> = quorum.directors.keys().cloned().collect();
    for name in &left {
        assert_eq!(writer.write(&quorum, name, restart("k1")), first);
        let (status, problem) = writer.write(&quorum, name, stop);
        let text = problem.to_string();
        assert!(
            status == 409 && text.contains("belongs to another request"),
            "{status}: {text}"
        );
        let (status, problem) = writer.write(&quorum, name, token);
        let text = problem.to_string();
        let id = made.1["id"].as_str().expect("an id");
        assert!(
            status == 409 && text.contains(&format!("token revoke {id}")),
            "{status}: {text}"
        );
        assert_eq!(tokens_called(&quorum, name, "once"), 1);
    }
    let restarts = || {
        let audit = quorum.done(&left[0], &["audit"]).out;
        let restarts = audit.lines().filter(|line| line.contains("restart"));
        restarts.count()
    };
    assert_eq!(restarts(), 1);
    // Whatever else would restart has done so when the next one is through.
    let next = writer.write(&quorum, &left[0], restart("k3"));
    assert_eq!(next.0, 200, "{next:?}");
    eventually("both were restarted once more", || {
        (quorum.runs() >= 6).then_some(())
    });
    quorum.done(&left[1], &["wait", "--settled"]);
    quorum.all_run(&left[1], 2);
    assert_eq!((quorum.runs(), restarts()), (6, 2));
}

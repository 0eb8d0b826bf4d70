//! Which director is asked first: a near one.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use super::Client;
use crate::routes::LIVEZ;

/// Each is asked so often; its quickest answer counts, since whatever comes in between only adds.
const TRIES: u32 = 3;
/// Who takes longer is not near, or stands still.
const WITHIN: Duration = Duration::from_secs(1);
/// What a busy host adds to the answer of one that is as near as the nearest.
const SLACK: Duration = Duration::from_millis(2);

impl Client {
    /// The address of one of the nearest directors that answer: of those that take at most twice as long as the
    /// quickest one, and 2 ms, the one that `seed` picks, so that many clients spread over them. `None` when
    /// nobody answers. Each director is asked three times whether it is alive.
    pub async fn nearest(&self, seed: u64) -> Option<String> {
        let addresses = self.addresses();
        let times = join_all(addresses.iter().map(|address| self.distance(address))).await;
        let at = pick(&times, seed)?;
        addresses.get(at).cloned()
    }

    /// Asks this director first from now on, if it is one of those that are known, until it does not answer.
    pub fn prefer(&self, address: &str) {
        let known = self.addresses();
        if let Some(at) = known.iter().position(|known| known == address) {
            self.shared.prefer(at);
        }
    }

    /// How long a director takes for an answer; `None` when it has none.
    async fn distance(&self, address: &str) -> Option<Duration> {
        let mut best = None;
        for _ in 0..TRIES {
            let asked = self.http.get(format!("{address}{LIVEZ}")).timeout(WITHIN);
            let begun = Instant::now();
            let answered = asked.send().await.ok()?;
            let took = begun.elapsed();
            if !answered.status().is_success() {
                return None;
            }
            best = Some(best.map_or(took, |best: Duration| best.min(took)));
        }
        best
    }
}

/// One of those that are about as near as the nearest.
fn pick(times: &[Option<Duration>], seed: u64) -> Option<usize> {
    let best = times.iter().flatten().min()?;
    let bound = *best * 2 + SLACK;
    let near = times.iter().enumerate();
    let near = near.filter(|(_, time)| time.is_some_and(|time| time <= bound));
    let near: Vec<usize> = near.map(|(at, _)| at).collect();
    let count = u64::try_from(near.len()).ok()?;
    near.get(usize::try_from(seed % count).ok()?).copied()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    use super::*;

    #[test]
    fn of_those_that_are_about_as_near_the_seed_picks_one() {
        let millis = |times: &[u64]| -> Vec<Option<Duration>> {
            let times = times.iter();
            // Zero stands for nobody.
            times
                .map(|time| (*time > 0).then(|| Duration::from_millis(*time)))
                .collect()
        };
        let near = millis(&[1, 80, 3, 0]);
        assert_eq!(
            [0, 1, 2].map(|seed| pick(&near, seed)),
            [Some(0), Some(2), Some(0)]
        );
        let far = millis(&[0, 80, 100, 200]);
        assert_eq!(
            [0, 1, 2].map(|seed| pick(&far, seed)),
            [Some(1), Some(2), Some(1)]
        );
        assert_eq!(pick(&millis(&[0, 0]), 7), None);
        assert_eq!(pick(&[], 7), None);
    }

    /// Answers every request after a while.
    async fn alive(tasks: &mut JoinSet<()>, after: Duration) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tasks.spawn(async move {
            let mut answering = JoinSet::new();
            while let Ok((mut socket, _)) = listener.accept().await {
                answering.spawn(async move {
                    let mut request = [0; 4096];
                    while socket.read(&mut request).await.is_ok_and(|count| count > 0) {
                        tokio::time::sleep(after).await;
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                        socket.write_all(answer).await.unwrap();
                    }
                });
            }
        });
        address.to_string()
    }

    #[tokio::test]
    async fn a_director_that_stands_still_or_is_far_or_gone_is_not_preferred() {
        let mut tasks = JoinSet::new();
        let still = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let still = still.local_addr().unwrap().to_string();
        let stopped = alive(&mut tasks, Duration::from_secs(3600)).await;
        let far = alive(&mut tasks, Duration::from_millis(300)).await;
        let near = alive(&mut tasks, Duration::ZERO).await;
        let all = vec![still, stopped, far, near.clone()];
        let client = Client::new(all, None).unwrap();
        for seed in 0..4 {
            let found = client.nearest(seed).await.unwrap();
            assert_eq!(found, format!("http://{near}"));
            client.prefer(&found);
            assert_eq!(client.shared.preferred(), 3);
        }
        client.prefer("http://127.0.0.1:1");
        assert_eq!(client.shared.preferred(), 3, "it is nobody");
    }
}

//! Requests as they are, byte by byte, and answers as they come.

use quorate_api::problem::Problem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::desk::{Desk, PATIENCE};

/// Sends bytes as they are and reads everything until the director closes.
pub(crate) async fn raw(desk: &Desk, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(desk.address).await.unwrap();
    // The director may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the director answers and closes");
    String::from_utf8_lossy(&answer).into_owned()
}

pub(crate) async fn get(desk: &Desk, path: &str) -> Problem {
    let response = desk.http.get(desk.url(path)).send().await.unwrap();
    problem(response).await
}

/// The problem in an answer as it came.
pub(crate) fn problem_in(answer: &str) -> Problem {
    let (head, body) = answer.split_once("\r\n\r\n").expect(answer);
    let head = head.to_ascii_lowercase();
    assert!(
        head.contains("content-type: application/problem+json"),
        "{answer}"
    );
    let problem: Problem = serde_json::from_str(body).expect(answer);
    assert!(
        head.starts_with(&format!("http/1.1 {}", problem.status)),
        "{answer}"
    );
    problem
}

pub(crate) async fn problem(response: reqwest::Response) -> Problem {
    let status = response.status().as_u16();
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    let problem: Problem = response.json().await.unwrap();
    assert_eq!(problem.status, status);
    assert!(!problem.detail.is_empty());
    problem
}

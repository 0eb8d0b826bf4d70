//! Who may ask at all: no web page that somebody happens to look at, and without TLS this machine's own
//! programs only.
//!
//! A page from elsewhere can make a browser send requests here. Reading the answer takes a name of that
//! page's site that resolves here (DNS rebinding). With TLS no browser goes on then, because the
//! certificate does not have that name. Without, only loopback's own names are served, whose
//! resolution no site can choose. Writing is refused when the browser says that the request comes from
//! another site.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use quorate_api::problem::Code;
use quorate_api::routes::ERA_HEADER;

use super::App;
use super::answer::Failure;
use super::channel::Channel;
use super::extract::lossy;
use crate::config::Limits;

/// What is around a field in HTTP/1: a colon, a space and the end of the line.
const FIELD_MARKS: usize = 4;

/// Lets a request through, or tells why not; and says of which era this director is.
pub(crate) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let mut response = match check(&app, &request) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    };
    // An agent that has seen a later era takes no word of this director for its cluster's.
    let era = HeaderValue::from(app.handle.seen().era.0);
    response.headers_mut().insert(ERA_HEADER, era);
    response
}

fn check(app: &App, request: &Request) -> Result<(), Failure> {
    let length = request.uri().to_string().len();
    if length > app.limits.uri_bytes {
        let detail = format!(
            "the path and query have {length} bytes, at most {} are taken",
            app.limits.uri_bytes
        );
        return Err(Failure::new(Code::UriTooLong, detail));
    }
    check_head(&app.limits, length, request.headers())?;
    check_framing(request.headers())?;
    let channel = Channel::of(request);
    let host = host(request, channel)?;
    let write = !matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    );
    if write && !same_site(request.headers(), channel, &host) {
        return Err(Failure::new(
            Code::Forbidden,
            "a page of another site may not change anything here",
        ));
    }
    Ok(())
}

/// What is far above the limit the HTTP library has refused already, with the bare status (`READ_AHEAD`).
fn check_head(limits: &Limits, uri: usize, headers: &HeaderMap) -> Result<(), Failure> {
    let fields = headers.iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + FIELD_MARKS);
    let length = uri + fields.sum::<usize>();
    if length <= limits.header_bytes {
        return Ok(());
    }
    let detail = format!(
        "the head of the request has {length} bytes, at most {} are taken",
        limits.header_bytes
    );
    let next =
        "send less in its header fields: no API token is that long, and cookies are not looked at";
    Err(Failure::new(Code::HeadTooLarge, detail).next_step(next))
}

/// A body has one length. What two readers could take for different lengths hides a second request.
fn check_framing(headers: &HeaderMap) -> Result<(), Failure> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let other = codings.find(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    match other {
        None => Ok(()),
        Some(other) => {
            let detail = format!("the transfer encoding {:?} is not taken", lossy(other));
            Err(Failure::new(Code::MalformedRequest, detail)
                .next_step("send a Content-Length, or Transfer-Encoding: chunked alone"))
        }
    }
}

/// The host that was asked for, if it can only be meant for this director.
fn host(request: &Request, channel: &Channel) -> Result<String, Failure> {
    let misled = |detail: String| {
        Failure::new(Code::Forbidden, detail).next_step("ask at 127.0.0.1, [::1] or localhost")
    };
    let mut named = request.headers().get_all(header::HOST).iter();
    let header = named.next();
    if named.next().is_some() {
        return Err(
            Failure::new(Code::MalformedRequest, "the request names two hosts")
                .next_step("send one Host header"),
        );
    }
    let authority = request.uri().authority().map(ToString::to_string);
    let header = header.map(lossy);
    for host in [&authority, &header].into_iter().flatten() {
        let certain = match channel {
            Channel::Plain => is_loopback(host),
            // The client has asked the certificate for the name.
            Channel::Tls { .. } => true,
        };
        if !certain {
            return Err(misled(format!("this director is not {host:?}")));
        }
    }
    header.or(authority).ok_or_else(|| {
        Failure::new(Code::MalformedRequest, "the request names no host")
            .next_step("send a Host header, such as Host: localhost")
    })
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, port)) if port.is_empty() || is_port(port) => name,
            Some(_) | None => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            Some(_) => return false,
            None => host,
        },
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':')
        .is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether a browser, if it was one, sent this from our own pages.
fn same_site(headers: &HeaderMap, channel: &Channel, host: &str) -> bool {
    let text = |name| {
        let value: Option<&axum::http::HeaderValue> = headers.get(name);
        value.map(lossy)
    };
    let fetch_site = text("sec-fetch-site");
    let origin = text("origin");
    fetch_site.is_none_or(|site| matches!(site.as_str(), "same-origin" | "none"))
        && origin.is_none_or(|origin| origin == format!("{}://{host}", channel.scheme()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopbacks_own_names_are_served() {
        for good in [
            "localhost",
            "LocalHost:7400",
            "127.0.0.1:1",
            "127.8.8.8",
            "[::1]:7400",
            "[::1]",
        ] {
            assert!(is_loopback(good), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:7400",
            "10.0.0.1",
            "[::2]",
            "[::1",
            "[::1]x",
            "localhost:x",
            "0.0.0.0",
            "localhost.",
            "a@localhost",
        ] {
            assert!(!is_loopback(bad), "{bad}");
        }
    }
}

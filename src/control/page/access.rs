//! Who may ask what: the checks that stand before every answer of the page.
//!
//! | check | against | else |
//! |---|---|---|
//! | `Host` names loopback | a web page whose own name leads to loopback (DNS rebinding) | 421 |
//! | `Origin`, where there is one, is the page's own; changes have one | other web pages (cross-site requests) | 403 |
//! | `Sec-Fetch-Site`, where there is one, is `same-origin` | the same, where a browser leaves `Origin` out | 403 |
//! | `Authorization: Bearer` has the token | other users of the machine | 401 |
//!
//! The last three are for `/api/`. There is no CORS: no answer allows another origin anything.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::super::server::Failure;

/// Bytes of a token: 128 bits, which nobody guesses.
const TOKEN_BYTES: usize = 16;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What whoever asks has to know: random, and another one with every start.
pub(super) struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Token")
    }
}

impl Token {
    /// # Errors
    /// Where the kernel has no random numbers.
    pub(super) fn random() -> io::Result<Self> {
        let mut bytes = [0; TOKEN_BYTES];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
        }
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is it; takes as long for a wrong one, wherever it is wrong.
    fn is(&self, other: &[u8]) -> bool {
        let own = self.0.as_bytes();
        own.len() == other.len() && own.iter().zip(other).fold(0, |found, (own, other)| found | (own ^ other)) == 0
    }
}

/// Lets a request pass or answers why it does not.
pub(super) async fn guard(State(token): State<Arc<Token>>, request: Request, next: Next) -> Response {
    match check(&token, &request) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

fn check(token: &Token, request: &Request) -> Result<(), Failure> {
    let headers = request.headers();
    let host = loopback_host(headers).ok_or_else(|| {
        let text = "the page answers to localhost and loopback addresses only; use the URL that was printed";
        Failure::new(StatusCode::MISDIRECTED_REQUEST, text)
    })?;
    // Everything else is the page itself, which anybody may read in the program's source.
    if !request.uri().path().starts_with("/api/") {
        return Ok(());
    }
    let refused = |text: &str| Err(Failure::new(StatusCode::FORBIDDEN, text));
    let own = format!("http://{host}");
    let mut origins = headers.get_all(ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) if matches!(*request.method(), Method::GET | Method::HEAD) => {}
        (None, _) => return refused("a change has to come from the page: there is no Origin"),
        (Some(origin), None) if origin.as_bytes() == own.as_bytes() => {}
        (Some(_), _) => return refused("the request comes from another web page"),
    }
    if headers.get(SEC_FETCH_SITE).is_some_and(|site| site != "same-origin") {
        return refused("the request comes from another web page");
    }
    let given = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if given.is_some_and(|given| token.is(given)) {
        return Ok(());
    }
    let text = "the token is missing or of another start: open the URL that `sidestep run` has printed";
    Err(Failure::new(StatusCode::UNAUTHORIZED, text))
}

/// The one `Host`, if it is this machine whoever resolves names: an address, or the name that browsers do not ask for.
fn loopback_host(headers: &HeaderMap) -> Option<&str> {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return None };
    let text = host.to_str().ok()?;
    let authority: Authority = text.parse().ok()?;
    if text.contains('@') {
        return None;
    }
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let is_loopback = address.is_ok_and(|address| address.is_loopback()) || name.eq_ignore_ascii_case("localhost");
    is_loopback.then_some(text)
}

//! The page's files, embedded in the program as they are written: no build step makes them.

use axum::extract::Request;
use axum::http::header::{self, HeaderValue};
use axum::http::{HeaderName, Method, StatusCode};
use axum::response::{IntoResponse, Response};

use super::super::server::Failure;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Every file: its path, media type and content.
const FILES: &[(&str, &str, &str)] = &[
    ("/", HTML, include_str!("index.html")),
    ("/page.css", CSS, include_str!("page.css")),
    ("/icon.svg", SVG, include_str!("icon.svg")),
    ("/page.js", JAVASCRIPT, include_str!("page.js")),
    ("/api.js", JAVASCRIPT, include_str!("api.js")),
    ("/dom.js", JAVASCRIPT, include_str!("dom.js")),
    ("/map.js", JAVASCRIPT, include_str!("map.js")),
    ("/plot.js", JAVASCRIPT, include_str!("plot.js")),
    ("/flows.js", JAVASCRIPT, include_str!("flows.js")),
    ("/lookup.js", JAVASCRIPT, include_str!("lookup.js")),
    ("/endpoints.js", JAVASCRIPT, include_str!("endpoints.js")),
    ("/tables.js", JAVASCRIPT, include_str!("tables.js")),
];

/// Headers of every answer. Scripts, styles and requests are the page's own or none at all; text never becomes markup; nobody
/// frames the page; nothing of it is kept or told to others.
const HEADERS: [(HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// A file of the page.
pub(super) async fn answer(request: Request) -> Response {
    let path = request.uri().path();
    let Some((_, media, content)) = FILES.iter().find(|(name, ..)| *name == path) else {
        return Failure::new(StatusCode::NOT_FOUND, format!("there is no {path}")).into_response();
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let text = format!("{path} does not take {}", request.method());
        return Failure::new(StatusCode::METHOD_NOT_ALLOWED, text).into_response();
    }
    ([(header::CONTENT_TYPE, HeaderValue::from_static(media))], *content).into_response()
}

/// An answer with the headers of every answer.
pub(super) async fn guarded(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

//! The page for people: what `dashboard/` was built into, embedded by `build.rs`.

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};

use super::problem;

/// A file of the page.
struct File {
    /// Its path below the page's own.
    name: &'static str,
    /// Of its bytes.
    hash: &'static str,
    plain: &'static [u8],
    brotli: Option<&'static [u8]>,
    gzip: Option<&'static [u8]>,
}

/// Empty where the binary was built without the page.
const FILES: &[File] = include!(concat!(env!("OUT_DIR"), "/page_files.rs"));
const INDEX: &str = "index.html";
const WITHOUT: &str = include_str!("without_page.html");

/// What the page may load and run: its own files, and the server that it came from.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
/// Files below `assets/` have the hash of their content in their name.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
const ASK_AGAIN: &str = "no-cache";

/// The page that shows people what runs.
#[utoipa::path(
    get,
    path = "/",
    operation_id = "page",
    tag = "server",
    responses((status = 200, description = "A web page", body = String, content_type = "text/html"))
)]
pub(super) async fn page(headers: HeaderMap) -> Response {
    match find(INDEX) {
        Some(file) => serve(file, &headers),
        None => ([(header::CACHE_CONTROL, ASK_AGAIN)], policies(), Html(WITHOUT)).into_response(),
    }
}

/// A script, a style sheet or a picture of the page.
pub(super) async fn asset(Path(name): Path<String>, uri: Uri, headers: HeaderMap) -> Response {
    match find(&format!("assets/{name}")) {
        Some(file) => serve(file, &headers),
        // A page that was open while the server was replaced asks for files that are no more.
        None => problem::unknown_path(uri).await.into_response(),
    }
}

/// The picture in the browser's tab.
pub(super) async fn icon(uri: Uri, headers: HeaderMap) -> Response {
    match find("icon.svg") {
        Some(file) => serve(file, &headers),
        None => problem::unknown_path(uri).await.into_response(),
    }
}

fn find(name: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.name == name)
}

fn policies() -> [(header::HeaderName, &'static str); 3] {
    [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ]
}

fn serve(file: &'static File, asked: &HeaderMap) -> Response {
    let (encoding, body) = file.best_for(asked);
    // The bytes differ by encoding, so their names do, too.
    let tag = format!("\"{}{}\"", file.hash, encoding.unwrap_or_default());
    let lasting = if file.name.starts_with("assets/") { FOR_EVER } else { ASK_AGAIN };
    let known = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let is_known = known.flat_map(|value| value.split(',')).any(|value| {
        let value = value.trim();
        value == "*" || value.trim_start_matches("W/") == tag
    });
    let mut answer = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, file.content_type())], body).into_response()
    };
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(lasting));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    if let Some(encoding) = encoding.filter(|_| !is_known) {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    (policies(), answer).into_response()
}

impl File {
    /// The smallest form that the asker takes.
    fn best_for(&self, asked: &HeaderMap) -> (Option<&'static str>, &'static [u8]) {
        let takes = |encoding| accepts(asked, encoding);
        match (self.brotli, self.gzip) {
            (Some(bytes), _) if takes("br") => (Some("br"), bytes),
            (_, Some(bytes)) if takes("gzip") => (Some("gzip"), bytes),
            _ => (None, self.plain),
        }
    }

    fn content_type(&self) -> &'static str {
        match self.name.rsplit('.').next() {
            Some("html") => "text/html; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            _ => "application/octet-stream",
        }
    }
}

/// Whether `Accept-Encoding` names `encoding`, and not with a weight of nothing.
fn accepts(asked: &HeaderMap, encoding: &str) -> bool {
    let values = asked.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|choice| {
        let mut parts = choice.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(encoding));
        named
            && parts.all(|part| part.strip_prefix("q=").is_none_or(|q| q.parse().is_ok_and(|q: f32| q > 0.0)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: File = File {
        name: "assets/index-abc.js",
        hash: "00ff",
        plain: b"let a = 1;",
        brotli: Some(b"brotli"),
        gzip: Some(b"gzip"),
    };

    fn headers(pairs: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_smallest_form_that_is_taken_is_sent() {
        for (accepted, encoding, body) in [
            ("gzip, deflate, br", Some("br"), &b"brotli"[..]),
            ("gzip, br;q=0", Some("gzip"), b"gzip"),
            ("GZIP;q=0.5", Some("gzip"), b"gzip"),
            ("identity", None, b"let a = 1;"),
        ] {
            let asked = headers(&[(header::ACCEPT_ENCODING, accepted)]);
            assert_eq!(SCRIPT.best_for(&asked), (encoding, body), "{accepted}");
        }
        assert_eq!(SCRIPT.best_for(&HeaderMap::new()).0, None);
    }

    #[test]
    fn what_has_its_hash_in_its_name_is_kept_for_ever_and_known_bytes_are_not_sent_again() {
        static OWN: File = SCRIPT;
        let first = serve(&OWN, &HeaderMap::new());
        assert_eq!(first.headers()[header::CACHE_CONTROL], FOR_EVER);
        assert_eq!(first.headers()[header::ETAG], "\"00ff\"");
        assert_eq!(first.headers()[header::CONTENT_SECURITY_POLICY], POLICY);
        let again = serve(&OWN, &headers(&[(header::IF_NONE_MATCH, "W/\"other\", W/\"00ff\"")]));
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        // Other bytes under another encoding are not the known ones.
        let packed = headers(&[(header::IF_NONE_MATCH, "\"00ff\""), (header::ACCEPT_ENCODING, "br")]);
        assert_eq!(serve(&OWN, &packed).status(), StatusCode::OK);
    }
}

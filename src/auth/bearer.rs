//! Bearers: where a request carries its token. What was taken is gone from the request, so that nothing behind can
//! log it.

use http::header::AUTHORIZATION;
use http::{HeaderMap, Uri};

use crate::config::secret::Secret;

/// The parameter of the query, for clients that cannot set headers.
const PARAMETER: &str = "token=";

/// Takes the token out of `Authorization: Bearer`, or else out of the query.
pub fn take(headers: &mut HeaderMap, uri: &mut Uri) -> Option<Secret> {
    let header = headers.remove(AUTHORIZATION);
    let query = take_parameter(uri);
    let header = header.as_ref().and_then(|value| value.to_str().ok()).and_then(of_header);
    header.map(Secret::new).or(query)
}

fn of_header(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

fn take_parameter(uri: &mut Uri) -> Option<Secret> {
    let query = uri.query().filter(|query| query.contains(PARAMETER))?;
    let (tokens, rest): (Vec<_>, Vec<_>) = query.split('&').partition(|pair| pair.starts_with(PARAMETER));
    let token = tokens.iter().filter_map(|pair| pair.strip_prefix(PARAMETER)).find(|token| !token.is_empty());
    // The characters of a token stand for themselves in a query.
    let token = token.map(Secret::new);
    let path = uri.path();
    let without = if rest.is_empty() { path.to_owned() } else { format!("{path}?{}", rest.join("&")) };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = without.parse().ok();
    // A part of a URI is one by itself.
    *uri = Uri::from_parts(parts).unwrap_or_default();
    token
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(header: Option<&str>, uri: &str) -> (Option<String>, String) {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(AUTHORIZATION, header.parse().expect("a header"));
        }
        let mut uri: Uri = uri.parse().expect("a URI");
        let token = take(&mut headers, &mut uri).map(|token| token.reveal().to_owned());
        assert!(headers.is_empty());
        (token, uri.to_string())
    }

    #[test]
    fn a_token_is_taken_from_the_header_or_the_query_and_is_gone_then() {
        let some = |token: &str, uri: &str| (Some(token.to_owned()), uri.to_owned());
        assert_eq!(taken(Some("Bearer a.b.c"), "/x?y=1"), some("a.b.c", "/x?y=1"));
        assert_eq!(taken(Some("bearer  a.b.c "), "/x"), some("a.b.c", "/x"));
        assert_eq!(taken(None, "/x?token=a.b.c"), some("a.b.c", "/x"));
        assert_eq!(taken(None, "/x?y=1&token=a.b.c&z=2"), some("a.b.c", "/x?y=1&z=2"));
        assert_eq!(taken(Some("Bearer h"), "/x?token=q&y"), some("h", "/x?y"));
        assert_eq!(taken(Some("Basic YTpi"), "/x?token=q"), some("q", "/x"));
        assert_eq!(taken(None, "http://host/x?token=q"), some("q", "http://host/x"));
    }

    #[test]
    fn what_is_no_token_is_none() {
        for (header, uri) in [
            (None, "/x"),
            (Some("Bearer"), "/x"),
            (Some("Bearer "), "/x"),
            (Some("Digest a"), "/x"),
            (None, "/x?token="),
            (None, "/x?mytoken=1"),
        ] {
            assert_eq!(taken(header, uri).0, None, "{header:?} {uri}");
        }
        assert_eq!(taken(None, "/x?mytoken=1").1, "/x?mytoken=1");
    }
}

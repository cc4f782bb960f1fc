//! Bearers: where a request carries its token. What was taken is gone from the request, so that nothing behind can
//! log it.

use http::header::AUTHORIZATION;
use http::{HeaderMap, Uri};

use crate::config::secret::Secret;

/// The parameter of the query, for clients that cannot set headers.
const PARAMETER: &str = "token=";

/// Takes the token out of `Authorization: Bearer`, or else out of the query.
///
/// Several of one place are read as one text, which is no token: whatever stands before this server may believe another
/// one of them.
pub fn take(headers: &mut HeaderMap, uri: &mut Uri) -> Option<Secret> {
    let values: Option<Vec<&str>> =
        headers.get_all(AUTHORIZATION).iter().map(|value| value.to_str().ok()).collect();
    let header = values.unwrap_or_default().join(", ");
    headers.remove(AUTHORIZATION);
    let query = take_parameter(uri);
    of_header(&header).map(Secret::new).or(query)
}

fn of_header(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

fn take_parameter(uri: &mut Uri) -> Option<Secret> {
    let query = uri.query().filter(|query| query.contains(PARAMETER))?;
    let (tokens, rest): (Vec<_>, Vec<_>) = query.split('&').partition(|pair| pair.starts_with(PARAMETER));
    let tokens = tokens.iter().filter_map(|pair| pair.strip_prefix(PARAMETER));
    // The characters of a token stand for themselves in a query.
    let tokens: Vec<&str> = tokens.filter(|token| !token.is_empty()).collect();
    let token = (!tokens.is_empty()).then(|| Secret::new(&tokens.join(", ")));
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
    fn two_tokens_of_one_place_are_read_as_one_that_is_none() {
        assert_eq!(taken(None, "/x?token=a.b.c&token=d.e.f").0.as_deref(), Some("a.b.c, d.e.f"));
        assert_eq!(taken(None, "/x?token=&token=a.b.c").0.as_deref(), Some("a.b.c"));
        let mut headers = HeaderMap::new();
        for value in ["Bearer a.b.c", "Bearer d.e.f"] {
            headers.append(AUTHORIZATION, value.parse().expect("a header"));
        }
        let token = take(&mut headers, &mut Uri::from_static("/x"));
        assert_eq!(token.as_ref().map(Secret::reveal), Some("a.b.c, Bearer d.e.f"));
        assert!(headers.is_empty());
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

//! Claims: what a token that is believed says of its bearer. Values, without I/O.

use serde_json::{Map, Value};

use super::AuthError;
use super::access::Grant;
use super::identity::Identity;
use crate::config::channels::Role;
use crate::config::settings;
use crate::model::UserId;

/// The longest name of a token, in bytes.
pub const MAX_TOKEN_ID: usize = 256;
/// Per-channel grants of one token.
const MAX_GRANTS: usize = 64;

/// Which claims say what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimNames {
    user: String,
    roles: String,
    teams: String,
    leeway_ms: i64,
}

impl ClaimNames {
    /// As the settings say.
    #[must_use]
    pub fn of(settings: &settings::Auth) -> Self {
        Self {
            user: settings.user_claim.clone(),
            roles: settings.roles_claim.clone(),
            teams: settings.teams_claim.clone(),
            leeway_ms: i64::try_from(settings.leeway.as_millis()).unwrap_or(0),
        }
    }
}

/// The identity that `claims` speak of.
///
/// Roles that can be no role here are passed over: identity providers list what they use themselves.
///
/// # Errors
/// [`AuthError::Invalid`] for claims that are not of their type, or a user whose name can stand in no channel.
pub fn identity(claims: &Map<String, Value>, names: &ClaimNames) -> Result<Identity, AuthError> {
    let user = match find(claims, &names.user) {
        None => None,
        Some(Value::String(text)) => {
            Some(UserId::parse(text).map_err(|e| wrong(format!("its `{}` names no user: {e}", names.user)))?)
        }
        Some(_) => return Err(wrong(format!("its `{}` is no text", names.user))),
    };
    let roles = words(claims, &names.roles)?.into_iter().filter_map(|text| Role::parse(text).ok());
    let teams = words(claims, &names.teams)?.into_iter().map(Into::into);
    let token_id = match find(claims, "jti") {
        None => None,
        Some(Value::String(text)) if text.len() <= MAX_TOKEN_ID => Some(text.as_str().into()),
        Some(_) => return Err(wrong(format!("its `jti` is no text of at most {MAX_TOKEN_ID} bytes"))),
    };
    Ok(Identity {
        user,
        roles: roles.collect(),
        teams: teams.collect(),
        grants: grants(claims)?,
        token_id,
        expires_at_ms: expiry_ms(claims).map(|at| at.saturating_add(names.leeway_ms)),
        unrestricted: false,
    })
}

/// `exp` in ms. The library has checked it by then, if it is there.
fn expiry_ms(claims: &Map<String, Value>) -> Option<i64> {
    let seconds = find(claims, "exp")?;
    let whole = seconds.as_u64().and_then(|seconds| i64::try_from(seconds).ok());
    // As the library rounds it; a number beyond all time stays there.
    #[expect(clippy::cast_possible_truncation, reason = "a conversion from float saturates")]
    let whole = whole.or_else(|| seconds.as_f64().map(|seconds| seconds.round() as i64));
    whole.map(|seconds| seconds.saturating_mul(1000))
}

/// The value at a path whose names are separated by dots; a name with dots of its own comes first.
fn find<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let found = claims.get(path).or_else(|| {
        let (first, rest) = path.split_once('.')?;
        find(claims.get(first)?.as_object()?, rest)
    });
    found.filter(|value| !value.is_null())
}

/// A list of texts, or one text with spaces between its words (as in `scope`).
fn words<'a>(claims: &'a Map<String, Value>, path: &str) -> Result<Vec<&'a str>, AuthError> {
    let list = match find(claims, path) {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) => return Ok(text.split_whitespace().collect()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(wrong(format!("its `{path}` is no list"))),
    };
    let texts: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
    texts.ok_or_else(|| wrong(format!("its `{path}` lists what is no text")))
}

fn grants(claims: &Map<String, Value>) -> Result<Box<[Grant]>, AuthError> {
    let channels = match find(claims, "channels") {
        None => return Ok(Box::default()),
        Some(Value::Object(channels)) if channels.len() <= MAX_GRANTS => channels,
        Some(_) => {
            return Err(wrong(format!("its `channels` is no object with at most {MAX_GRANTS} entries")));
        }
    };
    let grants = channels.iter().map(|(pattern, rights)| {
        let rights: Option<Vec<&str>> =
            rights.as_array().and_then(|rights| rights.iter().map(Value::as_str).collect());
        let rights = rights.ok_or_else(|| format!("`{pattern}` has no list of rights"))?;
        Grant::parse(pattern, rights.into_iter())
    });
    grants.collect::<Result<_, _>>().map_err(|what| wrong(format!("its `channels`: {what}")))
}

fn wrong(what: String) -> AuthError {
    AuthError::Invalid(what)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::access::Right;

    fn read(claims: &Value, settings: &settings::Auth) -> Result<Identity, AuthError> {
        identity(claims.as_object().expect("an object"), &ClaimNames::of(settings))
    }

    #[test]
    fn claims_say_who_somebody_is() {
        let claims = json!({
            "sub": "ann", "roles": ["submit", "uma protection"], "teams": ["web", "42"], "jti": "t1",
            "exp": 1000, "channels": { "test-progress-*": ["join", "publish"], "system-alerts": ["join"] },
        });
        let ann = read(&claims, &settings::Auth::default()).expect("sound claims");
        assert_eq!(ann.user().map(UserId::as_str), Some("ann"));
        assert!(ann.has_role("submit") && !ann.has_role("worker") && !ann.is_admin());
        assert!(ann.in_team("web") && ann.in_team("42") && !ann.in_team("we"));
        assert_eq!((ann.token_id(), ann.expires_at_ms()), (Some("t1"), Some(1_030_000)));
        for (right, channel, given) in [
            (Right::Join, "test-progress-a", true),
            (Right::Publish, "test-progress-", true),
            (Right::Join, "test-progress", false),
            (Right::Join, "system-alerts", true),
            (Right::Publish, "system-alerts", false),
            (Right::Join, "system-alerts2", false),
        ] {
            assert_eq!(ann.is_granted(right, channel), given, "{right:?} {channel}");
        }
    }

    #[test]
    fn claims_of_other_names_and_shapes_are_found() {
        let settings = settings::Auth {
            user_claim: "https://example.org/user".to_owned(),
            roles_claim: "realm_access.roles".to_owned(),
            teams_claim: "scope".to_owned(),
            ..settings::Auth::default()
        };
        let claims = json!({
            "https://example.org/user": "ann", "realm_access": { "roles": ["admin"] }, "scope": "web  ops", "exp": 1.6,
        });
        let ann = read(&claims, &settings).expect("sound claims");
        assert_eq!(ann.user().map(UserId::as_str), Some("ann"));
        assert!(ann.is_admin() && ann.in_team("web") && ann.in_team("ops"));
        assert_eq!(ann.expires_at_ms(), Some(32_000));
        let nobody = read(&json!({ "sub": null, "roles": null }), &settings::Auth::default());
        assert_eq!(nobody, Ok(Identity::default()));
    }

    #[test]
    fn claims_of_the_wrong_type_are_refused_with_their_name() {
        let many: Map<String, Value> = (0..65).map(|n| (format!("c{n}"), json!(["join"]))).collect();
        for (claims, name) in [
            (json!({ "sub": "a b" }), "sub"),
            (json!({ "sub": "" }), "sub"),
            (json!({ "sub": 7 }), "sub"),
            (json!({ "roles": 7 }), "roles"),
            (json!({ "roles": [7] }), "roles"),
            (json!({ "teams": { "a": 1 } }), "teams"),
            (json!({ "jti": 7 }), "jti"),
            (json!({ "jti": "x".repeat(257) }), "jti"),
            (json!({ "channels": [] }), "channels"),
            (json!({ "channels": { "a*b": ["join"] } }), "channels"),
            (json!({ "channels": { "a": "join" } }), "channels"),
            (json!({ "channels": { "a": ["read"] } }), "channels"),
            (json!({ "channels": many }), "channels"),
        ] {
            let error = read(&claims, &settings::Auth::default()).expect_err(name);
            assert!(error.to_string().contains(&format!("its `{name}`")), "{error}");
            assert_eq!(error.code(), "invalid_token");
        }
    }
}

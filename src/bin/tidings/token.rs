//! `tidings token`: a token for development.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde_json::{Map, Value, json};
use tidings::auth::mint::Signer;
use tidings::config::settings::{Settings, Sources};
use tidings::model::now_ms;

use crate::Failure;
use crate::client::print_line;

/// What the token says.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Who its bearer is; without it, a program that acts for nobody in particular.
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// A role: admin, worker, submit, metrics, or one that channels.toml names. May stand several times.
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// A team. May stand several times.
    #[arg(long = "team", value_name = "TEAM")]
    teams: Vec<String>,
    /// Rights in channels beside those of the roles, such as `test-progress-*=join,publish`. May stand several times.
    #[arg(long = "grant", value_name = "CHANNEL=RIGHTS")]
    grants: Vec<String>,
    /// How long it holds.
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = humantime::parse_duration)]
    expires_in: Duration,
    /// Names the token, so that it can be revoked; made up if absent.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Any other claim, as JSON: `nbf=1732112345`. May stand several times.
    #[arg(long = "claim", value_name = "NAME=JSON")]
    claims: Vec<String>,
    /// The private key that signs, as PEM; without it auth.hs256_secret of the settings does.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The name of the key, where the server has a set of them.
    #[arg(long, value_name = "ID")]
    key_id: Option<String>,
    /// The settings [default: ./tidings.toml, if there is one].
    #[arg(long, env = "TIDINGS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let sources = Sources::new(args.config.as_deref()).with_process_environment();
    let settings = Settings::load(&sources).map_err(Failure::configuration)?;
    let signer = match &args.key {
        Some(file) => Signer::private_key(file)?,
        None => {
            let secret = settings.auth.hs256_secret.as_ref().ok_or_else(|| {
                Failure::configuration(anyhow!(
                    "there is nothing to sign with: set auth.hs256_secret (TIDINGS_AUTH__HS256_SECRET), or give --key"
                ))
            })?;
            Signer::secret(secret)?
        }
    };
    let signer = match &args.key_id {
        Some(id) => signer.with_key_id(id),
        None => signer,
    };
    print_line(signer.sign(&claims(args, &settings)?)?)?;
    Ok(ExitCode::SUCCESS)
}

fn claims(args: &Args, settings: &Settings) -> Result<Map<String, Value>, Failure> {
    let now = now_ms() / 1000;
    let expires = i64::try_from(args.expires_in.as_secs()).map_or(i64::MAX, |s| now.saturating_add(s));
    let id = args.id.clone().unwrap_or_else(|| format!("tok_{}", ulid::Ulid::generate()));
    let mut claims = Map::new();
    let mut set = |name: &str, value: Value| claims.insert(name.to_owned(), value);
    set("iat", json!(now));
    set("exp", json!(expires));
    set("jti", json!(id));
    if let Some(user) = &args.user {
        set(&settings.auth.user_claim, json!(user));
    }
    for (name, list) in [(&settings.auth.roles_claim, &args.roles), (&settings.auth.teams_claim, &args.teams)]
    {
        if !list.is_empty() {
            set(name, json!(list));
        }
    }
    if let Some(issuer) = &settings.auth.issuer {
        set("iss", json!(issuer));
    }
    if let Some(audience) = &settings.auth.audience {
        set("aud", json!(audience));
    }
    if !args.grants.is_empty() {
        let grants = args.grants.iter().map(|grant| {
            let (channel, rights) = grant.split_once('=').context("--grant takes CHANNEL=RIGHTS")?;
            Ok((channel.to_owned(), json!(rights.split(',').collect::<Vec<_>>())))
        });
        set("channels", Value::Object(grants.collect::<Result<_, Failure>>()?));
    }
    for claim in &args.claims {
        let (name, value) = claim.split_once('=').context("--claim takes NAME=JSON")?;
        let value =
            serde_json::from_str(value).with_context(|| format!("--claim {name}: the value is no JSON"))?;
        set(name, value);
    }
    Ok(claims)
}

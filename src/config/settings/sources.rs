//! Reads the sources of the settings, one above the other.
//!
//! A deserializer stops at the first mistake. So a mistaken value is noted, taken out of its layer, and the rest
//! is read again: one look shows them all.

use std::fmt;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::error::{Actual, Kind};
use figment::value::Value;
use serde::Serialize;

use super::layers::Layer;
use super::{Settings, check};
use crate::config::nearest::did_you_mean;

/// The file that is read if none is named; it need not be there.
pub const DEFAULT_FILE: &str = "tidings.toml";

/// Variables that are read by clients, or set for the commands of suites; they are no settings.
pub(super) const CLIENT_VARIABLES: [&str; 8] = [
    "TIDINGS_TOKEN",
    "TIDINGS_SERVER",
    "TIDINGS_TEST_ID",
    "TIDINGS_JOB_ID",
    "TIDINGS_ATTEMPT",
    "TIDINGS_CONFIG",
    "TIDINGS_LOG",
    // The flag's own: as a setting it would stand for the whole table.
    "TIDINGS_REDIS",
];

pub(super) const PREFIX: &str = "TIDINGS_";

/// Keys whose values stand in no message.
const SECRETS: [&str; 1] = ["auth.hs256_secret"];

/// Why there are no settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct SettingsError {
    /// All that is wrong; never empty.
    pub mistakes: Vec<Mistake>,
}

/// One mistake. `Display` prints it in one line: the place, the key, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// `file:line:column`, the name of a variable or a flag; empty for settings that were made in code.
    pub place: String,
    /// The key with dots; empty if the file as a whole is meant.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Where settings come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    config: Option<PathBuf>,
    environment: Vec<(String, String)>,
    flags: Vec<Layer>,
    /// Flags whose values cannot be passed on.
    refused: Vec<Mistake>,
}

impl Sources {
    /// The file `config`, or [`DEFAULT_FILE`] if there is one; no environment and no flags yet.
    #[must_use]
    pub fn new(config: Option<&Path>) -> Self {
        Self { config: config.map(Path::to_owned), ..Self::default() }
    }

    /// Adds the variables of this process.
    #[must_use]
    pub fn with_process_environment(self) -> Self {
        let text = |s: std::ffi::OsString| s.to_string_lossy().into_owned();
        self.with_environment(std::env::vars_os().map(|(name, value)| (text(name), text(value))))
    }

    /// Adds variables; those whose names do not begin with `TIDINGS_` are nobody's business here.
    #[must_use]
    pub fn with_environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let ours = |name: &str| name.starts_with(PREFIX) && !CLIENT_VARIABLES.contains(&name);
        self.environment.extend(variables.into_iter().filter(|(name, _)| ours(name)));
        // The order of an environment is nobody's intention.
        self.environment.sort();
        self
    }

    /// Adds a flag of the command line, if it was given: `flag` is what the user wrote, `key` what it sets.
    #[must_use]
    pub fn with_flag(mut self, flag: &str, key: &str, value: Option<impl Serialize>) -> Self {
        match value.map(Value::serialize) {
            Some(Ok(value)) => self.flags.push(Layer::flag(flag, key, value)),
            Some(Err(e)) => {
                let place = flag.to_owned();
                self.refused.push(Mistake { place, key: key.to_owned(), message: e.to_string() });
            }
            None => {}
        }
        self
    }

    /// The file that is read, if any.
    #[must_use]
    pub fn file(&self) -> Option<PathBuf> {
        match &self.config {
            Some(config) => Some(config.clone()),
            None => Some(PathBuf::from(DEFAULT_FILE)).filter(|file| file.exists()),
        }
    }

    /// The settings as far as they can be read, and all mistakes: those of the lower sources first.
    pub(crate) fn read(&self) -> (Settings, Vec<Mistake>) {
        let mut mistakes = Vec::new();
        let mut layers = Vec::new();
        if let Some(path) = self.file() {
            match Layer::file(&path) {
                Ok(layer) => layers.push(layer),
                Err(found) => mistakes.extend(found),
            }
        }
        layers.extend(self.environment.iter().map(|(name, value)| Layer::variable(name, value)));
        layers.extend(self.flags.iter().cloned());
        let mut settings = extract(&mut layers, &mut mistakes);
        mistakes.extend(self.refused.iter().cloned());
        for check::Fault { path, with, message } in check::faults(&settings) {
            let keys: Vec<_> = std::iter::once(path).chain(with).collect();
            // What was refused before has its default by now, which is nobody's mistake.
            if keys.iter().any(|key| mistakes.iter().any(|mistake| mistake.key == key.join("."))) {
                continue;
            }
            let place = keys.iter().find_map(|key| Some(owner(&layers, key)?.place(key, false)));
            mistakes.push(Mistake { place: place.unwrap_or_default(), key: keys[0].join("."), message });
        }
        resolve_paths(&mut settings, &layers);
        (settings, mistakes)
    }
}

/// The layer that says what holds at `path`.
fn owner<'a>(layers: &'a [Layer], path: &[String]) -> Option<&'a Layer> {
    layers.iter().rev().find(|layer| layer.find(path).is_some())
}

/// Makes the paths that stand in a file independent of the current directory.
fn resolve_paths(settings: &mut Settings, layers: &[Layer]) {
    let resolve = |key: &[&str], value: &mut PathBuf| {
        let key: Vec<_> = key.iter().map(|name| (*name).to_owned()).collect();
        if let Some(base) = owner(layers, &key).and_then(Layer::base) {
            *value = base.join(&*value);
        }
    };
    resolve(&["data_dir"], &mut settings.data_dir);
    if let Some(channels) = &mut settings.channels {
        resolve(&["channels"], channels);
    }
    let Settings { redis, auth, .. } = settings;
    for (section, key, file) in [
        ("redis", "ca_file", &mut redis.ca_file),
        ("auth", "public_key_file", &mut auth.public_key_file),
        ("auth", "jwks_file", &mut auth.jwks_file),
        ("auth", "jwks_ca_file", &mut auth.jwks_ca_file),
    ] {
        if let Some(file) = file {
            resolve(&[section, key], file);
        }
    }
    for (name, suite) in &mut settings.suites {
        if let Some(cwd) = &mut suite.cwd {
            resolve(&["suites", name, "cwd"], cwd);
            // Without a current directory nothing could be run in it anyway.
            *cwd = std::path::absolute(&*cwd).unwrap_or_else(|_| cwd.clone());
        }
    }
}

/// Reads the layers until nothing is wrong any more; what was wrong is gone from them and from the result.
fn extract(layers: &mut [Layer], mistakes: &mut Vec<Mistake>) -> Settings {
    let mut found: Vec<(usize, (usize, usize), Mistake)> = Vec::new();
    let settings = loop {
        let figment = layers.iter().fold(Figment::new(), |all, layer| all.merge(layer));
        let error = match figment.extract::<Settings>() {
            Ok(settings) => break settings,
            Err(error) => error,
        };
        let key = error.path.join(".");
        let owner = layers.iter().rposition(|layer| layer.find(&error.path).is_some());
        let Some(i) = owner.filter(|_| !error.path.is_empty()) else {
            // Every value stands in a layer below a key; should that ever fail, it can be told but not cured.
            mistakes.push(Mistake { place: String::new(), key, message: message(&error.kind) });
            break Settings::default();
        };
        if layers[i].take_as_text(&error) {
            continue;
        }
        let told = if SECRETS.contains(&key.as_str()) { hidden(&error.kind) } else { message(&error.kind) };
        let is_key = matches!(error.kind, Kind::UnknownField(..));
        let is_missing = matches!(error.kind, Kind::MissingField(_));
        // What is missing may be what was taken out before.
        let below = format!("{key}.");
        if !(is_missing && found.iter().any(|(_, _, mistake)| mistake.key.starts_with(&below))) {
            let order = layers[i].line_and_column(&error.path, is_key).unwrap_or_default();
            let place = layers[i].place(&error.path, is_key);
            found.push((i, order, Mistake { place, key, message: told }));
        }
        // What no layer has is missing from all of them, a wrong value only wrong in its own.
        let of = if is_missing { 0..layers.len() } else { i..i + 1 };
        layers[of].iter_mut().for_each(|layer| layer.remove(&error.path));
    };
    found.sort_by_key(|(layer, order, _)| (*layer, *order));
    mistakes.extend(found.into_iter().map(|(_, _, mistake)| mistake));
    settings
}

/// What is wrong with a value that is not to be shown.
fn hidden(kind: &Kind) -> String {
    match kind {
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => {
            format!("expected {}", plain(expected))
        }
        _ => "it cannot be read".to_owned(),
    }
}

fn message(kind: &Kind) -> String {
    match kind {
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
            format!("expected {}, found {}", plain(expected), plain_found(found))
        }
        Kind::UnknownVariant(found, known) => {
            let meant = did_you_mean(found, known.iter().copied());
            format!("expected one of {}, found {found:?}{meant}", known.join(", "))
        }
        Kind::UnknownField(found, known) => match did_you_mean(found, known.iter().copied()) {
            meant if meant.is_empty() => format!("unknown key; expected one of {}", known.join(", ")),
            meant => format!("unknown key{meant}"),
        },
        Kind::MissingField(name) => format!("`{name}` is missing"),
        other => other.to_string(),
    }
}

/// What serde expects, in the words of the file.
fn plain(expected: &str) -> &str {
    match expected {
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number from 0",
        "path string" => "a path",
        "a sequence" => "an array",
        "a map" => "a table",
        _ if expected.starts_with("struct ") => "a table",
        _ if expected.starts_with("enum ") => "a string",
        _ => expected,
    }
}

fn plain_found(found: &Actual) -> String {
    match found {
        Actual::Bool(found) => found.to_string(),
        Actual::Unsigned(found) => found.to_string(),
        Actual::Signed(found) => found.to_string(),
        Actual::Float(found) => found.to_string(),
        Actual::Str(found) => format!("{found:?}"),
        Actual::Seq => "an array".to_owned(),
        Actual::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}

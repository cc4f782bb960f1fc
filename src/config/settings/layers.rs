//! One source of settings, and where in it a value stands.

use std::path::{Path, PathBuf};

use figment::error::{Error, Kind};
use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};
use toml::de::{DeTable, DeValue};

use super::sources::{Mistake, PREFIX};
use crate::config::place::line_and_column;

/// Where a layer comes from.
#[derive(Debug, Clone)]
enum Origin {
    File { path: PathBuf, text: String },
    Variable { name: String, path: Vec<String>, value: String },
    Flag(String),
}

/// The values of one file, one variable or one flag.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    origin: Origin,
    values: Value,
}

impl Provider for &Layer {
    fn metadata(&self) -> Metadata {
        Metadata::default()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Profile::Default.collect(self.values.clone().into_dict().unwrap_or_default()))
    }
}

impl Layer {
    /// The values of a file; its syntax errors if it has any.
    pub(super) fn file(path: &Path) -> Result<Self, Vec<Mistake>> {
        let name = path.display().to_string();
        let mistake = |place: String, message: String| Mistake { place, key: String::new(), message };
        let text = std::fs::read_to_string(path)
            .map_err(|e| vec![mistake(name.clone(), format!("cannot be read: {e}"))])?;
        let (_, errors) = DeTable::parse_recoverable(&text);
        let mut places: Vec<_> = errors
            .iter()
            .map(|e| (line_and_column(&text, e.span().map_or(0, |span| span.start)), e.message()))
            .collect();
        places.sort_unstable();
        // After the first error in a line the parser has lost its thread there.
        places.dedup_by_key(|((line, _), _)| *line);
        if !places.is_empty() {
            let tell = |((line, column), message): &((usize, usize), &str)| {
                mistake(format!("{name}:{line}:{column}"), (*message).to_owned())
            };
            return Err(places.iter().map(tell).collect());
        }
        let values = toml::from_str::<toml::Table>(&text)
            .map_err(|e| e.to_string())
            .and_then(|table| Value::serialize(table).map_err(|e| e.to_string()))
            .map_err(|e| vec![mistake(name.clone(), e)])?;
        Ok(Self { origin: Origin::File { path: path.to_owned(), text }, values })
    }

    /// The value of one variable.
    pub(super) fn variable(name: &str, value: &str) -> Self {
        let mut path: Vec<String> =
            name.strip_prefix(PREFIX).unwrap_or(name).split("__").map(str::to_ascii_lowercase).collect();
        // The names of suites and schedules, and of their variables and parameters, are not keys: they keep their case.
        if path.first().is_some_and(|first| matches!(first.as_str(), "suites" | "schedules")) {
            let written = name.strip_prefix(PREFIX).unwrap_or(name).split("__");
            for (i, text) in written.enumerate().filter(|(i, _)| matches!(i, 1 | 3)) {
                text.clone_into(&mut path[i]);
            }
        }
        // Text that is no number, boolean, array or table is a string; this never fails.
        let parsed = value.parse().unwrap_or_else(|_| Value::from(value));
        let origin = Origin::Variable { name: name.to_owned(), path: path.clone(), value: value.to_owned() };
        Self::single(origin, &path, parsed)
    }

    /// The value of one flag; `key` has dots.
    pub(super) fn flag(name: &str, key: &str, value: Value) -> Self {
        let path: Vec<_> = key.split('.').map(str::to_owned).collect();
        Self::single(Origin::Flag(name.to_owned()), &path, value)
    }

    /// The directory of the file, which its paths are relative to.
    pub(super) fn base(&self) -> Option<&Path> {
        match &self.origin {
            Origin::File { path, .. } => path.parent(),
            Origin::Variable { .. } | Origin::Flag(_) => None,
        }
    }

    /// A layer of one value.
    fn single(origin: Origin, path: &[String], value: Value) -> Self {
        let nest = |value, key: &String| Value::from(Dict::from([(key.clone(), value)]));
        Self { origin, values: path.iter().rev().fold(value, nest) }
    }

    /// The value at `path`, from the outermost key; elements of arrays are named by their index.
    pub(super) fn find(&self, path: &[String]) -> Option<&Value> {
        path.iter().try_fold(&self.values, |value, key| match value {
            Value::Dict(_, dict) => dict.get(key),
            Value::Array(_, array) => array.get(key.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// Takes the value at `path` out, and with an element of an array the array.
    pub(super) fn remove(&mut self, path: &[String]) {
        let mut value = &mut self.values;
        for (i, key) in path.iter().enumerate() {
            let Value::Dict(_, dict) = value else { return };
            let inner = dict.get(key);
            if i + 1 == path.len() || inner.is_some_and(|inner| inner.as_dict().is_none()) {
                dict.remove(key);
                return;
            }
            match dict.get_mut(key) {
                Some(inner) => value = inner,
                None => return,
            }
        }
    }

    /// A variable's `8080` or `true` may be meant as text. Takes it as text if that may cure `error`, once.
    pub(super) fn take_as_text(&mut self, error: &Error) -> bool {
        let Origin::Variable { path, value, .. } = &self.origin else { return false };
        let is_text = self.find(path).is_none_or(|found| found.as_str().is_some());
        if is_text || error.path != *path || !matches!(error.kind, Kind::InvalidType(..)) {
            return false;
        }
        let text = Value::from(value.as_str());
        *self = Self::single(self.origin.clone(), &error.path, text);
        true
    }

    /// Where the value at `path`, or its key, stands.
    pub(super) fn place(&self, path: &[String], key: bool) -> String {
        match &self.origin {
            Origin::File { path: file, .. } => match self.line_and_column(path, key) {
                Some((line, column)) => format!("{}:{line}:{column}", file.display()),
                None => file.display().to_string(),
            },
            Origin::Variable { name, .. } | Origin::Flag(name) => name.clone(),
        }
    }

    /// The same as numbers, for a file.
    pub(super) fn line_and_column(&self, path: &[String], key: bool) -> Option<(usize, usize)> {
        let Origin::File { text, .. } = &self.origin else { return None };
        let tree = DeTable::parse(text).ok()?;
        let mut at = tree.span().start;
        let root = DeValue::Table(tree.into_inner());
        let mut value = &root;
        for (i, name) in path.iter().enumerate() {
            let inner = match value {
                DeValue::Table(table) => {
                    let (found, inner) = table.iter().find(|(key, _)| key.get_ref() == name)?;
                    // The place of a table is that of its name: its own span may begin at the first value.
                    let by_name = inner.get_ref().is_table() || (key && i + 1 == path.len());
                    at = if by_name { found.span().start } else { inner.span().start };
                    inner
                }
                DeValue::Array(array) => {
                    let inner = array.get(name.parse::<usize>().ok()?)?;
                    at = inner.span().start;
                    inner
                }
                _ => return None,
            };
            value = inner.get_ref();
        }
        Some(line_and_column(text, at))
    }
}

//! Reads single values of the tree: each of its type and within its bounds, or a mistake at its place.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeValue};

use super::diagnostic::Mistakes;
use crate::config::nearest::did_you_mean;

pub(super) type Key<'i> = Spanned<DeString<'i>>;
pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// A value and the byte of the text at which it stands.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

pub(super) fn unknown(key: &Key<'_>, place: &str, known: &[&str], mistakes: &mut Mistakes<'_>) {
    let name = key.get_ref();
    let message = format!(
        "unknown key `{name}` {place}{}",
        match did_you_mean(name, known.iter().copied()) {
            meant if meant.is_empty() => format!("; the keys are {}", known.join(", ")),
            meant => meant,
        }
    );
    mistakes.add(key.span().start, message);
}

fn wrong_type(what: &str, expected: &str, value: &Value<'_>, mistakes: &mut Mistakes<'_>) {
    let found = value.get_ref().type_str();
    let article = if found.starts_with(['a', 'i']) { "an" } else { "a" };
    mistakes.add(value.span().start, format!("`{what}` takes {expected}, not {article} {found}"));
}

/// The entries of a table; none, with a mistake, if it is none.
pub(super) fn entries<'v, 'i>(
    what: &str,
    value: &'v Value<'i>,
    mistakes: &mut Mistakes<'_>,
) -> impl Iterator<Item = (&'v Key<'i>, &'v Value<'i>)> + use<'v, 'i> {
    let table = value.get_ref().as_table();
    if table.is_none() {
        wrong_type(what, "a table", value, mistakes);
    }
    table.into_iter().flatten()
}

pub(super) fn elements<'v, 'i>(
    what: &str,
    of: &str,
    value: &'v Value<'i>,
    mistakes: &mut Mistakes<'_>,
) -> Option<Vec<&'v Value<'i>>> {
    let array = value.get_ref().as_array();
    if array.is_none() {
        wrong_type(what, &format!("an array of {of}"), value, mistakes);
    }
    array.map(|array| array.iter().collect())
}

/// A string that `read` understands.
pub(super) fn parsed<T, E: Display>(
    what: &str,
    value: &Value<'_>,
    read: impl Fn(&str) -> Result<T, E>,
    mistakes: &mut Mistakes<'_>,
) -> Option<At<T>> {
    let at = value.span().start;
    let Some(text) = value.get_ref().as_str() else {
        wrong_type(what, "a string", value, mistakes);
        return None;
    };
    read(text).map(|value| At { value, at }).map_err(|e| mistakes.add(at, e.to_string())).ok()
}

pub(super) fn boolean(what: &str, value: &Value<'_>, mistakes: &mut Mistakes<'_>) -> Option<At<bool>> {
    let read = value.get_ref().as_bool();
    if read.is_none() {
        wrong_type(what, "true or false", value, mistakes);
    }
    read.map(|read| At { value: read, at: value.span().start })
}

pub(super) fn integer(
    what: &str,
    value: &Value<'_>,
    range: RangeInclusive<u64>,
    mistakes: &mut Mistakes<'_>,
) -> Option<u64> {
    let Some(number) = value.get_ref().as_integer() else {
        wrong_type(what, "a whole number", value, mistakes);
        return None;
    };
    let read = u64::from_str_radix(number.as_str(), number.radix()).ok().filter(|n| range.contains(n));
    if read.is_none() {
        let (from, to) = range.into_inner();
        let message = format!("`{what}` is between {from} and {to}, not {number}");
        mistakes.add(value.span().start, message);
    }
    read
}

pub(super) fn duration(
    what: &str,
    value: &Value<'_>,
    range: RangeInclusive<Duration>,
    mistakes: &mut Mistakes<'_>,
) -> Option<Duration> {
    let Some(text) = value.get_ref().as_str() else {
        wrong_type(what, "a duration in quotes, such as \"7d\" or \"100ms\"", value, mistakes);
        return None;
    };
    let message = match humantime::parse_duration(text) {
        Ok(read) if range.contains(&read) => return Some(read),
        Ok(_) => {
            let (from, to) = range.into_inner();
            let show = humantime::format_duration;
            format!("`{what}` is between {} and {}, not {text}", show(from), show(to))
        }
        Err(e) => format!("`{what}` is a duration such as \"7d\" or \"100ms\", not {text:?}: {e}"),
    };
    mistakes.add(value.span().start, message);
    None
}

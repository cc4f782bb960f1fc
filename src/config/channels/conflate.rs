//! Conflation paths: where in a message's data stands what it is about.

use std::fmt;
use std::sync::Arc;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::model::id::is_id_char;

/// A path into the data of a message, such as `testId` or `job.id`: messages of one event with the same value
/// there supersede each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConflationPath(Vec<String>);

/// A text that is not such a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a path into data is made of names joined by dots, like \"testId\" or \"job.id\", not {0:?}")]
pub struct InvalidPath(pub String);

impl ConflationPath {
    /// Reads names joined by dots.
    pub fn parse(text: &str) -> Result<Self, InvalidPath> {
        if text.split('.').any(|name| name.is_empty() || !name.chars().all(is_id_char)) {
            return Err(InvalidPath(text.to_owned()));
        }
        Ok(Self(text.split('.').map(str::to_owned).collect()))
    }

    /// The conflation key of a message: different for every event and every value at the path.
    ///
    /// The value is a string, a number or a boolean. There is none, and so the message is neither superseded nor
    /// supersedes others, if the path leads nowhere or to anything else.
    #[must_use]
    pub fn key(&self, event: &str, data: &RawValue) -> Option<Arc<str>> {
        let mut value = data;
        for name in &self.0 {
            value = field(value, name)?;
        }
        let text = value.get();
        match text.as_bytes().first()? {
            b'{' | b'[' | b'n' => None,
            // A string may be escaped in several ways. The quote keeps "1" apart from 1; the zero byte cannot
            // stand in the name of an event.
            b'"' => {
                let text: String = serde_json::from_str(text).ok()?;
                Some(Arc::from(format!("{event}\0\"{text}")))
            }
            _ => Some(Arc::from(format!("{event}\0{text}"))),
        }
    }
}

impl fmt::Display for ConflationPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// The member `name` of a JSON object; of several the last, as in every browser.
fn field<'a>(object: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    // Other JSON than an object is an error of the visitor, which is "no such member" here.
    serde_json::Deserializer::from_str(object.get()).deserialize_map(Member(name)).ok().flatten()
}

struct Member<'n>(&'n str);

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_it) = map.next_key_seed(KeyIs(self.0))? {
            if is_it {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Compares a key without copying it.
struct KeyIs<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for KeyIs<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<bool, D::Error> {
        d.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyIs<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str, data: &str) -> Option<String> {
        let data = RawValue::from_string(data.to_owned()).unwrap();
        ConflationPath::parse(path).unwrap().key("e", &data).map(|key| key.to_string())
    }

    #[test]
    fn a_key_names_the_event_and_the_value() {
        assert_eq!(key("testId", r#"{"a":[1,{"testId":"no"}],"testId":"t1"}"#).unwrap(), "e\0\"t1");
        assert_eq!(key("a.b", r#"{"a": {"b": 7 }}"#).unwrap(), "e\x007");
        assert_eq!(key("ok", r#"{"ok":true}"#).unwrap(), "e\0true");
        assert_ne!(key("n", r#"{"n":1}"#), key("n", r#"{"n":"1"}"#));
    }

    #[test]
    fn the_same_value_has_the_same_key_however_it_is_escaped() {
        assert_eq!(key("n", r#"{"\u006e":"\u0061"}"#), key("n", r#"{"n":"a"}"#));
        assert_eq!(key("n", r#"{"n":"a","n":"b"}"#).unwrap(), "e\0\"b");
    }

    #[test]
    fn what_is_not_there_has_no_key() {
        for data in
            ["1", "null", "[]", "\"n\"", "{}", r#"{"m":1}"#, r#"{"n":null}"#, r#"{"n":[]}"#, r#"{"n":{}}"#]
        {
            assert_eq!(key("n", data), None, "{data}");
        }
        assert_eq!(key("n.m", r#"{"n":1}"#), None);
    }

    #[test]
    fn a_path_is_names_joined_by_dots() {
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a[0]"] {
            assert_eq!(ConflationPath::parse(bad), Err(InvalidPath(bad.to_owned())));
        }
        assert_eq!(ConflationPath::parse("a.b").unwrap().to_string(), "a.b");
    }
}

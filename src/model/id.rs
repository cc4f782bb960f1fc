//! Identifiers: short, printable, safe in a URL and in a channel's name.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::de::{self, Visitor};

/// The longest identifier, in bytes.
pub const MAX_ID_LEN: usize = 128;

/// Why a string is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The string is empty.
    #[error("a {what} may not be empty")]
    Empty {
        /// The kind of identifier.
        what: &'static str,
    },
    /// The string is longer than the limit.
    #[error("a {what} has at most {max} characters, this one has {len}")]
    TooLong {
        /// The kind of identifier.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// A character outside of `A-Z a-z 0-9 _ . : -`.
    #[error("a {what} is made of A-Z a-z 0-9 _ . : - only, not {found:?}")]
    Character {
        /// The kind of identifier.
        what: &'static str,
        /// The first character that is not allowed.
        found: char,
    },
}

/// Whether `c` may stand in an identifier or a channel's name.
#[must_use]
pub fn is_id_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':' | '-')
}

/// Checks `s` against the identifier rule `[A-Za-z0-9_.:-]{1,max}`.
pub(crate) fn check(what: &'static str, s: &str, max: usize) -> Result<(), InvalidId> {
    if s.is_empty() {
        return Err(InvalidId::Empty { what });
    }
    if s.len() > max {
        return Err(InvalidId::TooLong { what, len: s.len(), max });
    }
    match s.chars().find(|c| !is_id_char(*c)) {
        Some(found) => Err(InvalidId::Character { what, found }),
        None => Ok(()),
    }
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, utoipa::ToSchema)]
        #[schema(value_type = String)]
        pub struct $name(Arc<str>);

        $crate::model::id::text_type!($name);

        impl $name {
            /// Takes `s` as it is, or says what is wrong with it.
            pub fn parse(s: &str) -> Result<Self, InvalidId> {
                check($what, s, $max)?;
                Ok(Self(Arc::from(s)))
            }

            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(s: String) -> Result<Self, InvalidId> {
                Self::parse(&s)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(s: &str) -> Result<Self, InvalidId> {
                Self::parse(s)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.to_string()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}
pub(crate) use id_type;

/// Has a type that is a checked text read and written as one, without a copy of its own.
macro_rules! text_type {
    ($name:ident) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                d.deserialize_str($crate::model::id::Text(Self::parse))
            }
        }
    };
}
pub(crate) use text_type;

/// Reads a text by what parses it.
pub(crate) struct Text<T, E>(pub(crate) fn(&str) -> Result<T, E>);

impl<T, E: fmt::Display> Visitor<'_> for Text<T, E> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<F: de::Error>(self, text: &str) -> Result<T, F> {
        (self.0)(text).map_err(F::custom)
    }
}

id_type!(
    /// Names a test: what people watch. The sender may choose it.
    TestId,
    "test id",
    MAX_ID_LEN
);
id_type!(
    /// Names a job: one request to run a test.
    JobId,
    "job id",
    MAX_ID_LEN
);
id_type!(
    /// Names a message; unique in its channel for as long as the channel's history lives.
    MessageId,
    "message id",
    MAX_ID_LEN
);
id_type!(
    /// Names a person or a service.
    UserId,
    "user id",
    MAX_ID_LEN
);
id_type!(
    /// Names a worker: a process that runs jobs.
    WorkerId,
    "worker id",
    MAX_ID_LEN
);

impl JobId {
    /// A new id that no other job has; later ones sort after earlier ones.
    #[must_use]
    pub fn generate() -> Self {
        Self(Arc::from(format!("job_{}", ulid::Ulid::generate())))
    }
}

impl TestId {
    /// A new id for a test of `test_type` whose submitter named none.
    #[must_use]
    pub fn generate(test_type: &str) -> Self {
        let prefix: String = test_type.chars().filter(|c| is_id_char(*c)).take(64).collect();
        Self(Arc::from(format!("{prefix}_{}", ulid::Ulid::generate())))
    }
}

/// What generated message ids begin with.
const GENERATED: &str = "msg_";

impl MessageId {
    /// A new id for a message whose sender named none.
    #[must_use]
    pub fn generate() -> Self {
        Self(Arc::from(format!("{GENERATED}{}", ulid::Ulid::generate())))
    }

    /// When `id` was generated, in ms since the Unix epoch, if it ends like one that was: a prefix of another's may
    /// stand before it. Whoever chose an id may have it say any time.
    #[must_use]
    pub fn time_in(id: &str) -> Option<i64> {
        let start = id.len().checked_sub(ulid::ULID_LEN)?;
        let generated = id.get(..start)?.ends_with(GENERATED);
        let ulid = generated.then(|| ulid::Ulid::from_string(id.get(start..)?).ok()).flatten()?;
        i64::try_from(ulid.timestamp_ms()).ok()
    }
}

impl WorkerId {
    /// A new id for a worker of this process.
    #[must_use]
    pub fn generate() -> Self {
        Self(Arc::from(format!("worker_{}", ulid::Ulid::generate())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_keeps_to_its_alphabet_and_length() {
        assert!(TestId::parse("stress_123.a:b-c").is_ok());
        assert_eq!(TestId::parse(""), Err(InvalidId::Empty { what: "test id" }));
        assert!(matches!(TestId::parse("a b"), Err(InvalidId::Character { found: ' ', .. })));
        assert!(matches!(TestId::parse("é"), Err(InvalidId::Character { found: 'é', .. })));
        assert!(TestId::parse(&"x".repeat(128)).is_ok());
        assert!(matches!(TestId::parse(&"x".repeat(129)), Err(InvalidId::TooLong { len: 129, .. })));
    }

    #[test]
    fn a_generated_message_id_tells_its_time() {
        let before = crate::model::now_ms();
        let id = MessageId::generate();
        let told = MessageId::time_in(id.as_str()).expect("a time");
        assert!((before..=crate::model::now_ms()).contains(&told));
        assert_eq!(MessageId::time_in(&format!("a-test:{id}")), Some(told), "as those of mirrors");
        for other in ["", "msg_", "m1", &id.as_str()[4..], &format!("{id}x"), "üüüüüüüüüüüüüüüüü"]
        {
            assert_eq!(MessageId::time_in(other), None, "{other}");
        }
    }

    #[test]
    fn a_wrong_id_in_json_is_refused_with_its_reason() {
        let err = serde_json::from_str::<JobId>("\"a/b\"").expect_err("a slash is not allowed");
        assert!(err.to_string().contains("job id"), "{err}");
    }
}

//! Which JSON everybody can read.
//!
//! Payloads pass through untouched, so what one reader cannot take apart would be stored, and then stop every
//! such reader of its channel at the same place for as long as history has it: RFC 8259 lets readers limit
//! depth and numbers, and half a surrogate pair is no text.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// How deep arrays and objects may be nested. Readers stop at 128, and the envelope is around it.
const MAX_DEPTH: usize = 100;

/// Checks that everybody can read `json`; an error says what they cannot.
pub fn check(json: &RawValue) -> Result<(), serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(json.get());
    Readable { depth: 0 }.deserialize(&mut reader)
}

/// Reads a value and keeps nothing of it.
#[derive(Clone, Copy)]
struct Readable {
    depth: usize,
}

impl Readable {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format!("nested more than {MAX_DEPTH} deep")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Readable {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Readable {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while seq.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while map.next_entry_seed(inner, inner)?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(json: &str) -> Result<(), String> {
        check(&RawValue::from_string(json.to_owned()).unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn ordinary_json_can_be_read() {
        let deep = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        for json in [r#"{"a":[1,-2,1.5e300,true,null,"ü \ud83e\udd80 \u0000"]}"#, r#""text""#, deep.as_str()]
        {
            assert_eq!(checked(json), Ok(()), "{json}");
        }
    }

    #[test]
    fn what_some_readers_cannot_take_apart_is_named() {
        let deep = format!("{}{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1));
        for (json, fault) in [
            (deep.as_str(), "nested more than 100 deep"),
            (r#"{"a":"\ud800"}"#, "hex escape"),
            (r#"{"\udc00":1}"#, "surrogate"),
            ("[1e400]", "number out of range"),
        ] {
            let told = checked(json).unwrap_err();
            assert!(told.contains(fault), "{told} should name {fault}");
        }
    }
}

//! Reads untrusted JSON that will be judged once and kept as it came.
//!
//! What is validated must be what every later reader sees, so a member name that appears twice in
//! one object is refused (RFC 7493 §2.3): parsers differ in which of the two they take. Nesting is
//! bounded here, because whoever walks the value later does so by recursion.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

use crate::tenant::error::TenantError;

/// Parses `raw`, at most `bytes_max` bytes of text and `depth_max` containers inside each other.
///
/// # Errors
/// `Invalid` at `pointer` if it is larger, deeper, or names a member twice.
pub(crate) fn parse(
    pointer: &str,
    raw: &RawValue,
    bytes_max: usize,
    depth_max: usize,
) -> Result<Value, TenantError> {
    if raw.get().len() > bytes_max {
        let message = format!("is larger than {bytes_max} bytes");
        return Err(TenantError::invalid(pointer, message));
    }
    let mut deserializer = serde_json::Deserializer::from_str(raw.get());
    Strict { depth_max, depth_left: depth_max }
        .deserialize(&mut deserializer)
        .map_err(|error| TenantError::invalid(pointer, error.to_string()))
}

#[derive(Clone, Copy)]
struct Strict {
    depth_max: usize,
    depth_left: usize,
}

impl Strict {
    fn inside<E: Error>(self) -> Result<Self, E> {
        let depth_left = self.depth_left.checked_sub(1).ok_or_else(|| {
            E::custom(format_args!("is nested deeper than {} levels", self.depth_max))
        })?;
        Ok(Self { depth_left, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("is not a finite number"))?;
        Ok(Value::Number(number))
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.inside()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.inside()?;
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if members.contains_key(&name) {
                return Err(A::Error::custom(format_args!("names the member {name:?} twice")));
            }
            members.insert(name, map.next_value_seed(inner)?);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, depth_max: usize) -> Result<Value, TenantError> {
        let raw = RawValue::from_string(text.to_owned()).expect("well-formed JSON");
        parse("/data", &raw, 100, depth_max)
    }

    #[test]
    fn it_reads_what_the_ordinary_parser_reads() {
        let text = r#"{"a":[1,-2,3.5,"x\n",true,null],"b":{}}"#;
        assert_eq!(read(text, 8).ok(), serde_json::from_str(text).ok());
    }

    #[test]
    fn a_member_named_twice_is_refused_at_any_level() {
        for text in [r#"{"a":1,"a":2}"#, r#"[{"b":{"c":1,"\u0063":2}}]"#] {
            let refused = read(text, 8);
            assert!(
                matches!(&refused, Err(TenantError::Invalid(errors))
                if errors[0].message.contains("twice")),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn nesting_and_size_are_bounded() {
        assert!(read("[[1]]", 2).is_ok());
        assert!(read("[[[1]]]", 2).is_err());
        assert!(read(&format!("\"{}\"", "x".repeat(99)), 2).is_err());
    }
}

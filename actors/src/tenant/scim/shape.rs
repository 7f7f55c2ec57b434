//! From a request's JSON to attributes as the schema spells them, and from a resource to the part of it
//! that is asked for.
//!
//! Refuses: values of another kind than the schema's. What no schema of ours has is left out.

use serde_json::Value;

use super::schema::{Attribute, Kind, Known, Mutability, Schema};
use super::{Attributes, Fault};

/// Values of one attribute at most.
pub(crate) const VALUES_MAX: usize = crate::limits::TEAM_MEMBERS_MAX;

fn wrong(attribute: &Attribute, must: &str) -> Fault {
    Fault::InvalidValue(format!("{} must be {must}", attribute.name))
}

/// The attributes that clients set, out of what one sent.
///
/// # Errors
/// [`Fault::InvalidValue`] for a value of the wrong kind.
pub fn read(schema: &'static Schema, body: &Attributes) -> Result<Attributes, Fault> {
    let mut read = Attributes::new();
    for (name, value) in body {
        let Some(Known::Kept(attribute)) = schema.find(None, name) else { continue };
        if attribute.mutability == Mutability::ReadOnly {
            continue;
        }
        if let Some(value) = take(attribute, value)? {
            read.insert(attribute.name.to_owned(), value);
        }
    }
    Ok(read)
}

/// An attribute's value, in the one form that is worked with; nothing if it is empty.
pub(crate) fn take(attribute: &'static Attribute, value: &Value) -> Result<Option<Value>, Fault> {
    if !attribute.many {
        return take_one(attribute, value);
    }
    let one;
    let values = match value {
        Value::Null => return Ok(None),
        Value::Array(values) => values.as_slice(),
        // Some clients leave the brackets out where there is one value.
        single => {
            one = [single.clone()];
            &one[..]
        }
    };
    if values.len() > VALUES_MAX {
        return Err(wrong(attribute, &format!("a list of at most {VALUES_MAX} values")));
    }
    let mut taken = Vec::with_capacity(values.len());
    for value in values {
        taken.extend(take_one(attribute, value)?);
    }
    Ok((!taken.is_empty()).then_some(Value::Array(taken)))
}

/// One value of an attribute.
pub(crate) fn take_one(
    attribute: &'static Attribute,
    value: &Value,
) -> Result<Option<Value>, Fault> {
    match (attribute.kind, value) {
        (_, Value::Null) => Ok(None),
        (Kind::Boolean, Value::Bool(_)) => Ok(Some(value.clone())),
        // Entra ID writes True and False as texts.
        (Kind::Boolean, Value::String(text)) => {
            let read = text.to_ascii_lowercase().parse();
            read.map(|is_so| Some(Value::Bool(is_so)))
                .map_err(|_| wrong(attribute, "true or false"))
        }
        (Kind::Boolean, _) => Err(wrong(attribute, "true or false")),
        (Kind::Complex(_), Value::Object(members)) => {
            let mut taken = Attributes::new();
            for (name, value) in members {
                let Some(sub) = attribute.sub(name) else { continue };
                if let Some(value) = take(sub, value)? {
                    taken.insert(sub.name.to_owned(), value);
                }
            }
            Ok((!taken.is_empty()).then_some(Value::Object(taken)))
        }
        (Kind::Complex(_), Value::String(text)) if attribute.sub("value").is_some() => {
            let member = ("value".to_owned(), Value::String(text.clone()));
            Ok(Some(Value::Object([member].into_iter().collect())))
        }
        (Kind::Complex(_), _) => Err(wrong(attribute, "an object")),
        (Kind::Integer, Value::Number(_)) => Ok(Some(value.clone())),
        (Kind::Integer, _) => Err(wrong(attribute, "a number")),
        (_, Value::String(text)) => Ok((!text.is_empty()).then(|| Value::String(text.clone()))),
        _ => Err(wrong(attribute, "a text")),
    }
}

/// Which attributes of a resource are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Projection {
    /// Only these, and those that are always there.
    pub only: Vec<String>,
    /// All but these.
    pub without: Vec<String>,
}

impl Projection {
    /// Whether everything is asked for.
    pub fn is_whole(&self) -> bool {
        self.only.is_empty() && self.without.is_empty()
    }

    /// The part of a resource that is asked for. Names that nothing has ask for nothing.
    pub fn of(&self, schema: &'static Schema, mut resource: Attributes) -> Attributes {
        if !self.only.is_empty() {
            let mut part = Attributes::new();
            for name in ["schemas", "id"] {
                part.extend(resource.remove(name).map(|value| (name.to_owned(), value)));
            }
            for (attribute, sub) in self.only.iter().filter_map(|path| place(schema, path)) {
                let Some(value) = resource.get(attribute.name) else { continue };
                match sub {
                    None => {
                        part.insert(attribute.name.to_owned(), value.clone());
                    }
                    Some(sub) => keep(&mut part, attribute, value, sub),
                }
            }
            return part;
        }
        for (attribute, sub) in self.without.iter().filter_map(|path| place(schema, path)) {
            match sub {
                _ if attribute.always => {}
                None => {
                    resource.remove(attribute.name);
                }
                Some(sub) => drop_sub(resource.get_mut(attribute.name), sub),
            }
        }
        resource
    }
}

fn place(
    schema: &'static Schema,
    path: &str,
) -> Option<(&'static Attribute, Option<&'static Attribute>)> {
    let (urn, path) = match path.rsplit_once(':') {
        Some((urn, rest)) => (Some(urn), rest),
        None => (None, path),
    };
    // A URN has a dot in its version; what stands behind its last colon has one before a sub-attribute.
    let (name, sub) = path.split_once('.').map_or((path, None), |(name, sub)| (name, Some(sub)));
    let Some(Known::Kept(attribute)) = schema.find(urn, name) else { return None };
    match sub {
        None => Some((attribute, None)),
        Some(sub) => Some((attribute, Some(attribute.sub(sub)?))),
    }
}

fn keep(part: &mut Attributes, attribute: &Attribute, value: &Value, sub: &Attribute) {
    let kept = |value: &Value| -> Value {
        let member = value.get(sub.name).map(|value| (sub.name.to_owned(), value.clone()));
        Value::Object(member.into_iter().collect())
    };
    let narrowed = match value {
        Value::Array(values) => Value::Array(values.iter().map(kept).collect()),
        value => kept(value),
    };
    match (part.get_mut(attribute.name), narrowed) {
        (Some(Value::Object(before)), Value::Object(more)) => before.extend(more),
        (Some(Value::Array(before)), Value::Array(more)) => {
            for (before, more) in before.iter_mut().zip(more) {
                if let (Value::Object(before), Value::Object(more)) = (before, more) {
                    before.extend(more);
                }
            }
        }
        (Some(_), _) => {}
        (None, narrowed) => {
            part.insert(attribute.name.to_owned(), narrowed);
        }
    }
}

fn drop_sub(value: Option<&mut Value>, sub: &Attribute) {
    match value {
        Some(Value::Array(values)) => {
            for value in values.iter_mut().filter_map(Value::as_object_mut) {
                value.remove(sub.name);
            }
        }
        Some(Value::Object(members)) => {
            members.remove(sub.name);
        }
        _ => {}
    }
}

//! Filters (RFC 7644 §3.4.2.2): whether a resource is among those that are asked for.
//!
//! The grammar is `scim_v2`'s, which bounds how deep and how long a filter may be while it reads it. Here
//! names are looked up once, before any resource is looked at.
//!
//! Refuses: names that no schema has, and `groups`, which is not known before a page is chosen.

use std::str::FromStr as _;

use scim_v2::filter::{
    AttrExp, AttrPath, CompValue, CompareOp, Filter as Parsed, Operands, ValFilter,
};
use serde_json::Value;

use super::schema::{Attribute, Kind, Known, Schema};
use super::{Attributes, Fault};
use crate::env::parse_rfc3339;

/// A filter, read but not yet about anything.
#[derive(Debug, Clone)]
pub struct Filter(Parsed);

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// [`Fault::InvalidFilter`] if it is none, nests too deeply or has too many terms.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        Parsed::from_str(text)
            .map(Self)
            .map_err(|error| Fault::InvalidFilter(format!("the filter cannot be read: {error}")))
    }

    /// Looks its names up among the attributes of a kind of resource.
    pub(crate) fn about(&self, schema: &'static Schema) -> Result<Test, Fault> {
        compile(schema, &self.0)
    }
}

/// Where a value is: an attribute, or one inside it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub attribute: &'static Attribute,
    pub sub: Option<&'static Attribute>,
}

/// A filter about one kind of resource.
#[derive(Debug)]
pub(crate) enum Test {
    Present(Place),
    Compare(Place, CompareOp, CompValue),
    /// Some value of the attribute passes the test, which is about that value alone.
    Within(&'static Attribute, Box<Test>),
    /// Of a kind of resource that has no such attribute.
    Never,
    Not(Box<Test>),
    All(Vec<Test>),
    Any(Vec<Test>),
}

fn invalid(path: &AttrPath) -> Fault {
    Fault::InvalidFilter(format!("{path} is no attribute that a filter can name"))
}

fn compile(schema: &'static Schema, filter: &Parsed) -> Result<Test, Fault> {
    let all = |operands: &Operands<Parsed>| -> Result<Vec<Test>, Fault> {
        operands.iter().map(|operand| compile(schema, operand)).collect()
    };
    Ok(match filter {
        Parsed::Attr(AttrExp::Present(path)) => match place(schema, path)? {
            Some(place) => Test::Present(place),
            None => Test::Never,
        },
        Parsed::Attr(AttrExp::Comparison(path, op, value)) => match place(schema, path)? {
            Some(place) => Test::Compare(place, op.clone(), value.clone()),
            None => Test::Never,
        },
        Parsed::ValuePath(path) => match place(schema, &path.attr)? {
            Some(Place { attribute, sub: None }) if !attribute.subs().is_empty() => {
                Test::Within(attribute, Box::new(compile_within(attribute, &path.filter)?))
            }
            Some(_) => return Err(invalid(&path.attr)),
            None => Test::Never,
        },
        Parsed::Not(inner) => Test::Not(Box::new(compile(schema, inner)?)),
        Parsed::And(operands) => Test::All(all(operands)?),
        Parsed::Or(operands) => Test::Any(all(operands)?),
    })
}

/// A test of one value of a complex attribute.
pub(crate) fn compile_within(outer: &'static Attribute, filter: &ValFilter) -> Result<Test, Fault> {
    let inner = |path: &AttrPath| {
        let sub = outer.sub(&path.name).filter(|_| path.sub_attr.is_none() && path.uri.is_none());
        sub.map(|attribute| Place { attribute, sub: None }).ok_or_else(|| invalid(path))
    };
    let all = |operands: &Operands<ValFilter>| -> Result<Vec<Test>, Fault> {
        operands.iter().map(|operand| compile_within(outer, operand)).collect()
    };
    Ok(match filter {
        ValFilter::Attr(AttrExp::Present(path)) => Test::Present(inner(path)?),
        ValFilter::Attr(AttrExp::Comparison(path, op, value)) => {
            Test::Compare(inner(path)?, op.clone(), value.clone())
        }
        ValFilter::Not(not) => Test::Not(Box::new(compile_within(outer, not)?)),
        ValFilter::And(operands) => Test::All(all(operands)?),
        ValFilter::Or(operands) => Test::Any(all(operands)?),
    })
}

/// Looks a path up; nothing for what the standard has and we do not keep.
fn place(schema: &'static Schema, path: &AttrPath) -> Result<Option<Place>, Fault> {
    let attribute = match schema.find(path.uri.as_deref(), &path.name) {
        Some(Known::Kept(attribute)) if attribute.name != "groups" => attribute,
        Some(Known::NotKept) => return Ok(None),
        _ => return Err(invalid(path)),
    };
    let sub = match &path.sub_attr {
        Some(name) => Some(attribute.sub(name).ok_or_else(|| invalid(path))?),
        None => None,
    };
    Ok(Some(Place { attribute, sub }))
}

impl Test {
    /// Whether a resource passes.
    pub(crate) fn passes(&self, resource: &Attributes) -> bool {
        match self {
            Self::Present(place) => place.values(resource).iter().any(|value| is_there(value)),
            Self::Compare(place, op, wanted) => compare(*place, resource, op, wanted),
            Self::Within(attribute, inner) => {
                let found = resource.get(attribute.name);
                let mut values = match found {
                    Some(Value::Array(values)) => values.iter(),
                    Some(value) => std::slice::from_ref(value).iter(),
                    None => [].iter(),
                };
                values.any(|value| value.as_object().is_some_and(|value| inner.passes(value)))
            }
            Self::Never => false,
            Self::Not(inner) => !inner.passes(resource),
            Self::All(tests) => tests.iter().all(|test| test.passes(resource)),
            Self::Any(tests) => tests.iter().any(|test| test.passes(resource)),
        }
    }

    /// The text that an attribute must be equal to for anything to pass, if the filter says so.
    pub(crate) fn pinned(&self, name: &str) -> Option<&str> {
        match self {
            Self::Compare(Place { attribute, sub: None }, CompareOp::Eq, CompValue::Str(text))
                if attribute.name == name =>
            {
                Some(text)
            }
            Self::All(tests) => tests.iter().find_map(|test| test.pinned(name)),
            _ => None,
        }
    }

    /// What a value must have to pass, as far as the test says so by `eq`; nothing if it says more.
    pub(crate) fn demands(&self) -> Option<Attributes> {
        match self {
            Self::Compare(Place { attribute, sub: None }, CompareOp::Eq, wanted) => {
                let value = match (wanted, attribute.kind) {
                    (CompValue::Str(text), Kind::Boolean) => {
                        Value::Bool(text.to_ascii_lowercase().parse().ok()?)
                    }
                    (CompValue::Str(text), _) => Value::String(text.clone()),
                    (CompValue::True, _) => Value::Bool(true),
                    (CompValue::False, _) => Value::Bool(false),
                    _ => return None,
                };
                Some([(attribute.name.to_owned(), value)].into_iter().collect())
            }
            Self::All(tests) => {
                let mut whole = Attributes::new();
                for test in tests {
                    whole.extend(test.demands()?);
                }
                Some(whole)
            }
            _ => None,
        }
    }
}

impl Place {
    /// The values there, one by one.
    fn values<'a>(&self, resource: &'a Attributes) -> Vec<&'a Value> {
        let Some(found) = resource.get(self.attribute.name) else { return Vec::new() };
        let values = match found {
            Value::Array(values) => values.iter().collect(),
            value => vec![value],
        };
        // A complex value that is compared as a whole is compared by what it is about.
        let inner = match (self.sub, self.attribute.many) {
            (Some(sub), _) => sub.name,
            (None, true) if !self.attribute.subs().is_empty() => "value",
            (None, _) => return values,
        };
        values.into_iter().filter_map(|value| value.get(inner)).collect()
    }

    fn leaf(&self) -> &'static Attribute {
        self.sub.or_else(|| self.attribute.sub("value")).unwrap_or(self.attribute)
    }
}

fn is_there(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => !values.is_empty(),
        Value::Object(members) => !members.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

fn compare(place: Place, resource: &Attributes, op: &CompareOp, wanted: &CompValue) -> bool {
    let values = place.values(resource);
    let leaf = place.leaf();
    let is_equal = || {
        if matches!(wanted, CompValue::Null) {
            return !values.iter().any(|value| is_there(value));
        }
        values.iter().any(|value| holds(leaf, value, &CompareOp::Eq, wanted))
    };
    match op {
        CompareOp::Eq => is_equal(),
        CompareOp::Ne => !is_equal(),
        op => values.iter().any(|value| holds(leaf, value, op, wanted)),
    }
}

fn holds(leaf: &Attribute, value: &Value, op: &CompareOp, wanted: &CompValue) -> bool {
    match (value, wanted) {
        (Value::Bool(value), CompValue::True) => *op == CompareOp::Eq && *value,
        (Value::Bool(value), CompValue::False) => *op == CompareOp::Eq && !*value,
        // Entra ID writes True and False as texts.
        (Value::Bool(value), CompValue::Str(text)) => {
            *op == CompareOp::Eq && text.eq_ignore_ascii_case(if *value { "true" } else { "false" })
        }
        (Value::String(value), CompValue::Str(text)) if leaf.kind == Kind::Time => {
            match (parse_rfc3339(value), parse_rfc3339(text)) {
                (Some(value), Some(wanted)) => ordered(&value, op, &wanted),
                _ => false,
            }
        }
        (Value::String(value), CompValue::Str(text)) if leaf.exact => texts(value, op, text),
        (Value::String(value), CompValue::Str(text)) => {
            texts(&value.to_lowercase(), op, &text.to_lowercase())
        }
        _ => false,
    }
}

fn texts(value: &str, op: &CompareOp, wanted: &str) -> bool {
    match op {
        CompareOp::Co => value.contains(wanted),
        CompareOp::Sw => value.starts_with(wanted),
        CompareOp::Ew => value.ends_with(wanted),
        op => ordered(value, op, wanted),
    }
}

fn ordered<T: PartialOrd + ?Sized>(value: &T, op: &CompareOp, wanted: &T) -> bool {
    match op {
        CompareOp::Eq => value == wanted,
        CompareOp::Ne => value != wanted,
        CompareOp::Gt => value > wanted,
        CompareOp::Ge => value >= wanted,
        CompareOp::Lt => value < wanted,
        CompareOp::Le => value <= wanted,
        CompareOp::Co | CompareOp::Sw | CompareOp::Ew => false,
    }
}

//! Changes of parts (RFC 7644 §3.5.2): operations that are carried out on a resource's attributes, one
//! after the other. What comes out is taken like a whole new resource; nothing is written here.
//!
//! The forms that Okta and Entra ID send are taken: operations in any case, `True` as a text, values
//! without a path whose members are paths, and values of a list to be removed named in `value`.
//!
//! Refuses: to change what only the server sets, and paths that lead nowhere.

use std::str::FromStr as _;

use scim_v2::filter::{AttrPath, PatchPath, PatchValuePath};
use serde_json::Value;

use super::filter::{Test, compile_within};
use super::schema::{Attribute, Known, Mutability, Schema, is_extension};
use super::shape::{VALUES_MAX, take, take_one};
use super::{Attributes, Fault, member};

/// Operations of one request at most.
const OPERATIONS_MAX: usize = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Add,
    Replace,
    Remove,
}

/// One change.
#[derive(Debug)]
pub struct Operation {
    op: Op,
    path: Option<PatchPath>,
    value: Value,
}

/// Reads the operations of a request.
///
/// # Errors
/// [`Fault::InvalidSyntax`] or [`Fault::InvalidPath`].
pub fn read(body: &Attributes) -> Result<Vec<Operation>, Fault> {
    let syntax = |message: &str| Fault::InvalidSyntax(message.to_owned());
    let operations = member(body, "Operations").and_then(Value::as_array);
    let operations = operations.ok_or_else(|| syntax("Operations must be a list"))?;
    if operations.is_empty() || operations.len() > OPERATIONS_MAX {
        return Err(Fault::InvalidSyntax(format!(
            "Operations must have 1 to {OPERATIONS_MAX} items"
        )));
    }
    operations
        .iter()
        .map(|operation| {
            let operation =
                operation.as_object().ok_or_else(|| syntax("an operation must be an object"))?;
            let op = member(operation, "op").and_then(Value::as_str).unwrap_or_default();
            let op = match op.to_ascii_lowercase().as_str() {
                "add" => Op::Add,
                "replace" => Op::Replace,
                "remove" => Op::Remove,
                _ => return Err(syntax("op must be add, replace or remove")),
            };
            let path = match member(operation, "path") {
                None | Some(Value::Null) => None,
                Some(Value::String(text)) => Some(path(text)?),
                Some(_) => return Err(Fault::InvalidPath("path must be a text".to_owned())),
            };
            if op == Op::Remove && path.is_none() {
                return Err(Fault::NoTarget("remove needs a path".to_owned()));
            }
            let value = member(operation, "value").cloned().unwrap_or(Value::Null);
            Ok(Operation { op, path, value })
        })
        .collect()
}

fn path(text: &str) -> Result<PatchPath, Fault> {
    PatchPath::from_str(text)
        .map_err(|error| Fault::InvalidPath(format!("the path cannot be read: {error}")))
}

/// Carries operations out.
///
/// # Errors
/// Whatever is wrong with one of them. What the ones before it did stays in `resource`, which is then of
/// no use.
pub(crate) fn apply(
    schema: &'static Schema,
    resource: &mut Attributes,
    operations: &[Operation],
) -> Result<(), Fault> {
    for operation in operations {
        match &operation.path {
            Some(path) => at(schema, resource, operation.op, path, &operation.value)?,
            None => whole(schema, resource, operation)?,
        }
    }
    Ok(())
}

/// A value without a path: each of its members is one, in whatever form a path has.
fn whole(
    schema: &'static Schema,
    resource: &mut Attributes,
    operation: &Operation,
) -> Result<(), Fault> {
    let members = operation.value.as_object().ok_or_else(|| {
        Fault::InvalidValue("value must be an object where there is no path".to_owned())
    })?;
    for (name, value) in members {
        // Extensions are named whole, and a URN alone is no path.
        if is_extension(name) {
            continue;
        }
        match schema.find(None, name) {
            // Taken along without being meant: the id of what is changed, say.
            Some(Known::NotKept) => {}
            Some(Known::Kept(attribute)) if attribute.mutability == Mutability::ReadOnly => {}
            Some(Known::Kept(attribute)) => on_attribute(resource, attribute, operation.op, value)?,
            None => at(schema, resource, operation.op, &path(name)?, value)?,
        }
    }
    Ok(())
}

fn at(
    schema: &'static Schema,
    resource: &mut Attributes,
    op: Op,
    path: &PatchPath,
    value: &Value,
) -> Result<(), Fault> {
    let named = match path {
        PatchPath::Attr(path) => path,
        PatchPath::Value(path) => &path.attr,
    };
    let attribute = match schema.find(named.uri.as_deref(), &named.name) {
        Some(Known::Kept(attribute)) => attribute,
        Some(Known::NotKept) => return Ok(()),
        None => return Err(nowhere(named)),
    };
    if attribute.mutability == Mutability::ReadOnly {
        return Err(Fault::Mutability(format!("{} is set by the server", attribute.name)));
    }
    match path {
        PatchPath::Attr(AttrPath { sub_attr: None, .. }) => {
            on_attribute(resource, attribute, op, value)
        }
        PatchPath::Attr(AttrPath { sub_attr: Some(sub), .. }) => {
            let sub = attribute.sub(sub).ok_or_else(|| nowhere(named))?;
            on_sub(resource, attribute, sub, op, value)
        }
        PatchPath::Value(path) => on_values(resource, attribute, path, op, value),
    }
}

fn nowhere(path: &AttrPath) -> Fault {
    Fault::InvalidPath(format!("{path} is no attribute of such a resource"))
}

fn on_attribute(
    resource: &mut Attributes,
    attribute: &'static Attribute,
    op: Op,
    value: &Value,
) -> Result<(), Fault> {
    let name = attribute.name;
    let taken = take(attribute, value)?;
    match (op, taken) {
        (Op::Remove, Some(Value::Array(gone))) => {
            let kept = values_of(resource, name).into_iter();
            let is_kept = |value: &Value| !gone.iter().any(|gone| is_same(gone, value));
            put(resource, name, Value::Array(kept.filter(is_kept).collect()));
        }
        (Op::Remove, _) | (Op::Replace, None) => {
            resource.remove(name);
        }
        (Op::Add, None) => {}
        (Op::Add, Some(Value::Array(more))) => {
            let mut values = values_of(resource, name);
            for value in more {
                admit(attribute, &mut values, value)?;
            }
            put(resource, name, Value::Array(values));
        }
        (_, Some(Value::Object(more))) => match resource.get_mut(name) {
            Some(Value::Object(before)) => before.extend(more),
            _ => put(resource, name, Value::Object(more)),
        },
        (_, Some(value)) => put(resource, name, value),
    }
    Ok(())
}

/// Adds a value to a list that has no two alike, of which one at most is the preferred one, and which, of
/// a person's roles, has one only.
fn admit(attribute: &Attribute, values: &mut Vec<Value>, value: Value) -> Result<(), Fault> {
    if attribute.name == "roles" {
        values.clear();
    }
    if value.get("primary") == Some(&Value::Bool(true)) {
        for other in values.iter_mut().filter(|other| other.get("primary").is_some()) {
            other["primary"] = Value::Bool(false);
        }
    }
    match values.iter_mut().find(|known| is_same(&value, known)) {
        Some(known) => *known = value,
        None => values.push(value),
    }
    if values.len() > VALUES_MAX {
        let message = format!("{} must be a list of at most {VALUES_MAX} values", attribute.name);
        return Err(Fault::InvalidValue(message));
    }
    Ok(())
}

/// Whether two values of a list are about the same: of the same `value`, and of the same `type` where the
/// first one says it.
fn is_same(wanted: &Value, known: &Value) -> bool {
    let agrees = |name: &str| wanted.get(name).is_none() || wanted.get(name) == known.get(name);
    match wanted.get("value") {
        Some(value) => known.get("value") == Some(value) && agrees("type"),
        None => wanted == known,
    }
}

fn values_of(resource: &mut Attributes, name: &str) -> Vec<Value> {
    match resource.remove(name) {
        Some(Value::Array(values)) => values,
        _ => Vec::new(),
    }
}

fn put(resource: &mut Attributes, name: &str, value: Value) {
    let is_empty = match &value {
        Value::Array(values) => values.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    };
    if is_empty {
        resource.remove(name);
    } else {
        resource.insert(name.to_owned(), value);
    }
}

/// An attribute inside another: of the one value there, or of each.
fn on_sub(
    resource: &mut Attributes,
    attribute: &'static Attribute,
    sub: &'static Attribute,
    op: Op,
    value: &Value,
) -> Result<(), Fault> {
    let value = if op == Op::Remove { None } else { take(sub, value)? };
    let mut found = match resource.remove(attribute.name) {
        Some(found) => found,
        None if value.is_none() => return Ok(()),
        None if attribute.many => Value::Array(vec![Value::Object(Attributes::new())]),
        None => Value::Object(Attributes::new()),
    };
    match &mut found {
        Value::Array(values) => {
            values.iter_mut().for_each(|one| set(one, sub, value.as_ref()));
            values.retain(|one| one.as_object().is_none_or(|one| !one.is_empty()));
        }
        one => set(one, sub, value.as_ref()),
    }
    put(resource, attribute.name, found);
    Ok(())
}

fn set(value: &mut Value, sub: &Attribute, wanted: Option<&Value>) {
    let Some(members) = value.as_object_mut() else { return };
    match wanted {
        Some(wanted) => {
            members.insert(sub.name.to_owned(), wanted.clone());
        }
        None => {
            members.remove(sub.name);
        }
    }
}

/// The values of a list that pass a test.
fn on_values(
    resource: &mut Attributes,
    attribute: &'static Attribute,
    path: &PatchValuePath,
    op: Op,
    value: &Value,
) -> Result<(), Fault> {
    if !attribute.many || attribute.subs().is_empty() {
        return Err(Fault::InvalidPath(format!("{} has no values to select", attribute.name)));
    }
    let test = compile_within(attribute, &path.filter)
        .map_err(|fault| Fault::InvalidPath(fault.to_string()))?;
    let sub = match &path.sub_attr {
        Some(name) => Some(attribute.sub(name).ok_or_else(|| nowhere(&path.attr))?),
        None => None,
    };
    let mut values = values_of(resource, attribute.name);
    let is_hit = |value: &Value| value.as_object().is_some_and(|value| test.passes(value));
    match (op, sub) {
        (Op::Remove, None) => values.retain(|value| !is_hit(value)),
        (Op::Remove, Some(sub)) => {
            values.iter_mut().filter(|value| is_hit(value)).for_each(|one| set(one, sub, None));
            values.retain(|one| one.as_object().is_none_or(|one| !one.is_empty()));
        }
        (op, sub) => {
            let new = match sub {
                Some(sub) => take(sub, value)?.map(|value| {
                    Value::Object([(sub.name.to_owned(), value)].into_iter().collect())
                }),
                None => take_one(attribute, value)?,
            };
            let new = new.as_ref().and_then(Value::as_object).cloned().unwrap_or_default();
            if !values.iter().any(is_hit) {
                values.push(made(attribute, &test, op)?);
            }
            for one in values.iter_mut().filter(|value| is_hit(value)) {
                if let Some(members) = one.as_object_mut() {
                    members.extend(new.clone());
                }
            }
        }
    }
    put(resource, attribute.name, Value::Array(values));
    Ok(())
}

/// The value that an addition is about when there is none yet: what its test demands.
fn made(attribute: &Attribute, test: &Test, op: Op) -> Result<Value, Fault> {
    let demanded = (op == Op::Add).then(|| test.demands()).flatten();
    demanded.map(Value::Object).ok_or_else(|| {
        Fault::NoTarget(format!("no value of {} is selected by the path", attribute.name))
    })
}

//! Weighs a form schema before it is compiled: how much work can it make of one submission?
//!
//! References let a small schema unfold into an enormous one, or into itself without end, and
//! validation runs on a thread that other tenants share. So the schema is unfolded on paper first:
//! subschemas that apply to the same value are counted at one level, those for members and items
//! one level deeper, down to the depth a submission may have.
//!
//! Refuses: references that leave the schema, references that come back to the same value, chains
//! that are too long, and a total that is too large. A schema may be recursive through members and
//! items, as long as what it unfolds to stays small.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use crate::limits;

/// The dialect every form schema is in.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// Keywords whose subschema applies to the same value.
const IN_PLACE_ONE: [&str; 4] = ["not", "if", "then", "else"];
/// Keywords whose list of subschemas applies to the same value.
const IN_PLACE_LIST: [&str; 3] = ["allOf", "anyOf", "oneOf"];
/// Keywords whose subschema applies to members or items.
const BELOW_ONE: [&str; 7] = [
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
    "items",
    "contains",
    "unevaluatedItems",
    "contentSchema",
];
/// Keywords whose members' subschemas apply to members.
const BELOW_MAP: [&str; 2] = ["properties", "patternProperties"];

/// Why a schema is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TooHeavy {
    /// Only this dialect is known.
    #[error("\"$schema\" names {0:?}; only {DIALECT:?} is supported")]
    Dialect(String),
    /// Nothing is fetched, from anywhere.
    #[error(
        "the reference {0:?} leaves the schema; only references within it (\"#…\") are followed"
    )]
    Leaves(String),
    /// There is nothing at the reference.
    #[error("the reference {0:?} points to nothing in the schema")]
    Dangling(String),
    /// Nested resources would give references a second meaning.
    #[error("\"$id\" may stand only at the schema's root")]
    NestedId,
    /// Validation would never end.
    #[error("the reference {0:?} comes back to the same value")]
    Endless(String),
    /// The chain of subschemas and references is too long.
    #[error(
        "subschemas and references follow each other for more than {} steps",
        limits::SCHEMA_PATH_MAX
    )]
    Long,
    /// The schema unfolds to too much.
    #[error(
        "with its references unfolded the schema has more than {} subschemas",
        limits::SCHEMA_COST_MAX
    )]
    Heavy,
    /// Too many regular expressions.
    #[error("the schema has more than {} regular expressions", limits::SCHEMA_PATTERNS_MAX)]
    Patterns,
}

/// List keywords that are gone through for each value. So many entries count as one subschema.
const LIST_ENTRIES_PER_COST: usize = 16;

/// Weighs `schema`: what it may cost to apply it to one value of a submission, in subschemas.
pub(super) fn weigh(schema: &Value) -> Result<u64, TooHeavy> {
    let mut anchors = HashMap::new();
    let mut patterns = 0;
    survey(schema, true, &mut anchors, &mut patterns)?;
    if patterns > limits::SCHEMA_PATTERNS_MAX {
        return Err(TooHeavy::Patterns);
    }
    let mut scale = Scale { root: schema, anchors, known: HashMap::new(), open: HashSet::new() };
    Ok(scale.weigh(schema, limits::DATA_DEPTH_MAX, 0, "#")?.cost)
}

/// Walks the whole text, also what no reference reaches: compiling may look at it.
fn survey<'s>(
    value: &'s Value,
    is_root: bool,
    anchors: &mut HashMap<&'s str, &'s Value>,
    patterns: &mut usize,
) -> Result<(), TooHeavy> {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(dialect)) = members.get("$schema")
                && dialect.trim_end_matches('#') != DIALECT
            {
                return Err(TooHeavy::Dialect(dialect.clone()));
            }
            if !is_root && members.get("$id").is_some_and(Value::is_string) {
                return Err(TooHeavy::NestedId);
            }
            for name in ["$anchor", "$dynamicAnchor"] {
                if let Some(Value::String(anchor)) = members.get(name) {
                    anchors.insert(anchor, value);
                }
            }
            for name in ["$ref", "$dynamicRef"] {
                if let Some(Value::String(target)) = members.get(name)
                    && !target.starts_with('#')
                {
                    return Err(TooHeavy::Leaves(target.clone()));
                }
            }
            *patterns += usize::from(members.get("pattern").is_some_and(Value::is_string));
            if let Some(Value::Object(by_pattern)) = members.get("patternProperties") {
                *patterns += by_pattern.len();
            }
            members.values().try_for_each(|inner| survey(inner, false, anchors, patterns))
        }
        Value::Array(items) => {
            items.iter().try_for_each(|inner| survey(inner, false, anchors, patterns))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// What a subschema unfolds to.
#[derive(Clone, Copy)]
struct Weight {
    /// Subschemas, itself included.
    cost: u64,
    /// Steps to the furthest of them.
    height: usize,
}

/// A subschema by its place in memory, at a depth of the submission.
type Spot = (*const Value, usize);

struct Scale<'s> {
    root: &'s Value,
    anchors: HashMap<&'s str, &'s Value>,
    known: HashMap<Spot, Weight>,
    open: HashSet<Spot>,
}

impl<'s> Scale<'s> {
    /// Weighs the subschema that `reference` led to, `steps` from the root, where the submission
    /// may still be `levels` deep.
    fn weigh(
        &mut self,
        schema: &'s Value,
        levels: usize,
        steps: usize,
        reference: &str,
    ) -> Result<Weight, TooHeavy> {
        let Value::Object(members) = schema else { return Ok(Weight { cost: 1, height: 0 }) };
        let spot = (std::ptr::from_ref(schema), levels);
        if let Some(known) = self.known.get(&spot).copied() {
            return check(known, steps);
        }
        if !self.open.insert(spot) {
            return Err(TooHeavy::Endless(reference.to_owned()));
        }
        let mut sum = check(Weight { cost: own_cost(members), height: 0 }, steps)?;
        for (below, inner, reference) in self.parts(members)? {
            let levels = if below { levels.checked_sub(1) } else { Some(levels) };
            // A submission is never deeper, so nothing there is ever validated.
            let Some(levels) = levels else { continue };
            let part = self.weigh(inner, levels, steps + 1, reference)?;
            sum.cost = sum.cost.saturating_add(part.cost);
            sum.height = sum.height.max(part.height + 1);
            check(sum, steps)?;
        }
        self.open.remove(&spot);
        self.known.insert(spot, sum);
        Ok(sum)
    }

    /// The subschemas of a schema object: whether each is a level deeper, and how it is named.
    fn parts(
        &self,
        members: &'s Map<String, Value>,
    ) -> Result<Vec<(bool, &'s Value, &'s str)>, TooHeavy> {
        let mut parts = Vec::new();
        for (name, value) in members {
            let name = name.as_str();
            match value {
                Value::String(target) if matches!(name, "$ref" | "$dynamicRef") => {
                    parts.push((false, self.resolve(target)?, target.as_str()));
                }
                Value::Array(list) if IN_PLACE_LIST.contains(&name) => {
                    parts.extend(list.iter().map(|inner| (false, inner, name)));
                }
                Value::Array(list) if name == "prefixItems" => {
                    parts.extend(list.iter().map(|inner| (true, inner, name)));
                }
                Value::Object(map) if name == "dependentSchemas" => {
                    parts.extend(map.values().map(|inner| (false, inner, name)));
                }
                Value::Object(map) if BELOW_MAP.contains(&name) => {
                    parts.extend(map.values().map(|inner| (true, inner, name)));
                }
                Value::Object(_) if IN_PLACE_ONE.contains(&name) => {
                    parts.push((false, value, name));
                }
                Value::Object(_) if BELOW_ONE.contains(&name) => parts.push((true, value, name)),
                _ => {}
            }
        }
        Ok(parts)
    }

    fn resolve(&self, target: &str) -> Result<&'s Value, TooHeavy> {
        let dangling = || TooHeavy::Dangling(target.to_owned());
        let encoded = target.strip_prefix('#').ok_or_else(dangling)?;
        let fragment = percent_decode(encoded).ok_or_else(dangling)?;
        if fragment.is_empty() || fragment.starts_with('/') {
            return self.root.pointer(&fragment).ok_or_else(dangling);
        }
        self.anchors.get(fragment.as_str()).copied().ok_or_else(dangling)
    }
}

/// What a schema object costs without its subschemas.
fn own_cost(members: &Map<String, Value>) -> u64 {
    let listed: usize = ["enum", "required"]
        .iter()
        .filter_map(|name| members.get(*name).and_then(Value::as_array))
        .map(Vec::len)
        .sum();
    1 + (listed / LIST_ENTRIES_PER_COST) as u64
}

fn check(weight: Weight, steps: usize) -> Result<Weight, TooHeavy> {
    if weight.cost > limits::SCHEMA_COST_MAX {
        return Err(TooHeavy::Heavy);
    }
    if steps + weight.height > limits::SCHEMA_PATH_MAX {
        return Err(TooHeavy::Long);
    }
    Ok(weight)
}

/// Percent-decodes a URI fragment (RFC 3986 §2.1).
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, tail) = rest.split_first_chunk::<2>()?;
        bytes.extend(hex::decode(digits).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_that_come_back_to_the_same_value_are_refused() {
        for schema in [
            json!({"$ref": "#"}),
            json!({"allOf": [{"$ref": "#"}]}),
            json!({"$ref": "#/$defs/a", "$defs": {
                "a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"not": {"$ref": "#/$defs/a"}}}}),
            json!({"$dynamicAnchor": "x", "if": {"$dynamicRef": "#x"}}),
        ] {
            assert!(matches!(weigh(&schema), Err(TooHeavy::Endless(_))), "{schema}");
        }
    }

    #[test]
    fn recursion_through_items_is_allowed() {
        let tree = json!({"type": "object", "properties": {
            "name": {"type": "string"},
            "children": {"type": "array", "items": {"$ref": "#"}}}});
        assert!(weigh(&tree).is_ok());
    }

    #[test]
    fn references_that_multiply_are_too_heavy() {
        let mut defs = Map::new();
        for n in 0..60 {
            let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
            defs.insert(format!("d{n}"), json!({"allOf": [next, next]}));
        }
        defs.insert("d60".to_owned(), json!({"type": "string"}));
        let schema = json!({"$ref": "#/$defs/d0", "$defs": defs});
        assert_eq!(weigh(&schema), Err(TooHeavy::Heavy));

        let forked = json!({"allOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]});
        assert_eq!(weigh(&forked), Err(TooHeavy::Heavy));
    }

    #[test]
    fn a_long_chain_of_references_is_refused() {
        let mut defs = Map::new();
        for n in 0..2_000 {
            defs.insert(format!("d{n}"), json!({"$ref": format!("#/$defs/d{}", n + 1)}));
        }
        defs.insert("d2000".to_owned(), json!(true));
        let schema = json!({"$ref": "#/$defs/d0", "$defs": defs});
        assert_eq!(weigh(&schema), Err(TooHeavy::Long));
    }

    #[test]
    fn references_out_of_the_schema_are_refused_by_name() {
        for target in ["https://example.com/s.json", "file:///etc/passwd", "other.json#/a"] {
            let schema = json!({"properties": {"a": {"$ref": target}}});
            assert_eq!(weigh(&schema), Err(TooHeavy::Leaves(target.to_owned())));
        }
        let dangling = json!({"$ref": "#/$defs/none"});
        assert_eq!(weigh(&dangling), Err(TooHeavy::Dangling("#/$defs/none".to_owned())));
    }

    #[test]
    fn references_by_anchor_and_escaped_pointer_are_followed() {
        let schema = json!({"properties": {"a": {"$ref": "#x"}, "b": {"$ref": "#/$defs/a~1%62"}},
            "$defs": {"n": {"$anchor": "x"}, "a/b": {}}});
        assert_eq!(weigh(&schema), Ok(5));
    }

    #[test]
    fn another_dialect_and_a_nested_id_are_refused() {
        let old = json!({"$schema": "http://json-schema.org/draft-07/schema#"});
        assert!(matches!(weigh(&old), Err(TooHeavy::Dialect(_))));
        let nested = json!({"$defs": {"a": {"$id": "https://example.com/a"}}});
        assert_eq!(weigh(&nested), Err(TooHeavy::NestedId));
    }
}

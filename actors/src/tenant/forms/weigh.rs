//! Weighs a form schema before it is compiled: how much work can it make of one submission?
//!
//! References let a small schema unfold into an enormous one, or into itself without end, and
//! validation runs on a thread that other tenants share. So the schema is read into a plan of what
//! applies where, and unfolded on paper: subschemas that apply to the same value are counted at one
//! level, those for members and items one level deeper, down to the depth a submission may have.
//!
//! Only keywords that are known here are taken, so that nothing applies that was not weighed:
//! JSON Schema 2020-12 without anchors, dynamic references, nested resources, vocabularies and
//! content schemas.
//!
//! Refuses: other keywords; references other than `#` and `#/$defs/NAME`; references that come back
//! to the same value; chains that are too long; a total that is too large; `unevaluatedProperties`
//! and `unevaluatedItems` other than as a boolean at the root, or in a root that is referred to;
//! formats that are expensive to check; and regular expressions that are (`patterns.rs`). A schema
//! may be recursive through members and items, as long as what it unfolds to stays small.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::patterns::{self, PatternRefusal};
use super::steps::{Node, Plan, compared};
use crate::limits;

/// The dialect every form schema is in.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// Keywords that nothing is applied for, or that cost no more than any value does.
const FREE: [&str; 22] = [
    "title",
    "description",
    "default",
    "examples",
    "$comment",
    "deprecated",
    "readOnly",
    "writeOnly",
    "type",
    "multipleOf",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxItems",
    "minItems",
    "maxContains",
    "minContains",
    "maxProperties",
    "minProperties",
    "$defs",
    "$ref",
];
/// Formats that are asserted and cheap.
const FORMATS: [&str; 12] = [
    "date",
    "date-time",
    "time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "json-pointer",
    "uri",
    "uri-reference",
    "uuid",
];
/// Formats that would be asserted, at a cost that is hard to bound.
const FORMATS_REFUSED: [&str; 7] = [
    "regex",
    "idn-email",
    "idn-hostname",
    "iri",
    "iri-reference",
    "uri-template",
    "relative-json-pointer",
];
/// What a reference into the definitions begins with.
const DEFS: &str = "#/$defs/";

/// Why a schema is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TooHeavy {
    /// Only this dialect is known.
    #[error("\"$schema\" may stand only at the root and name only {DIALECT:?}")]
    Dialect,
    /// A keyword that is not known here, so its cost is not either.
    #[error("the keyword {0:?} is not supported")]
    Keyword(String),
    /// Asks what other subschemas left out.
    #[error("{0:?} is supported only as a boolean at the root, if no reference leads to \"#\"")]
    Unevaluated(String),
    /// An expensive format.
    #[error("the format {0:?} is not supported")]
    Format(String),
    /// Nothing is fetched, and only definitions are referred to.
    #[error(
        "the reference {0:?} is not supported; only \"#\" and \"#/$defs/NAME\" are, with a NAME of \
         letters, digits, \"_\", \"-\" and \".\""
    )]
    Reference(String),
    /// There is nothing at the reference.
    #[error("the reference {0:?} points to nothing in the schema")]
    Dangling(String),
    /// Validation would never end.
    #[error("a reference comes back to the same value")]
    Endless,
    /// The chain of subschemas and references is too long.
    #[error(
        "subschemas and references follow each other for more than {} steps, or more than {} for \
         one value",
        limits::SCHEMA_PATH_MAX,
        limits::SCHEMA_CHAIN_MAX
    )]
    Long,
    /// The schema unfolds to too much.
    #[error(
        "with its references unfolded the schema has more than {} subschemas",
        limits::SCHEMA_COST_MAX
    )]
    Heavy,
    /// Too many regular expressions.
    #[error(
        "the schema has more than {} regular expressions, or they have more than {} states in all",
        limits::SCHEMA_PATTERNS_MAX,
        limits::PATTERN_STATES_MAX
    )]
    Patterns,
    /// A regular expression by itself.
    #[error("the regular expression {0}")]
    Pattern(PatternRefusal),
}

/// A refusal and the JSON Pointer (RFC 6901) to its cause, from the schema's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) pointer: String,
    pub(super) why: TooHeavy,
}

/// Reads `schema` into a plan and weighs it. Members of a wrong type are left to the meta-schema.
pub(super) fn weigh(schema: &Value) -> Result<Plan, Refusal> {
    let mut reader = Reader { plan: Plan::default(), defs: HashMap::new(), references: Vec::new() };
    reader.read(schema, "")?;
    let plan = reader.resolved()?;
    let mut scale = Scale { plan: &plan, known: HashMap::new(), open: HashSet::new() };
    let root = |why| Refusal { pointer: String::new(), why };
    scale.weigh(0, limits::DATA_DEPTH_MAX, 0).map_err(root)?;
    // What no reference reaches is compiled by no one, but nothing here has to rely on that.
    for place in 0..plan.nodes.len() {
        scale.weigh(place, 0, 0).map_err(root)?;
    }
    Ok(plan)
}

struct Reader {
    plan: Plan,
    defs: HashMap<String, usize>,
    /// Where each reference stands, in the plan and in the text, and its target.
    references: Vec<(usize, String, String)>,
}

impl Reader {
    /// Reads one subschema; answers its place in the plan.
    fn read(&mut self, schema: &Value, pointer: &str) -> Result<usize, Refusal> {
        let place = self.plan.nodes.len();
        self.plan.nodes.push(Node { own: 1, ..Node::default() });
        let Value::Object(members) = schema else { return Ok(place) };
        let mut node = Node { own: 1 + members.len() as u64 / 4, ..Node::default() };
        for (keyword, value) in members {
            let at = format!("{pointer}/{}", escaped(keyword));
            let is_known = self.assertion(&mut node, place, keyword, value, &at)?
                || self.applicator(&mut node, keyword, value, &at)?;
            if !is_known {
                return Err(Refusal { pointer: at, why: TooHeavy::Keyword(keyword.clone()) });
            }
        }
        if let Some(Value::String(target)) = members.get("$ref") {
            self.references.push((place, pointer.to_owned(), target.clone()));
        }
        if let Some(Value::Object(defs)) = members.get("$defs") {
            for (name, inner) in defs {
                let inner = self.read(inner, &format!("{pointer}/$defs/{}", escaped(name)))?;
                if pointer.is_empty() {
                    self.defs.insert(name.clone(), inner);
                }
            }
        }
        self.plan.nodes[place] = node;
        Ok(place)
    }

    /// Reads a keyword that has no subschemas. Answers whether it is one.
    fn assertion(
        &mut self,
        node: &mut Node,
        place: usize,
        keyword: &str,
        value: &Value,
        at: &str,
    ) -> Result<bool, Refusal> {
        let refuse = |why| Err(Refusal { pointer: at.to_owned(), why });
        match (keyword, value) {
            ("$schema", dialect) => {
                let name = dialect.as_str().map(|name| name.trim_end_matches('#'));
                if place != 0 || name != Some(DIALECT) {
                    return refuse(TooHeavy::Dialect);
                }
            }
            ("unevaluatedProperties" | "unevaluatedItems", value) => {
                if place != 0 || !value.is_boolean() {
                    return refuse(TooHeavy::Unevaluated(keyword.to_owned()));
                }
                self.plan.has_unevaluated = true;
            }
            ("format", Value::String(format)) => {
                if FORMATS_REFUSED.contains(&format.as_str()) {
                    return refuse(TooHeavy::Format(format.clone()));
                }
                node.has_format = FORMATS.contains(&format.as_str());
            }
            ("pattern", Value::String(pattern)) => {
                node.pattern = Some(self.pattern(pattern, at)?);
            }
            ("minLength" | "maxLength", _) => node.has_length = true,
            ("uniqueItems", value) => node.is_unique = value != &Value::Bool(false),
            ("enum" | "const" | "required" | "dependentRequired", value) => {
                node.own = node.own.saturating_add(compared(value));
            }
            ("format" | "pattern", _) => {}
            (other, _) => return Ok(FREE.contains(&other)),
        }
        Ok(true)
    }

    fn pattern(&mut self, pattern: &str, at: &str) -> Result<u64, Refusal> {
        let refusal = |why| Refusal { pointer: at.to_owned(), why };
        let states =
            patterns::states(pattern).map_err(|error| refusal(TooHeavy::Pattern(error)))?;
        self.plan.patterns += 1;
        self.plan.states = self.plan.states.saturating_add(states);
        if self.plan.patterns > limits::SCHEMA_PATTERNS_MAX
            || self.plan.states > limits::PATTERN_STATES_MAX
        {
            return Err(refusal(TooHeavy::Patterns));
        }
        Ok(states)
    }

    /// Reads a keyword that has subschemas. Answers whether it is one.
    fn applicator(
        &mut self,
        node: &mut Node,
        keyword: &str,
        value: &Value,
        at: &str,
    ) -> Result<bool, Refusal> {
        match keyword {
            "not" | "if" | "then" | "else" => node.in_place.push(self.read(value, at)?),
            "allOf" | "anyOf" | "oneOf" => node.in_place.extend(self.list(value, at)?),
            "dependentSchemas" => {
                node.in_place.extend(self.map(value, at)?.into_iter().map(|(_, place)| place));
            }
            "prefixItems" => node.prefix = self.list(value, at)?,
            "items" | "contains" => node.items.push(self.read(value, at)?),
            "properties" => {
                node.members = self.map(value, at)?.into_iter().collect();
                node.own += node.members.len() as u64 / 4;
            }
            "patternProperties" => {
                for (pattern, place) in self.map(value, at)? {
                    let states = self.pattern(&pattern, at)?;
                    node.by_pattern.push((states, place));
                }
            }
            "additionalProperties" => node.rest = Some(self.read(value, at)?),
            "propertyNames" => node.names = Some(self.read(value, at)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn list(&mut self, value: &Value, at: &str) -> Result<Vec<usize>, Refusal> {
        let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
        let read = |(index, inner)| self.read(inner, &format!("{at}/{index}"));
        list.iter().enumerate().map(read).collect()
    }

    fn map(&mut self, value: &Value, at: &str) -> Result<Vec<(String, usize)>, Refusal> {
        let Some(map) = value.as_object() else { return Ok(Vec::new()) };
        map.iter()
            .map(|(name, inner)| {
                let place = self.read(inner, &format!("{at}/{}", escaped(name)))?;
                Ok((name.clone(), place))
            })
            .collect()
    }

    /// The plan, with every reference led to its target.
    fn resolved(mut self) -> Result<Plan, Refusal> {
        for (place, pointer, target) in self.references {
            let refuse = |why| Err(Refusal { pointer: pointer.clone(), why });
            let found = if target == "#" {
                if self.plan.has_unevaluated {
                    return refuse(TooHeavy::Unevaluated("unevaluated…".to_owned()));
                }
                0
            } else {
                let Some(name) = target.strip_prefix(DEFS).filter(|name| is_plain(name)) else {
                    return refuse(TooHeavy::Reference(target));
                };
                let Some(found) = self.defs.get(name) else {
                    return refuse(TooHeavy::Dangling(target));
                };
                *found
            };
            self.plan.nodes[place].in_place.push(found);
        }
        Ok(self.plan)
    }
}

/// Whether a definition's name stands for itself in a pointer and in a URI fragment.
fn is_plain(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    !name.is_empty() && name.bytes().all(is_plain)
}

/// A member name as a step of a JSON Pointer (RFC 6901 §3).
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// What a subschema unfolds to.
#[derive(Clone, Copy)]
struct Weight {
    /// Subschemas, itself included.
    cost: u64,
    /// Steps to the furthest of them.
    height: usize,
    /// Steps to the furthest that applies to the same value.
    chain: usize,
}

struct Scale<'p> {
    plan: &'p Plan,
    /// By place in the plan and levels the submission may still have.
    known: HashMap<(usize, usize), Weight>,
    open: HashSet<(usize, usize)>,
}

impl Scale<'_> {
    /// Weighs the subschema at `place`, `steps` from the root, where the submission may still be
    /// `levels` deep.
    fn weigh(&mut self, place: usize, levels: usize, steps: usize) -> Result<Weight, TooHeavy> {
        let spot = (place, levels);
        if let Some(known) = self.known.get(&spot).copied() {
            return check(known, steps);
        }
        if !self.open.insert(spot) {
            return Err(TooHeavy::Endless);
        }
        let plan = self.plan;
        let Some(node) = plan.nodes.get(place) else { return Err(TooHeavy::Endless) };
        let mut sum = check(Weight { cost: 1 + node.own / 16, height: 0, chain: 0 }, steps)?;
        for inner in &node.in_place {
            let part = self.weigh(*inner, levels, steps + 1)?;
            sum.cost = sum.cost.saturating_add(part.cost);
            sum.height = sum.height.max(part.height + 1);
            sum.chain = sum.chain.max(part.chain + 1);
            check(sum, steps)?;
        }
        // A submission is never deeper than its levels, so below them nothing is ever validated.
        if let Some(levels) = levels.checked_sub(1) {
            for inner in node.below() {
                let part = self.weigh(inner, levels, steps + 1)?;
                sum.cost = sum.cost.saturating_add(part.cost);
                sum.height = sum.height.max(part.height + 1);
                check(sum, steps)?;
            }
        }
        self.open.remove(&spot);
        self.known.insert(spot, sum);
        Ok(sum)
    }
}

fn check(weight: Weight, steps: usize) -> Result<Weight, TooHeavy> {
    if weight.cost > limits::SCHEMA_COST_MAX {
        return Err(TooHeavy::Heavy);
    }
    if steps + weight.height > limits::SCHEMA_PATH_MAX || weight.chain > limits::SCHEMA_CHAIN_MAX {
        return Err(TooHeavy::Long);
    }
    Ok(weight)
}

#[cfg(test)]
mod tests;

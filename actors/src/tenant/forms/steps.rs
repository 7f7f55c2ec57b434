//! Counts the steps of applying a schema to a submission, before it is applied.
//!
//! A [`Plan`] is the schema reduced to what costs time: which subschemas apply where, and what each
//! costs by itself. Counting takes every branch that validation might take, so the count is an upper
//! bound, and it ends as soon as the budget is spent: what is refused costs no more than the budget.
//! One step is about 20 ns of validation in a release build.
//!
//! Refuses: to judge anything. Whether the data fits is the validator's business.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::limits;

/// Steps that testing a text with a regular expression costs, beside its length.
const PATTERN_STEPS: u64 = 4;
/// State transitions of a regular expression that take one step.
const TRANSITIONS_PER_STEP: u64 = 4;
/// Bytes of a text whose format is checked in one step.
const FORMAT_BYTES_PER_STEP: u64 = 4;
/// Bytes of a text whose characters are counted in one step.
const LENGTH_BYTES_PER_STEP: u64 = 256;
/// Bytes that are compared or hashed in one step.
const COMPARED_BYTES_PER_STEP: u64 = 32;
/// How often each item is compared with others when items have to be unique.
const COMPARISONS_PER_ITEM: u64 = 8;

/// Whether many different values like this one can be made that the library hashes alike, so that each
/// is compared with all: arrays and objects of equal leaves, and numbers beyond what a double tells
/// apart.
fn may_collide(value: &Value) -> bool {
    const EXACT_MAX: u64 = 1 << 53;
    match value {
        Value::Array(_) | Value::Object(_) => true,
        Value::Number(number) => {
            let whole = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
            whole.is_none_or(|whole| whole > EXACT_MAX)
        }
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

/// Why a submission is not judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooMuch {
    /// The budget is spent.
    #[error("is too large for the form's schema")]
    Steps,
    /// A text is too long for a pattern or a format.
    #[error(
        "has a text or a member name that is too long for its pattern or format; at most {} bytes \
         are tested",
        limits::PATTERN_INPUT_BYTES_MAX
    )]
    Text,
}

/// One subschema: what it costs by itself, and the places in the plan of what else applies.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// Steps for any value.
    pub(super) own: u64,
    /// States of its regular expression.
    pub(super) pattern: Option<u64>,
    /// Whether a format is asserted.
    pub(super) has_format: bool,
    /// Whether characters are counted.
    pub(super) has_length: bool,
    /// Whether items must be unique.
    pub(super) is_unique: bool,
    /// Applied to the same value.
    pub(super) in_place: Vec<usize>,
    /// Applied to members by name.
    pub(super) members: HashMap<String, usize>,
    /// Applied to members whose name a regular expression of so many states finds.
    pub(super) by_pattern: Vec<(u64, usize)>,
    /// Applied to the members no name was given for.
    pub(super) rest: Option<usize>,
    /// Applied to member names.
    pub(super) names: Option<usize>,
    /// Applied to the first items, one each.
    pub(super) prefix: Vec<usize>,
    /// Applied to every item.
    pub(super) items: Vec<usize>,
}

impl Node {
    /// What applies one level deeper.
    pub(super) fn below(&self) -> impl Iterator<Item = usize> + '_ {
        let by_pattern = self.by_pattern.iter().map(|(_, place)| *place);
        self.members
            .values()
            .copied()
            .chain(by_pattern)
            .chain(self.rest)
            .chain(self.names)
            .chain(self.prefix.iter().copied())
            .chain(self.items.iter().copied())
    }
}

/// A schema reduced to what applying it costs.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// The subschemas; the first is the root.
    pub(super) nodes: Vec<Node>,
    /// Whether the root asks what its subschemas left out, which walks them again.
    pub(super) has_unevaluated: bool,
    /// Regular expressions.
    pub(super) patterns: u64,
    /// States of all of them.
    pub(super) states: u64,
}

impl Plan {
    /// Counts the steps of applying the schema to `data`, at most `steps_max`.
    ///
    /// # Errors
    /// [`TooMuch`] if there are more, or a text is too long for its pattern.
    pub(crate) fn steps(&self, data: &Value, steps_max: u64) -> Result<u64, TooMuch> {
        let again = match data {
            Value::Object(members) if self.has_unevaluated => 2 + members.len() as u64,
            Value::Array(items) if self.has_unevaluated => 2 + items.len() as u64,
            _ => 1,
        };
        let mut count = Count { plan: self, left: steps_max / again };
        count.apply(0, data)?;
        Ok((steps_max / again - count.left).saturating_mul(again))
    }

    /// How many bytes the compiled schema keeps, of a text of `source_bytes`, estimated.
    pub(crate) fn resident_bytes(&self, source_bytes: usize) -> usize {
        let states = usize::try_from(self.states).unwrap_or(usize::MAX);
        let patterns = usize::try_from(self.patterns).unwrap_or(usize::MAX);
        source_bytes
            .saturating_mul(limits::SCHEMA_RESIDENT_FACTOR)
            .saturating_add(states.saturating_mul(limits::PATTERN_STATE_BYTES))
            .saturating_add(patterns.saturating_mul(2 * limits::PATTERN_CACHE_BYTES_MAX))
    }
}

struct Count<'p> {
    plan: &'p Plan,
    left: u64,
}

impl Count<'_> {
    fn take(&mut self, steps: u64) -> Result<(), TooMuch> {
        self.left = self.left.checked_sub(steps).ok_or(TooMuch::Steps)?;
        Ok(())
    }

    fn apply(&mut self, place: usize, value: &Value) -> Result<(), TooMuch> {
        let plan = self.plan;
        let Some(node) = plan.nodes.get(place) else { return Ok(()) };
        self.take(node.own)?;
        match value {
            Value::String(text) => self.text(node, text)?,
            Value::Array(items) => self.items(node, items)?,
            Value::Object(members) => self.members(node, members)?,
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        node.in_place.iter().try_for_each(|inner| self.apply(*inner, value))
    }

    fn text(&mut self, node: &Node, text: &str) -> Result<(), TooMuch> {
        let bytes = text.len() as u64;
        if let Some(states) = node.pattern {
            self.pattern(states, text)?;
        }
        if node.has_format {
            check_length(text)?;
            self.take(1 + bytes / FORMAT_BYTES_PER_STEP)?;
        }
        if node.has_length {
            self.take(bytes / LENGTH_BYTES_PER_STEP)?;
        }
        Ok(())
    }

    fn pattern(&mut self, states: u64, text: &str) -> Result<(), TooMuch> {
        check_length(text)?;
        let transitions = states.saturating_mul(text.len() as u64);
        self.take(PATTERN_STEPS.saturating_add(transitions / TRANSITIONS_PER_STEP))
    }

    fn items(&mut self, node: &Node, items: &[Value]) -> Result<(), TooMuch> {
        if node.is_unique {
            let (alike, apart): (Vec<_>, Vec<_>) = items.iter().partition(|item| may_collide(item));
            let sum = |items: &[&Value]| items.iter().map(|item| compared(item)).sum::<u64>();
            self.take(sum(&apart).saturating_mul(COMPARISONS_PER_ITEM))?;
            self.take(sum(&alike).saturating_mul(COMPARISONS_PER_ITEM.max(alike.len() as u64)))?;
        }
        for (place, item) in node.prefix.iter().zip(items) {
            self.apply(*place, item)?;
        }
        for place in &node.items {
            items.iter().try_for_each(|item| self.apply(*place, item))?;
        }
        Ok(())
    }

    fn members(&mut self, node: &Node, members: &Map<String, Value>) -> Result<(), TooMuch> {
        for (name, value) in members {
            let named = node.members.get(name);
            if let Some(place) = named {
                self.apply(*place, value)?;
            }
            for (states, place) in &node.by_pattern {
                // Asked once more to know which members are left over.
                self.pattern(states.saturating_mul(2), name)?;
                self.apply(*place, value)?;
            }
            if let Some(place) = node.rest.filter(|_| named.is_none()) {
                self.apply(place, value)?;
            }
            if let Some(place) = node.names {
                self.apply(place, &Value::String(name.clone()))?;
            }
        }
        Ok(())
    }
}

fn check_length(text: &str) -> Result<(), TooMuch> {
    if text.len() > limits::PATTERN_INPUT_BYTES_MAX { Err(TooMuch::Text) } else { Ok(()) }
}

/// Steps that comparing or hashing `value` costs.
pub(super) fn compared(value: &Value) -> u64 {
    match value {
        Value::String(text) => 1 + text.len() as u64 / COMPARED_BYTES_PER_STEP,
        Value::Array(items) => 1 + items.iter().map(compared).sum::<u64>(),
        Value::Object(members) => members.iter().fold(1, |sum, (name, inner)| {
            sum + 1 + name.len() as u64 / COMPARED_BYTES_PER_STEP + compared(inner)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
    }
}

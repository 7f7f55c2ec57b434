//! A form's schema: taken in, compiled, and applied to submissions.
//!
//! Schemas are JSON Schema 2020-12 and stand alone: nothing is ever fetched. Formats are asserted,
//! and regular expressions run in linear time.
//!
//! Refuses: schemas that the meta-schema refuses, and those that would cost too much (`weigh.rs`).

use std::sync::Arc;

use jsonschema::{PatternOptions, ValidationError, Validator};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use storage::id::FormId;
use storage::keys::Key;

use super::weigh::weigh;
use super::{FormHead, FormRow, strict};
use crate::limits;
use crate::tenant::cache::CompiledSchema;
use crate::tenant::cx::Reads;
use crate::tenant::error::{FieldError, TenantError};

/// Where a schema stands in a request body.
const POINTER: &str = "/schema";
/// The longest message about one error; it may quote the value.
const MESSAGE_CHARS_MAX: usize = 300;

/// A schema that is ready to be applied.
pub(crate) struct Compiled {
    validator: Validator,
    cost: u64,
}

/// Reads, checks and compiles a schema from a request.
///
/// # Errors
/// `Invalid`, pointing into `/schema`.
pub(crate) fn take(raw: &RawValue) -> Result<Compiled, TenantError> {
    let schema = strict::parse(POINTER, raw, limits::SCHEMA_BYTES_MAX, limits::SCHEMA_DEPTH_MAX)?;
    compile(&schema)
}

fn compile(schema: &Value) -> Result<Compiled, TenantError> {
    if !matches!(schema, Value::Object(_) | Value::Bool(_)) {
        return Err(TenantError::invalid(POINTER, "must be an object or a boolean"));
    }
    jsonschema::draft202012::meta::validate(schema)
        .map_err(|error| TenantError::Invalid(vec![field_error(POINTER, &error)]))?;
    let cost = weigh(schema).map_err(|error| TenantError::invalid(POINTER, error.to_string()))?;
    let patterns = PatternOptions::regex()
        .size_limit(limits::PATTERN_BYTES_MAX)
        .dfa_size_limit(limits::PATTERN_BYTES_MAX);
    let validator = jsonschema::draft202012::options()
        .offline()
        .with_pattern_options(patterns)
        .should_validate_formats(true)
        .build(schema)
        .map_err(|error| TenantError::Invalid(vec![field_error(POINTER, &error)]))?;
    Ok(Compiled { validator, cost })
}

/// The compiled schema of a form, from the cache or from its row.
///
/// # Errors
/// `Invalid` if an older release took a schema that this one does not.
pub(crate) fn of_form<R: Reads>(
    cx: &mut R,
    form: FormId,
    head: &FormHead,
) -> Result<Arc<CompiledSchema>, TenantError> {
    if let Some(kept) = cx.caches().schema(form, head.schema_revision) {
        return Ok(kept);
    }
    #[derive(Deserialize)]
    struct Stored {
        schema: Value,
    }
    let row: FormRow = cx.need(&Key::Form { id: form })?;
    let stored: Stored = serde_json::from_slice(&row.json)
        .map_err(|error| TenantError::invalid(POINTER, error.to_string()))?;
    let Compiled { validator, cost } = compile(&stored.schema)?;
    let compiled = Arc::new(CompiledSchema { version: head.schema_revision, cost, validator });
    cx.caches().keep_schema(form, compiled.clone());
    Ok(compiled)
}

/// Applies a schema, whose cost is known, to a submission's data.
///
/// Collecting errors takes memory for each of them, and alternatives collect the errors of every
/// branch. So it is done only where there cannot be many; beyond that, the answer is yes or no.
///
/// # Errors
/// `Invalid` with one pointer into `/data` for each error, the first few; or one for all of it.
pub(crate) fn check(validator: &Validator, cost: u64, data: &Value) -> Result<(), TenantError> {
    let work = cost.saturating_mul(values(data));
    if work > limits::VALIDATION_WORK_MAX {
        return Err(TenantError::invalid("/data", "is too large for the form's schema"));
    }
    if validator.is_valid(data) {
        return Ok(());
    }
    if work > limits::VALIDATION_WORK_EXPLAINED_MAX {
        let message = "does not fit the form's schema; it is too large to say where";
        return Err(TenantError::invalid("/data", message));
    }
    let errors = validator
        .iter_errors(data)
        .take(limits::ERRORS_MAX)
        .map(|error| field_error("/data", &error))
        .collect();
    Err(TenantError::Invalid(errors))
}

/// How many values `data` is made of, itself included.
fn values(data: &Value) -> u64 {
    match data {
        Value::Array(items) => 1 + items.iter().map(values).sum::<u64>(),
        Value::Object(members) => 1 + members.values().map(values).sum::<u64>(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 1,
    }
}

fn field_error(base: &str, error: &ValidationError<'_>) -> FieldError {
    let mut message: String = error.to_string();
    if let Some((end, _)) = message.char_indices().nth(MESSAGE_CHARS_MAX) {
        message.truncate(end);
        message.push('…');
    }
    FieldError { pointer: format!("{base}{}", error.instance_path().as_str()), message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn apply(compiled: &Compiled, data: &Value) -> Result<(), TenantError> {
        check(&compiled.validator, compiled.cost, data)
    }

    fn take_text(text: &str) -> Result<Compiled, TenantError> {
        take(&RawValue::from_string(text.to_owned()).expect("well-formed JSON"))
    }

    fn pointers(result: Result<(), TenantError>) -> Vec<String> {
        match result {
            Err(TenantError::Invalid(errors)) => errors.into_iter().map(|it| it.pointer).collect(),
            other => panic!("expected field errors, got {other:?}"),
        }
    }

    #[test]
    fn errors_point_to_the_member_that_is_wrong() {
        let validator = take_text(
            r#"{"type":"object","required":["name"],"properties":{
                "name":{"type":"string"},"tags":{"items":{"type":"integer"}},
                "mail":{"format":"email"}}}"#,
        )
        .expect("a valid schema");
        assert!(apply(&validator, &json!({"name": "x", "tags": [1, 2]})).is_ok());
        let wrong = json!({"name": 1, "tags": [1, "two"], "mail": "none"});
        let mut found = pointers(apply(&validator, &wrong));
        found.sort();
        assert_eq!(found, ["/data/mail", "/data/name", "/data/tags/1"]);
        assert_eq!(pointers(apply(&validator, &json!({}))), ["/data"]);
    }

    #[test]
    fn a_schema_that_the_meta_schema_refuses_is_pointed_at() {
        let refused = take_text(r#"{"properties":{"a":{"type":"strin"}}}"#).map(drop);
        assert_eq!(pointers(refused), ["/schema/properties/a/type"]);
        assert_eq!(pointers(take_text("[]").map(drop)), ["/schema"]);
    }

    #[test]
    fn a_reference_to_elsewhere_is_refused_and_named() {
        let refused = take_text(r#"{"$ref":"https://example.com/x.json"}"#).map(drop);
        let Err(TenantError::Invalid(errors)) = refused else { panic!("{refused:?}") };
        assert_eq!(errors[0].pointer, "/schema");
        assert!(errors[0].message.contains("https://example.com/x.json"));
    }

    #[test]
    fn an_expensive_regular_expression_is_refused() {
        assert!(take_text(r#"{"pattern":"^[A-Z]{2}\\d{4}$"}"#).is_ok());
        assert!(take_text(r#"{"pattern":"((a{1,100}){1,100}){1,100}"}"#).is_err());
        assert!(take_text(r#"{"pattern":"(a)\\1"}"#).is_err());
    }

    #[test]
    fn a_recursive_schema_is_applied_at_every_level() {
        let validator =
            take_text(r##"{"properties":{"sub":{"$ref":"#"},"n":{"type":"integer"}}}"##)
                .expect("a valid schema");
        let wrong = json!({"sub": {"sub": {"n": "x"}}});
        assert_eq!(pointers(apply(&validator, &wrong)), ["/data/sub/sub/n"]);
    }

    #[test]
    fn no_more_errors_are_listed_than_a_person_reads() {
        let validator = take_text(r#"{"items":{"type":"string"}}"#).expect("a valid schema");
        let wrong = Value::from((0..100).collect::<Vec<_>>());
        assert_eq!(pointers(apply(&validator, &wrong)).len(), limits::ERRORS_MAX);
    }

    #[test]
    fn work_is_bounded_whatever_the_schema_multiplies() {
        let refusals = vec!["false"; 2_000].join(",");
        let text = format!(r#"{{"items":{{"allOf":[{refusals}]}}}}"#);
        let compiled = take_text(&text).expect("a valid schema");
        for (length, word) in [(1_000, "say where"), (100_000, "too large for")] {
            match apply(&compiled, &Value::from(vec![1; length])) {
                Err(TenantError::Invalid(errors)) => {
                    assert!(errors.len() == 1 && errors[0].message.contains(word), "{errors:?}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_longest_chain_and_the_deepest_recursion_fit_on_a_small_stack() {
        let links: Vec<_> = (0..120)
            .map(|n| format!(r##""d{n}":{{"allOf":[{{"$ref":"#/$defs/d{}"}}]}}"##, n + 1))
            .collect();
        let links = links.join(",");
        let chain =
            format!(r##"{{"$ref":"#/$defs/d0","$defs":{{{links},"d120":{{"type":"string"}}}}}}"##);
        let tree = r##"{"properties":{"in":{"allOf":[{"$ref":"#"}]}},"required":["in"]}"##;
        let mut deep = json!(1);
        for _ in 0..limits::DATA_DEPTH_MAX {
            deep = json!({ "in": deep });
        }
        let run = move || {
            let chain = take_text(&chain).expect("a chain within bounds");
            assert_eq!(pointers(apply(&chain, &json!(1))), ["/data"]);
            let tree = take_text(tree).expect("a recursion within bounds");
            assert!(apply(&tree, &deep).is_ok());
        };
        let thread = std::thread::Builder::new().stack_size(1024 * 1024).spawn(run);
        thread.expect("a thread").join().expect("no overflow, no panic");
    }
}

//! A form's schema: taken in, compiled, and applied to submissions.
//!
//! Schemas are JSON Schema 2020-12 and stand alone: nothing is ever fetched. Formats are asserted,
//! and regular expressions run in linear time.
//!
//! Refuses: schemas that the meta-schema refuses, those that would cost too much (`weigh.rs`), and
//! submissions that do (`steps.rs`).

use std::sync::Arc;

use jsonschema::{PatternOptions, ValidationError, Validator};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use storage::id::FormId;
use storage::keys::Key;

use super::steps::Plan;
use super::weigh::{Refusal, weigh};
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
    plan: Plan,
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
    // Weighed first: whatever comes later may then walk the schema and compile its expressions.
    let plan = weigh(schema).map_err(|Refusal { pointer, why }| {
        TenantError::invalid(format!("{POINTER}{pointer}"), why.to_string())
    })?;
    jsonschema::draft202012::meta::validate(schema)
        .map_err(|error| TenantError::Invalid(vec![field_error(POINTER, &error)]))?;
    let patterns = PatternOptions::regex()
        .size_limit(limits::PATTERN_BYTES_MAX)
        .dfa_size_limit(limits::PATTERN_CACHE_BYTES_MAX);
    let validator = jsonschema::draft202012::options()
        .offline()
        .with_pattern_options(patterns)
        .should_validate_formats(true)
        .build(schema)
        .map_err(|error| TenantError::Invalid(vec![field_error(POINTER, &error)]))?;
    Ok(Compiled { validator, plan })
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
    let Compiled { validator, plan } = compile(&stored.schema)?;
    let bytes = plan.resident_bytes(row.json.len());
    let version = head.schema_revision;
    let compiled = Arc::new(CompiledSchema { version, plan, bytes, validator });
    cx.caches().keep_schema(form, compiled.clone());
    Ok(compiled)
}

/// Applies a schema to a submission's data, after counting what that costs.
///
/// Collecting errors takes memory for each of them, and alternatives collect the errors of every
/// branch. So it is done only where there cannot be many; beyond that, the answer is yes or no.
///
/// # Errors
/// `Invalid` with one pointer into `/data` for each error, the first few; or one for all of it.
pub(crate) fn check(validator: &Validator, plan: &Plan, data: &Value) -> Result<(), TenantError> {
    let steps = plan
        .steps(data, limits::VALIDATION_WORK_MAX)
        .map_err(|error| TenantError::invalid("/data", error.to_string()))?;
    if validator.is_valid(data) {
        return Ok(());
    }
    if steps > limits::VALIDATION_WORK_EXPLAINED_MAX {
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

fn field_error(base: &str, error: &ValidationError<'_>) -> FieldError {
    let mut message: String = error.to_string();
    if let Some((end, _)) = message.char_indices().nth(MESSAGE_CHARS_MAX) {
        message.truncate(end);
        message.push('…');
    }
    FieldError { pointer: format!("{base}{}", error.instance_path().as_str()), message }
}

#[cfg(test)]
mod tests;

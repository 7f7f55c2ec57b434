//! Schemas taken, refused and applied; most of what is refused was an attack once.

use super::*;
use serde_json::json;

fn apply(compiled: &Compiled, data: &Value) -> Result<(), TenantError> {
    check(&compiled.validator, &compiled.plan, data)
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
    let validator = take_text(r##"{"properties":{"sub":{"$ref":"#"},"n":{"type":"integer"}}}"##)
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

/// The only error, for what is refused as a whole.
fn refusal<T>(result: Result<T, TenantError>) -> (String, String) {
    match result {
        Err(TenantError::Invalid(errors)) if errors.len() == 1 => {
            (errors[0].pointer.clone(), errors[0].message.clone())
        }
        Err(other) => panic!("expected one error, got {other:?}"),
        Ok(_) => panic!("expected a refusal"),
    }
}

fn take_value(schema: &Value) -> Result<Compiled, TenantError> {
    take_text(&schema.to_string())
}

#[test]
fn work_is_bounded_whatever_the_schema_multiplies() {
    let refusals = vec!["false"; 2_000].join(",");
    let text = format!(r#"{{"items":{{"allOf":[{refusals}]}}}}"#);
    let compiled = take_text(&text).expect("a valid schema");
    for (length, word) in [(100, "say where"), (100_000, "too large for")] {
        let (pointer, message) = refusal(apply(&compiled, &Value::from(vec![1; length])));
        assert!(pointer == "/data" && message.contains(word), "{message}");
    }
}

#[test]
fn expensive_expressions_are_refused_and_heavy_texts_are_not_tested() {
    let heavy = r"^(?:[ab]*a[ab]{1500}c|[ab]*b[ab]{1500}c|[ab]*)$";
    for pattern in [heavy, r"[ab]*a[ab]{1500}c", r"^(?:\w{1}|[ab1]{2000}|.*)$"] {
        let (pointer, _) = refusal(take_value(&json!({"pattern": pattern})));
        assert_eq!(pointer, "/schema/pattern");
        let (pointer, _) = refusal(take_value(&json!({"propertyNames": {"pattern": pattern}})));
        assert_eq!(pointer, "/schema/propertyNames/pattern");
    }
    let nine: Vec<_> = (0..9).map(|n| json!({"pattern": format!("^a{n}.*b$")})).collect();
    let (pointer, _) = refusal(take_value(&json!({"allOf": nine})));
    assert_eq!(pointer, "/schema/allOf/8/pattern");

    let states = r"[ab]*a[ab]{95}c";
    let compiled = take_value(&json!({"items": {"pattern": states}})).expect("a light pattern");
    let (_, message) = refusal(apply(&compiled, &json!(["a".repeat(16 * 1024 + 1)])));
    assert!(message.contains("too long for its pattern"), "{message}");
    let (_, message) = refusal(apply(&compiled, &json!(vec!["ab".repeat(5_000); 10])));
    assert!(message.contains("too large for"), "{message}");
    assert!(apply(&compiled, &json!(vec!["ab".repeat(100) + "c"; 10])).is_ok());
}

#[test]
fn useful_expressions_are_taken() {
    for (pattern, text) in [
        (r"^[A-Z]{2}\d{4}$", "AB1234"),
        (r"^\p{L}[\p{L} '\-]*$", "Zoë"),
        (r"^.{1,80}$", "anything"),
        (r"^[^@\s]+@[^@\s]+\.[a-z]{2,}$", "a@b.org"),
        (r"^\+?[0-9 ()/-]{5,25}$", "+49 (30) 123-4"),
        (r"^(?:red|green|blue)(,(?:red|green|blue)){0,9}$", "red,blue"),
    ] {
        let compiled = take_value(&json!({"pattern": pattern})).expect(pattern);
        assert!(apply(&compiled, &json!(text)).is_ok(), "{pattern}");
        assert!(apply(&compiled, &json!("\n")).is_err(), "{pattern}");
    }
}

#[test]
fn formats_through_many_references_are_counted() {
    let many = vec![json!({"$ref": "#/$defs/f"}); 2_400];
    let schema = json!({"allOf": many, "$defs": {"f": {"format": "uri"}}});
    let compiled = take_value(&schema).expect("cheap for short texts");
    let long = format!("http://{}", "a/".repeat(120_000));
    let (_, message) = refusal(apply(&compiled, &json!(long)));
    assert!(message.contains("too long for its pattern or format"), "{message}");
    let (_, message) = refusal(apply(&compiled, &json!(&long[..16_000])));
    assert!(message.contains("too large for"), "{message}");
    for format in ["iri", "regex", "idn-email", "idn-hostname", "uri-template"] {
        let (pointer, _) = refusal(take_value(&json!({"format": format})));
        assert_eq!(pointer, "/schema/format");
    }
    let annotated = take_value(&json!({"format": "textarea"})).expect("an annotation");
    assert!(apply(&annotated, &json!(long)).is_ok());
}

#[test]
fn what_the_root_leaves_out_is_counted_for_each_member() {
    let parts = vec![json!({"$ref": "#/$defs/a"}); 150];
    let schema = json!({"allOf": parts, "unevaluatedProperties": false,
        "$defs": {"a": {"properties": {"n": {"type": "integer"}}}}});
    let compiled = take_value(&schema).expect("a valid schema");
    assert!(apply(&compiled, &json!({"n": 1})).is_ok());
    assert_eq!(pointers(apply(&compiled, &json!({"n": 1, "m": 1}))), ["/data"]);
    let many: Value = (0..5_000).map(|n| (format!("a{n}"), json!(1))).collect();
    let (_, message) = refusal(apply(&compiled, &many));
    assert!(message.contains("too large for"), "{message}");
}

#[test]
fn comparisons_and_lengths_are_counted() {
    let options: Vec<_> = (0..15).map(|n| "a".repeat(2_000) + &n.to_string()).collect();
    let items = json!(vec![format!("{}14", "a".repeat(2_000)); 120]);
    let lengths = vec![json!({"minLength": 1, "maxLength": 250_000}); 1_500];
    let names: Vec<_> = (0..90).map(|n| format!("a{n}")).collect();
    let required: Value = names.iter().map(|name| (name.clone(), json!(names))).collect();
    let object: Value = names.iter().map(|name| (name.clone(), json!(0))).collect();
    for (schema, data) in [
        (
            json!({"items": {"allOf": vec![json!({"$ref": "#/$defs/e"}); 12]},
                "$defs": {"e": {"enum": options}}}),
            items,
        ),
        (json!({"allOf": lengths}), json!("x".repeat(250_000))),
        (json!({"items": {"dependentRequired": required}}), json!(vec![object; 280])),
        (json!({"allOf": vec![json!({"uniqueItems": true}); 20]}), json!(vec![[1]; 30_000])),
    ] {
        let compiled = take_value(&schema).expect("a valid schema");
        let (_, message) = refusal(apply(&compiled, &data));
        assert!(message.contains("too large for"), "{message}");
    }
}

#[test]
fn unique_items_that_hash_alike_are_counted_against_each_other() {
    let schema = take_value(&json!({"uniqueItems": true})).expect("a plain schema");
    // The library hashes arrays without their nesting, and whole numbers as doubles.
    let first: u64 = (1 << 63) + 3_096;
    let nested = (first..first + 2_000).flat_map(|n| [json!([1, 1, n]), json!([1, 1, [n]])]);
    let large = (first..first + 4_000).map(Value::from);
    for attack in [Value::from_iter(nested), Value::from_iter(large)] {
        assert_eq!(pointers(apply(&schema, &attack)), ["/data"]);
    }
    let records = (0..200).map(|n| json!({"id": n, "name": "one of two hundred"}));
    assert!(apply(&schema, &Value::from_iter(records)).is_ok());
    assert!(apply(&schema, &Value::from_iter((0..20_000).map(Value::from))).is_ok());
}

#[test]
fn a_large_ordinary_submission_is_far_below_the_budget() {
    let schema = json!({"type": "array", "items": {"type": "object", "required": ["name", "code"],
        "additionalProperties": false, "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 80},
            "code": {"type": "string", "pattern": r"^[A-Z]{2}\d{4}$"},
            "mail": {"type": "string", "format": "email"},
            "kind": {"enum": ["one", "two", "three"]}}}});
    let compiled = take_value(&schema).expect("a valid schema");
    let row = json!({"name": "Ada", "code": "AB1234", "mail": "ada@example.org", "kind": "two"});
    let rows = json!(vec![row; 3_000]);
    let steps = compiled.plan.steps(&rows, u64::MAX).expect("no text is too long");
    assert!(steps < limits::VALIDATION_WORK_MAX / 4, "{steps}");
    assert!(apply(&compiled, &rows).is_ok());
}

/// A recursion of `links` references for each of `levels` levels, and data that goes all the way.
fn recursion(links: usize, levels: usize) -> (Value, Value) {
    let mut defs = serde_json::Map::new();
    for n in 0..links {
        let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
        defs.insert(format!("d{n}"), if n % 2 == 0 { next } else { json!({"allOf": [next]}) });
    }
    let again = json!({"a": {"$ref": "#/$defs/d0"}});
    defs.insert(format!("d{links}"), json!({"type": "object", "properties": again}));
    let data = (0..levels).fold(json!(1), |inner, _| json!({ "a": inner }));
    (json!({"$ref": "#/$defs/d0", "$defs": defs}), data)
}

fn on_a_small_stack(run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(1024 * 1024).spawn(run);
    thread.expect("a thread").join().expect("no overflow, no panic");
}

#[test]
fn the_longest_path_that_is_taken_fits_on_a_small_stack() {
    on_a_small_stack(|| {
        let deepest = limits::DATA_DEPTH_MAX;
        let longest = (0..32).rev().find_map(|links| {
            let (schema, data) = recursion(links, deepest - 1);
            take_value(&schema).ok().map(|compiled| (links, compiled, data))
        });
        let (links, compiled, data) = longest.expect("some recursion is taken");
        assert!(links >= 3, "{links}");
        // The innermost value is no object, so both judging and explaining go all the way.
        let at = format!("/data{}", "/a".repeat(deepest - 1));
        assert_eq!(pointers(apply(&compiled, &data)), [at]);
    });
}

#[test]
fn no_schema_takes_the_stack_while_it_is_compiled() {
    on_a_small_stack(|| {
        let links = |count: usize, link: &dyn Fn(Value) -> Value| {
            let mut defs = serde_json::Map::new();
            for n in 0..count {
                let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
                defs.insert(format!("d{n}"), link(next));
            }
            defs.insert(format!("d{count}"), json!({}));
            json!({"$ref": "#/$defs/d0", "$defs": defs})
        };
        assert!(take_value(&links(1_000, &|next| json!({"items": next}))).is_ok());
        assert!(
            take_value(&links(1_000, &|next| json!({"dependentSchemas": {"a": next}}))).is_err()
        );
        assert!(take_value(&links(1_000, &|next| json!({"dependencies": {"a": next}}))).is_err());
        assert!(take_value(&links(1_000, &|next| next)).is_err());
        let nested = (0..31).fold(json!({}), |inner, _| json!({"allOf": [inner]}));
        let compiled = take_value(&nested).expect("within bounds");
        assert!(apply(&compiled, &json!(1)).is_ok());
    });
}

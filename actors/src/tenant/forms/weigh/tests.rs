//! What is weighed as what, and the schemas that must not be taken.

use super::*;
use serde_json::{Map, json};

fn refused(schema: &Value) -> Refusal {
    weigh(schema).expect_err(&schema.to_string())
}

/// `count` definitions made by `link` from the reference to the next one; the last is `{}`.
fn links(count: usize, link: impl Fn(Value) -> Value) -> Value {
    let mut defs = Map::new();
    for n in 0..count {
        defs.insert(format!("d{n}"), link(json!({"$ref": format!("#/$defs/d{}", n + 1)})));
    }
    defs.insert(format!("d{count}"), json!({}));
    json!({"$ref": "#/$defs/d0", "$defs": defs})
}

#[test]
fn a_keyword_that_is_not_known_is_refused_and_pointed_at_wherever_it_stands() {
    for keyword in [
        "dependencies",
        "definitions",
        "additionalItems",
        "contentSchema",
        "contentMediaType",
        "contentEncoding",
        "$id",
        "id",
        "$anchor",
        "$dynamicAnchor",
        "$dynamicRef",
        "$recursiveRef",
        "$recursiveAnchor",
        "$vocabulary",
        "x-own",
    ] {
        let inner = json!({keyword: {}});
        for (schema, pointer) in [
            (inner.clone(), ""),
            (json!({"properties": {"a/b": inner}}), "/properties/a~1b"),
            (json!({"allOf": [{}, {"not": inner}]}), "/allOf/1/not"),
            (json!({"$defs": {"a": {"items": inner}}}), "/$defs/a/items"),
            (json!({"if": {}, "else": inner}), "/else"),
            (json!({"dependentSchemas": {"a": inner}}), "/dependentSchemas/a"),
            (json!({"patternProperties": {"^a": inner}}), "/patternProperties/^a"),
        ] {
            let refusal = refused(&schema);
            assert_eq!(refusal.pointer, format!("{pointer}/{keyword}"), "{schema}");
            assert_eq!(refusal.why, TooHeavy::Keyword(keyword.to_owned()));
        }
    }
}

#[test]
fn what_is_only_data_is_not_read_as_a_schema() {
    let data = json!({"$anchor": "x", "$id": "y", "dependencies": {}});
    for keyword in ["const", "default"] {
        assert!(weigh(&json!({keyword: data})).is_ok());
    }
    assert!(weigh(&json!({"enum": [data], "examples": [data]})).is_ok());
    assert!(weigh(&json!({"properties": {"$anchor": {}, "dependencies": {}}})).is_ok());
}

#[test]
fn anchors_cannot_be_referred_to_real_or_not() {
    let mut schema = links(40, |next| json!({"allOf": [next]}));
    schema["enum"] = json!([{"$anchor": "x"}, 1]);
    schema["$ref"] = json!("#x");
    assert_eq!(refused(&schema).why, TooHeavy::Reference("#x".to_owned()));
}

#[test]
fn references_that_come_back_to_the_same_value_are_refused() {
    for schema in [
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"dependentSchemas": {"a": {"$ref": "#"}}}),
        json!({"$ref": "#/$defs/a", "$defs": {
            "a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"not": {"$ref": "#/$defs/a"}}}}),
        json!({"$defs": {"a": {"then": {"$ref": "#/$defs/a"}}}}),
    ] {
        assert_eq!(refused(&schema).why, TooHeavy::Endless, "{schema}");
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
    for twice in [
        |next: Value| json!({"allOf": [next, next]}),
        |next: Value| json!({"dependentSchemas": {"a": {"allOf": [next, next]}}}),
        |next: Value| json!({"anyOf": [next, {"not": next}]}),
    ] {
        assert_eq!(refused(&links(14, twice)).why, TooHeavy::Heavy);
    }
    let forked = json!({"allOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]});
    assert_eq!(refused(&forked).why, TooHeavy::Heavy);
}

#[test]
fn a_long_chain_for_one_value_is_refused() {
    assert!(weigh(&links(limits::SCHEMA_CHAIN_MAX - 1, |next| next)).is_ok());
    for count in [limits::SCHEMA_CHAIN_MAX, 1_000] {
        assert_eq!(refused(&links(count, |next| next)).why, TooHeavy::Long);
    }
    let dependent = links(1_000, |next| json!({"dependentSchemas": {"a": next}}));
    assert_eq!(refused(&dependent).why, TooHeavy::Long);
    // Nine steps at each of 32 levels: short for one value, long in all.
    let mut recursive = links(8, |next| next);
    recursive["$defs"]["d8"] = json!({"items": {"$ref": "#/$defs/d0"}});
    assert_eq!(refused(&recursive).why, TooHeavy::Long);
}

#[test]
fn what_others_left_out_is_asked_only_at_the_root() {
    assert!(weigh(&json!({"allOf": [{}], "unevaluatedProperties": false})).is_ok());
    assert!(weigh(&json!({"prefixItems": [{}], "unevaluatedItems": false})).is_ok());
    for schema in [
        json!({"unevaluatedProperties": {"type": "integer"}}),
        json!({"allOf": [{"unevaluatedProperties": false}]}),
        json!({"$defs": {"a": {"unevaluatedItems": true}}}),
        json!({"unevaluatedProperties": false, "properties": {"a": {"$ref": "#"}}}),
    ] {
        assert!(matches!(refused(&schema).why, TooHeavy::Unevaluated(_)), "{schema}");
    }
}

#[test]
fn references_out_of_the_definitions_are_refused_by_name() {
    for target in [
        "https://example.com/s.json",
        "file:///etc/passwd",
        "other.json#/a",
        "#/properties/b",
        "#/$defs/a/items",
        "#/$defs/",
        "#/$defs/a~1b",
        "#/$defs/%61",
        "",
    ] {
        let schema = json!({"properties": {"a": {"$ref": target}}, "$defs": {"a": {}}});
        let refusal = refused(&schema);
        assert_eq!(refusal.pointer, "/properties/a");
        assert_eq!(refusal.why, TooHeavy::Reference(target.to_owned()));
    }
    let dangling = json!({"$ref": "#/$defs/none"});
    assert_eq!(refused(&dangling).why, TooHeavy::Dangling("#/$defs/none".to_owned()));
}

#[test]
fn another_dialect_is_refused_and_so_is_a_nested_one() {
    let old = json!({"$schema": "http://json-schema.org/draft-07/schema#"});
    assert_eq!(refused(&old).why, TooHeavy::Dialect);
    assert_eq!(refused(&json!({"not": {"$schema": DIALECT}})).pointer, "/not/$schema");
    assert!(weigh(&json!({"$schema": DIALECT})).is_ok());
}

#[test]
fn an_estimate_of_memory_grows_with_expressions() {
    let plain = weigh(&json!({})).expect("a plan").resident_bytes(100);
    let eight: Vec<_> = (0..8).map(|n| json!({"pattern": format!("[ab]*{n}.*")})).collect();
    let heavy = weigh(&json!({"allOf": eight})).expect("a plan").resident_bytes(100);
    assert!(plain < 8 * 1024 && heavy > 1024 * 1024, "{plain} {heavy}");
}

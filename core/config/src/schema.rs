//! The JSON schema of the configuration file, from the types of [`written`](crate::written).
//!
//! It is what editors complete by, what `shape` checks by and what the reference page shows: one source for all.

use std::sync::LazyLock;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use crate::written::File;

/// Made once; the types do not change while the program runs.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| of::<File>("evenkeel.toml"));

/// The JSON schema of a document as TOML can be it: everything in place, and nothing is null.
#[must_use]
pub fn of<T: JsonSchema>(title: &str) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    without_null(&mut schema);
    if let Some(object) = schema.as_object_mut() {
        object.insert("title".to_owned(), title.into());
    }
    schema
}

/// The JSON schema (draft 2020-12) of the configuration file.
///
/// Beside the standard keywords, `x-form` names the form of a text as the reference page describes it.
#[must_use]
pub fn schema() -> &'static Value {
    &SCHEMA
}

/// Takes out the alternative `null`, which optional values have in JSON and which TOML does not know.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    object.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(values)) = object.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            if let Some(Value::Array(alternatives)) = object.get_mut("anyOf") {
                alternatives.retain(|alternative| alternative.get("type") != Some(&"null".into()));
                if let [Value::Object(only)] = alternatives.as_slice() {
                    let only = only.clone();
                    object.remove("anyOf");
                    merge(object, only);
                }
            }
            object.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Adds what `object` does not say already.
fn merge(object: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        object.entry(key).or_insert(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_null(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::String(text) => text == "null",
            Value::Array(items) => items.iter().any(has_null),
            Value::Object(object) => object.values().any(has_null),
            Value::Bool(_) | Value::Number(_) => false,
        }
    }

    #[test]
    fn the_schema_knows_no_null_and_refers_to_nothing() {
        assert!(!has_null(schema()));
        assert!(!schema().to_string().contains("$ref"));
    }

    #[test]
    fn every_table_refuses_unknown_keys_and_every_key_is_described() {
        fn look(path: &str, schema: &Value) {
            if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
                assert_eq!(schema.get("additionalProperties"), Some(&false.into()), "{path}");
                for (key, below) in properties {
                    assert!(below.get("description").is_some_and(Value::is_string), "{path}.{key}");
                    look(&format!("{path}.{key}"), below);
                }
            }
            for key in ["items", "additionalProperties"] {
                schema.get(key).into_iter().for_each(|below| look(path, below));
            }
            for below in schema.get("anyOf").and_then(Value::as_array).into_iter().flatten() {
                look(path, below);
            }
        }
        look("", schema());
    }
}

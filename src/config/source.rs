//! Where each value came from: the layers of the configuration, merged, with their origins kept so
//! that an error can name the file or the variable. Decides nothing about values.

use std::ffi::OsString;
use std::path::Path;

use figment::error::Kind;
use figment::providers::Serialized;
use figment::value::{Dict, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::{Config, ConfigError, Overrides, place, read_text};

const DEFAULTS: &str = include_str!("../../config/default.toml");
const PREFIX: &str = "BULKHEAD__";
/// Bytes of a configuration file at most.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Keys without a default, which `DEFAULTS` therefore cannot name.
const OPTIONAL: [&str; 21] = [
    "http.port",
    "http.public_url",
    "http.base_domain",
    "http.tls.cert",
    "http.tls.key",
    "ops.port",
    "ops.token_file",
    "data.dir",
    "keys.retiring",
    "keys.directory",
    "keys.exec",
    "keys.pkcs11.module",
    "keys.pkcs11.label",
    "keys.pkcs11.pin_file",
    "keys.pkcs11.key",
    "archive.endpoint",
    "archive.region",
    "archive.access_key_id_file",
    "archive.secret_access_key_file",
    "archive.service_account_file",
    "plans.trial.days",
];
/// How alike two keys must be before one is offered for the other.
const LIKENESS_MIN: f64 = 0.6;

/// One layer: what it says and how it is called in errors.
struct Layer {
    origin: String,
    dict: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }
    fn data(&self) -> Result<figment::value::Map<Profile, Dict>, figment::Error> {
        Ok([(Profile::Default, self.dict.clone())].into_iter().collect())
    }
}

/// All layers, weakest first.
pub(super) struct Sources(Vec<Layer>);

impl Sources {
    pub(super) fn gather(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let mut sources = Self(Vec::new());
        sources.add_toml(
            "the built-in defaults".to_owned(),
            Path::new("default.toml"),
            DEFAULTS,
        )?;
        let mut variables: Vec<_> = environment.into_iter().collect();
        variables.sort();
        let variable = |name: &str| {
            variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
        };
        if let Some(dir) = place::default_dir(variable("XDG_DATA_HOME"), variable("HOME")) {
            sources.add("the default", "data.dir", Value::from(dir.display().to_string()));
        }
        if let Some(path) = file {
            let text = read_text(path, FILE_BYTES_MAX)
                .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
            sources.add_toml(path.display().to_string(), path, &text)?;
        }
        for (name, text) in &variables {
            if let Some(key) = name.strip_prefix(PREFIX) {
                let value =
                    text.parse().unwrap_or_else(|never: std::convert::Infallible| match never {});
                let origin = format!("the environment variable {name}");
                sources.add(&origin, &key.to_ascii_lowercase().replace("__", "."), value);
            }
        }
        for (key, setting) in &overrides.settings {
            let value =
                Value::serialize(setting).map_err(|error| sources.wrong(key, error.to_string()))?;
            sources.add("the command", key, value);
        }
        if let Some(dir) = &overrides.data_dir {
            sources.add("--data", "data.dir", Value::from(dir.display().to_string()));
        }
        sources.refuse_secrets()?;
        Ok(sources)
    }

    fn add(&mut self, origin: &str, key: &str, value: Value) {
        let serialized = Serialized::default(key, value).data().unwrap_or_default();
        let dict = serialized.into_values().next().unwrap_or_default();
        self.0.push(Layer { origin: origin.to_owned(), dict });
    }

    fn add_toml(&mut self, origin: String, path: &Path, text: &str) -> Result<(), ConfigError> {
        let syntax = |message: String| ConfigError::Syntax { path: path.to_owned(), message };
        let table: toml::Table = toml::from_str(text).map_err(|error| syntax(error.to_string()))?;
        let value = Value::serialize(table).map_err(|error| syntax(error.to_string()))?;
        self.0.push(Layer { origin, dict: value.into_dict().unwrap_or_default() });
        Ok(())
    }

    /// The strongest layer that says something about `key`.
    fn origin(&self, key: &str) -> String {
        let says = |layer: &&Layer| Value::from(layer.dict.clone()).find(key).is_some();
        let found = self.0.iter().rev().find(says);
        found.map_or_else(|| "the configuration".to_owned(), |layer| layer.origin.clone())
    }

    /// A wrong value, with its origin.
    pub(super) fn wrong(&self, key: &str, reason: impl Into<String>) -> ConfigError {
        ConfigError::Wrong { key: key.to_owned(), origin: self.origin(key), reason: reason.into() }
    }

    pub(super) fn extract(&self) -> Result<Config, ConfigError> {
        let merged = self.0.iter().fold(Figment::new(), |figment, layer| figment.merge(layer));
        merged.extract().map_err(|error| self.explain(error))
    }

    fn explain(&self, error: figment::Error) -> ConfigError {
        let path = error.path.join(".");
        match &error.kind {
            Kind::UnknownField(field, expected) => {
                // Some deserialisers report the field as part of the path, some do not.
                let parent = match path.strip_suffix(field.as_str()) {
                    Some("") => "",
                    Some(rest) => rest.strip_suffix('.').unwrap_or(&path),
                    None => &path,
                };
                let key = join(parent, field);
                let nearest = nearest(&key, parent, expected);
                ConfigError::UnknownKey { origin: self.origin(&key), nearest, key }
            }
            Kind::MissingField(field) if path.is_empty() && field == "dir" => ConfigError::NoHome,
            Kind::MissingField(field) => match join(&path, field) {
                key if key == "data.dir" => ConfigError::NoHome,
                key => ConfigError::Missing { key },
            },
            Kind::InvalidType(actual, expected) | Kind::InvalidValue(actual, expected) => {
                self.wrong(&path, format!("found {actual}, expected {expected}"))
            }
            Kind::UnknownVariant(found, expected) => {
                self.wrong(&path, format!("{found:?} is none of {}", expected.join(", ")))
            }
            kind => self.wrong(&path, kind.to_string()),
        }
    }

    fn refuse_secrets(&self) -> Result<(), ConfigError> {
        for layer in &self.0 {
            let mut found = None;
            walk(&Value::from(layer.dict.clone()), "", &mut |key, text| {
                if found.is_none() && (is_secret_text(text) || is_secret_key(key)) {
                    found = Some(key.to_owned());
                }
            });
            if let Some(key) = found {
                return Err(ConfigError::Secret { key, origin: layer.origin.clone() });
            }
        }
        Ok(())
    }
}

fn join(parent: &str, field: &str) -> String {
    if parent.is_empty() { field.to_owned() } else { format!("{parent}.{field}") }
}

/// The known key most like `key`: a neighbour of the same table first, else any key there is.
fn nearest(key: &str, parent: &str, expected: &[&str]) -> Option<String> {
    let siblings = expected.iter().map(|name| join(parent, name));
    let everywhere = known_keys();
    let last = key.rsplit('.').next().unwrap_or(key);
    siblings
        .chain(everywhere)
        .map(|candidate| {
            let name = candidate.rsplit('.').next().unwrap_or(&candidate);
            let whole = strsim::normalized_damerau_levenshtein(key, &candidate);
            // A right name in the wrong table is a likely slip too.
            let likeness = whole.max(strsim::normalized_damerau_levenshtein(last, name) * 0.9);
            (likeness, candidate)
        })
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// Every dotted key there is.
pub(super) fn known_keys() -> Vec<String> {
    let mut keys: Vec<String> = OPTIONAL.iter().map(|&key| key.to_owned()).collect();
    if let Ok(table) = toml::from_str::<toml::Table>(DEFAULTS) {
        leaves(&toml::Value::Table(table), "", &mut keys);
    }
    keys
}

fn leaves(value: &toml::Value, at: &str, keys: &mut Vec<String>) {
    match value.as_table() {
        Some(table) => table.iter().for_each(|(name, value)| leaves(value, &join(at, name), keys)),
        None => keys.push(at.to_owned()),
    }
}

fn walk(value: &Value, at: &str, visit: &mut impl FnMut(&str, &str)) {
    match value {
        Value::String(_, text) => visit(at, text),
        Value::Dict(_, dict) => {
            dict.iter().for_each(|(name, value)| walk(value, &join(at, name), visit));
        }
        Value::Array(_, items) => items.iter().for_each(|item| walk(item, at, visit)),
        _ => {}
    }
}

/// Whether a text has the form of a private key, a webhook secret or a live API key.
fn is_secret_text(text: &str) -> bool {
    const MARKS: [&str; 7] =
        ["-----BEGIN", "whsec_", "sk_live_", "sk_test_", "rk_live_", "ghp_", "xoxb-"];
    MARKS.iter().any(|mark| text.contains(mark)) || text.starts_with("eyJ")
}

/// Whether a key names a secret itself, not the file it is in.
fn is_secret_key(key: &str) -> bool {
    const WORDS: [&str; 5] = ["secret", "password", "passphrase", "token", "private_key"];
    let name = key.rsplit('.').next().unwrap_or(key);
    // A file's path is no secret, and `per_token` is whose rate it is.
    let is_known = name.ends_with("_file") || name.starts_with("per_");
    WORDS.iter().any(|word| name.contains(word)) && !is_known
        || ["api_key", "signing_key", "kek"].contains(&name)
}

/// Hides user information in URLs and whatever a secret-looking key holds.
pub(super) fn mask(tree: &mut toml::Value) {
    mask_at(tree, "");
}

fn mask_at(value: &mut toml::Value, key: &str) {
    const MASK: &str = "********";
    match value {
        toml::Value::Table(table) => {
            table.iter_mut().for_each(|(name, value)| mask_at(value, name));
        }
        toml::Value::Array(items) => items.iter_mut().for_each(|item| mask_at(item, key)),
        toml::Value::String(text) if is_secret_key(key) || is_secret_text(text) => {
            *text = MASK.to_owned();
        }
        toml::Value::String(text) => {
            if let Some((scheme, rest)) = text.split_once("://")
                && let Some((user, host)) = rest.split_once('@')
                && !user.contains('/')
            {
                *text = format!("{scheme}://{MASK}@{host}");
            }
        }
        _ => {}
    }
}

/// A variable whose name and value are text; others cannot be ours.
pub(super) fn text_pair((name, value): (OsString, OsString)) -> Option<(String, String)> {
    Some((name.into_string().ok()?, value.into_string().ok()?))
}

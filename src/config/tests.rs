//! What the configuration accepts, refuses, and says.

use super::*;

fn load(file: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("bulkhead.toml");
    std::fs::write(&path, file).expect("the file is written");
    let home = ("HOME", "/home/ada");
    let pairs = environment.iter().chain([&home]);
    let pairs = pairs.map(|&(name, value)| (name.to_owned(), value.to_owned()));
    Config::load_from(Some(&path), pairs, &Overrides::default())
}

fn refusal(file: &str, environment: &[(&str, &str)]) -> String {
    load(file, environment).expect_err("it must be refused").to_string()
}

#[test]
fn the_defaults_alone_are_a_configuration() {
    let config = load("", &[]).expect("the defaults");
    assert_eq!(config.http.bind.to_string(), "127.0.0.1:8080");
    assert_eq!(config.ops.bind.to_string(), "127.0.0.1:9090");
    assert_eq!(config.data.dir, Path::new("/home/ada/.local/share/bulkhead"));
    assert_eq!(config.plans.get("trial").and_then(|plan| plan.days), Some(14));
    assert!(config.plans.get("enterprise").is_some_and(|plan| plan.forms.is_none()));
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let file = "[node]\nregion = \"file\"\norigin = \"file/node\"\n[http]\nbind = \"127.0.0.1:1\"";
    let config = load(file, &[("BULKHEAD__NODE__REGION", "variable")]).expect("configuration");
    assert_eq!(config.node.region, "variable");
    assert_eq!(config.node.origin, "file/node");
    assert_eq!(config.http.bind.port(), 1);
    assert!(config.signup.enabled);
}

#[test]
fn a_variable_can_set_the_port_alone_and_lists_and_rates() {
    let variables = [
        ("BULKHEAD__HTTP__PORT", "8081"),
        ("BULKHEAD__HTTP__TRUSTED_PROXIES", "[\"10.0.0.0/8\", \"::1\"]"),
        ("BULKHEAD__RATE__API__PER_TENANT", "20/1m"),
        ("BULKHEAD__RATE__SIGN_IN__PER_IP", "off"),
        ("BULKHEAD__PLANS__TINY__FORMS", "1"),
    ];
    let config = load("", &variables).expect("configuration");
    assert_eq!(config.http.bind.to_string(), "127.0.0.1:8081");
    assert_eq!(config.http.trusted_proxies.len(), 2);
    assert_eq!(config.plans.get("tiny").and_then(|plan| plan.forms), Some(1));
    assert_eq!(config.masked_json()["rate"]["api"]["per_tenant"], "20/1m");
}

#[test]
fn the_command_line_wins_over_the_environment() {
    let overrides = Overrides { data_dir: Some("/srv/bulkhead".into()), ..Overrides::default() };
    let overrides = overrides.set("http.bind", "127.0.0.1:7");
    let variables = [("BULKHEAD__DATA__DIR", "/elsewhere"), ("BULKHEAD__HTTP__BIND", "[::1]:8")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::load_from(None, variables, &overrides).expect("configuration");
    assert_eq!(config.data.dir, Path::new("/srv/bulkhead"));
    assert_eq!(config.http.bind.port(), 7);
}

#[test]
fn a_typo_names_the_nearest_key_and_its_file() {
    let text = refusal("[http]\nbnid = \"127.0.0.1:1\"", &[]);
    assert!(text.contains("`http.bnid`") && text.contains("bulkhead.toml"), "{text}");
    assert!(text.contains("did you mean `http.bind`?"), "{text}");
    let text = refusal("[htpp]\nbind = \"127.0.0.1:1\"", &[]);
    assert!(text.contains("did you mean `http`?"), "{text}");
    let text = refusal("[plans.trial]\nform = 3", &[]);
    assert!(text.contains("did you mean `plans.trial.forms`?"), "{text}");
}

#[test]
fn a_typo_in_a_variable_names_the_variable() {
    let text = refusal("", &[("BULKHEAD__HTTP__BASE_DOMIAN", "example.com")]);
    assert!(text.contains("BULKHEAD__HTTP__BASE_DOMIAN"), "{text}");
    assert!(text.contains("did you mean `http.base_domain`?"), "{text}");
}

#[test]
fn a_wrong_rate_class_or_scope_names_the_key() {
    let text = refusal("[rate.sign_inn]\nper_ip = \"1/1m\"", &[]);
    assert!(text.contains("sign_in"), "{text}");
    let text = refusal("[rate.api]\nper_ip = \"many\"", &[]);
    assert!(text.contains("rate.api.per_ip") && text.contains("many"), "{text}");
}

#[test]
fn wrong_values_say_what_would_be_right() {
    let cases = [
        ("[http]\nbind = \"8080\"", "http.bind", "127.0.0.1:8080"),
        ("[http]\nbind = \"127.0.0.1:99999\"", "http.bind", "65535"),
        ("[http]\nport = 70000", "http.port", "u16"),
        ("[http]\nworkers = \"two\"", "http.workers", "expected"),
        ("[http]\nbase_domain = \"Example.com\"", "http.base_domain", "lower-case"),
        ("[http]\npublic_url = \"example.com\"", "http.public_url", "https URL"),
        ("[http]\ntrusted_proxies = [\"10.0.0.1/8\"]", "http.trusted_proxies", "10.0.0.0/8"),
        ("[http.tls]\ncert = \"/none\"\nkey = \"/none\"", "http.tls.cert", "cannot be read"),
        ("[ops]\nbind = \"0.0.0.0:9090\"", "ops.bind", "ops.token_file"),
        ("[ops]\nbind = \"127.0.0.1:8080\"", "ops.bind", "http.bind"),
        ("[signup]\nplan = \"gold\"", "signup.plan", "enterprise, free, pro, trial"),
        ("[log]\nformat = \"xml\"", "log.format", "json"),
        ("[log]\nlevel = \"loud=loud\"", "log.level", ""),
        ("[limits]\nbody_bytes_max = 1", "limits.body_bytes_max", "64 MiB"),
        ("[node]\nsecurity_contact = \"ada\"", "node.security_contact", "mailto:"),
        ("[keys]\nsource = \"vault\"", "keys.source", "directory, exec, pkcs11"),
        ("[keys]\nsource = \"directory\"", "keys.source", "needs keys.directory"),
        ("[keys]\nretiring = \"exec\"", "keys.retiring", "needs keys.exec"),
        ("[keys]\nsource = \"directory\"\ndirectory = \"kek\"", "keys.directory", "absolute"),
        ("[keys]\nsource = \"exec\"\nexec = []", "keys.exec", "no program"),
        ("[keys.pkcs11]\nmodule = \"/m.so\"", "keys.pkcs11.label", "missing"),
    ];
    for (file, key, hint) in cases {
        let text = refusal(file, &[]);
        assert!(text.contains(key) && text.contains(hint), "{file}: {text}");
    }
}

#[test]
fn secrets_are_refused_in_files_and_variables() {
    let text = refusal("[ops]\ntoken = \"abc\"", &[]);
    assert!(text.contains("`ops.token`") && text.contains("file of mode 0600"), "{text}");
    assert!(!text.contains("abc"), "{text}");
    let text = refusal("", &[("BULKHEAD__HTTP__TLS__KEY", "-----BEGIN PRIVATE KEY-----")]);
    assert!(text.contains("BULKHEAD__HTTP__TLS__KEY"), "{text}");
}

#[test]
fn a_temporary_data_directory_is_refused_unless_allowed() {
    let text = refusal("[data]\ndir = \"/tmp/bulkhead\"", &[]);
    assert!(text.contains("/tmp") && text.contains("data.allow_temporary"), "{text}");
    let allowed = load("[data]\ndir = \"/tmp/bulkhead\"\nallow_temporary = true", &[]);
    assert!(allowed.is_ok());
}

#[test]
fn without_a_home_the_data_directory_must_be_named() {
    let error = Config::load_from(None, [], &Overrides::default()).expect_err("no home");
    assert!(matches!(error, ConfigError::NoHome), "{error}");
}

#[test]
fn a_file_that_is_absent_or_not_toml_is_named() {
    let absent = Config::load_from(Some(Path::new("/absent.toml")), [], &Overrides::default());
    assert!(absent.expect_err("absent").to_string().contains("/absent.toml"));
    assert!(refusal("[http\n", &[]).contains("is not TOML"));
}

#[test]
fn what_is_shown_hides_user_information() {
    let mut config = load("", &[]).expect("configuration");
    config.http.public_url = Some("https://ada:pass@example.com/x".to_owned());
    let text = config.masked_toml();
    assert!(!text.contains("pass@") && text.contains("https://********@example.com/x"), "{text}");
}

#[test]
fn the_example_file_names_every_key_and_no_other() {
    let example = include_str!("../../config/example.toml");
    let uncommented: String = example
        .lines()
        .filter_map(|line| line.strip_prefix("# "))
        .filter(|line| line.starts_with('[') || line.split(" = ").next().is_some_and(is_key))
        .map(|line| format!("{line}\n"))
        .collect();
    let table: toml::Table = toml::from_str(&uncommented).expect("the example is TOML");
    for key in source::known_keys() {
        let plan_of_default = key.starts_with("plans.") && key != "plans.trial.days";
        let found = key
            .split('.')
            .try_fold(&toml::Value::Table(table.clone()).clone(), |at, part| at.get(part))
            .is_some();
        assert!(found || plan_of_default, "{key} is not in example.toml");
    }
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

#[test]
fn a_file_is_read_no_further_than_it_may_reach() {
    let error = read_text(Path::new("/dev/zero"), 100).expect_err("endless");
    assert_eq!(error.kind(), std::io::ErrorKind::FileTooLarge);
    let endless = Config::load_from(Some(Path::new("/dev/zero")), [], &Overrides::default());
    assert!(matches!(endless, Err(ConfigError::Read { .. })), "{endless:?}");
}

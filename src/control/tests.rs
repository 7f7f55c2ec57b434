//! Commands survive the way over the operators' listener, and errors keep their meaning.

use super::*;

fn round_trip<T: Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    serde_json::from_str(&serde_json::to_string(value).expect("written")).expect("read")
}

fn bundle_key() -> BundleKey {
    format!("bundle-key-1:{}", "5a".repeat(32)).parse().expect("a key")
}

#[test]
fn a_bundle_key_does_not_show_in_debug_output() {
    let (out, tenant) = ("/srv/acme.bundle".into(), "acme".to_owned());
    let command = ControlCommand::ExportTenant { tenant, out, key: bundle_key() };
    assert!(!format!("{command:?}").contains("5a5a"));
}

#[test]
fn every_command_reads_back_as_it_was_written() {
    let person =
        || Person { email: "ada@acme.example".to_owned(), password: "secret words".to_owned() };
    let tenant = || "acme".to_owned();
    let commands = [
        ControlCommand::CreateTenant {
            slug: tenant(),
            name: "Acme".to_owned(),
            plan: Some("pro".to_owned()),
            owner: Some(person()),
        },
        ControlCommand::ListTenants,
        ControlCommand::ShowTenant { tenant: tenant() },
        ControlCommand::SuspendTenant { tenant: tenant() },
        ControlCommand::ResumeTenant { tenant: tenant() },
        ControlCommand::CreateUser { tenant: tenant(), person: person(), role: Role::Viewer },
        ControlCommand::CreatePlatformAdmin { person: person() },
        ControlCommand::RemovePlatformAdmin { email: "root@acme.example".to_owned() },
        ControlCommand::VerifyAudit { tenant: None },
        ControlCommand::ExportTenant {
            tenant: tenant(),
            out: "/srv/acme.bundle".into(),
            key: bundle_key(),
        },
        ControlCommand::ImportTenant(portable::ImportOrder {
            file: "/srv/acme.bundle".into(),
            key: bundle_key(),
            trust: None,
            slug: Some(tenant()),
            plan: None,
            region_change: true,
        }),
        ControlCommand::KeysStatus,
        ControlCommand::RotateKek { resume: true },
    ];
    for command in commands {
        assert_eq!(round_trip(&command), command);
    }
}

#[test]
fn an_outcome_reads_back_as_it_was_written() {
    let failed: Result<ControlReply, ControlError> =
        Err(ControlError::NoTenant { tenant: "acme".to_owned() });
    assert_eq!(round_trip(&failed), failed);
    let done: Result<ControlReply, ControlError> = Ok(ControlReply::Tenants(Vec::new()));
    assert_eq!(round_trip(&done), done);
}

#[test]
fn a_password_does_not_show_in_debug_output() {
    let person =
        Person { email: "ada@acme.example".to_owned(), password: "secret words".to_owned() };
    let command = ControlCommand::CreatePlatformAdmin { person };
    assert!(!format!("{command:?}").contains("secret words"));
}

#[test]
fn wrong_input_is_usage_and_a_taken_name_is_not() {
    let invalid = ControlError::from(TenantError::invalid("/slug", "is reserved"));
    assert!(invalid.is_usage() && invalid.to_string() == "slug is reserved", "{invalid}");
    assert!(!ControlError::from(TenantError::Conflict(Conflict::SlugTaken)).is_usage());
}

#[test]
fn an_unknown_field_of_a_command_is_refused() {
    let text = r#"{"command":"show-tenant","tenant":"acme","force":true}"#;
    assert!(serde_json::from_str::<ControlCommand>(text).is_err());
}

//! The command line finds the node that was meant, and says what is wrong with a place that is not.

use std::fs;
use std::path::Path;

use crate::kit::{Launcher, Tenant};

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Copies a directory while a node runs on it, as `cp -a` does.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a directory");
    fs::set_permissions(to, from.metadata().expect("a directory").permissions()).expect("a mode");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy(&entry.path(), &target),
            false => {
                fs::copy(entry.path(), &target).expect("a file");
            }
        }
    }
}

#[test]
fn a_command_for_a_copy_of_a_running_nodes_directory_does_not_reach_that_node() {
    let home = tempfile::tempdir().expect("a directory");
    let launcher = Launcher::on(&home.path().join("data"));
    let node = launcher.serve();
    let tenant = Tenant::sign_up(&node.client, "acme");
    copy(&home.path().join("data"), &home.path().join("copy"));
    assert!(home.path().join("copy/operator.token").exists(), "the copy has the token");

    let copied = Launcher::on(&home.path().join("copy"));
    let outcome = copied.run(&["tenant", "suspend", "acme"]).expect(0);
    assert!(outcome.stderr.contains("is a copy of the directory of a running node"), "{outcome:?}");
    tenant.owner.get("/v1/tenant", 200);
    let status = |launcher: &Launcher| {
        let shown = launcher.run(&["tenant", "show", "acme", "--json"]).expect(0).json();
        shown["status"].as_str().map(str::to_owned)
    };
    assert_eq!(status(&launcher).as_deref(), Some("active"));
    assert_eq!(status(&copied).as_deref(), Some("suspended"));
}

#[test]
fn a_node_does_not_go_on_under_another_name_than_it_signed_with() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    let named = |origin: &str| Launcher::on(&data).set("node.origin", origin);
    let mut node = named("one.example/n").serve();
    Tenant::sign_up(&node.client, "acme");
    assert!(node.terminate().success());
    let why = named("two.example/n").try_serve().err().expect("it does not start");
    assert!(why.contains("set node.origin = \"one.example/n\""), "{why}");
    drop(named("one.example/n").serve());
}

#[test]
fn a_file_that_is_not_there_is_named_as_missing() {
    let home = tempfile::tempdir().expect("a directory");
    let launcher = Launcher::on(&home.path().join("data"));
    let nofile = home.path().join("nofile");
    let said = launcher.run(&["tenant", "list", "--config", text(&nofile)]).expect(2).stderr;
    assert!(said.contains("nofile") && said.contains("No such file"), "{said}");
    let receipt = home.path().join("receipt.json");
    let words = ["tenant", "verify-receipt", text(&receipt), "--trust", text(&nofile)];
    let said = launcher.run(&words).expect(2).stderr;
    assert!(said.contains("there is no such file"), "{said}");
}

#[test]
fn an_export_names_the_key_file_that_is_in_its_way() {
    let home = tempfile::tempdir().expect("a directory");
    let launcher = Launcher::on(&home.path().join("data"));
    launcher.run(&["tenant", "create", "acme"]).expect(0);
    let bundle = home.path().join("acme.bundle");
    let words = ["tenant", "export", "acme", "--out", text(&bundle)];
    launcher.run(&words).expect(0);
    let said = launcher.run(&words).expect(1).stderr;
    assert!(said.contains("acme.bundle.key is there already"), "{said}");
}

#[test]
fn a_tenant_that_is_to_be_erased_says_so_and_an_erased_one_is_shown_by_its_short_name() {
    let home = tempfile::tempdir().expect("a directory");
    let launcher = Launcher::on(&home.path().join("data"));
    launcher.run(&["tenant", "create", "acme"]).expect(0);
    launcher.run(&["tenant", "erase", "acme", "--reason", "over"]).expect(0);
    for words in [
        &["tenant", "resume", "acme"][..],
        &["tenant", "suspend", "acme"],
        &["tenant", "clone", "acme", "again"],
    ] {
        let said = launcher.run(words).expect(1).stderr;
        assert!(said.contains("is to be erased") && said.contains("--cancel"), "{words:?}: {said}");
    }
    launcher.run(&["tenant", "erase", "acme", "--force", "--reason", "over"]).expect(0);
    let shown = launcher.run(&["tenant", "show", "acme", "--json"]).expect(0).json();
    assert_eq!(shown["status"], "erased");
    let said = launcher.run(&["tenant", "resume", "acme"]).expect(1).stderr;
    assert!(said.contains("there is no tenant"), "{said}");
}

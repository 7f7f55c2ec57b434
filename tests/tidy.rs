//! The rules of the house, as far as neither the compiler nor a lint can hold them. Each failure says
//! what to do instead.

use std::fs;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(under: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(under)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                if !path.ends_with("node_modules") && !path.ends_with(".venv") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a readable source");
                found.push((path.strip_prefix(root()).expect("below the root").to_owned(), text));
            }
        }
    }
    found.sort();
    found
}

fn all_sources() -> Vec<(PathBuf, String)> {
    ["src", "actors", "storage", "tests", "benches"].into_iter().flat_map(sources).collect()
}

/// The text without its tests at the foot, comments and strings left in.
fn shipped(text: &str) -> &str {
    text.split("\n#[cfg(test)]").next().unwrap_or(text)
}

fn complain(complaints: &[String], instead: &str) {
    assert!(complaints.is_empty(), "{instead}\n{}", complaints.join("\n"));
}

#[test]
fn no_file_outgrows_its_room() {
    let long: Vec<_> = all_sources()
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(path, lines)| format!("{}: {lines} lines", path.display()))
        .collect();
    complain(&long, "over 500 lines: move part of it to `name/part.rs` beside `name.rs`");
}

#[test]
fn no_function_is_longer_than_a_screen() {
    let mut long = Vec::new();
    for (path, text) in all_sources() {
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let bare = line.trim_start();
            let indent = line.len() - bare.len();
            let is_function =
                ["fn ", "pub fn ", "pub(crate) fn ", "async fn ", "pub async fn ", "const fn "]
                    .iter()
                    .any(|start| bare.starts_with(start));
            if !is_function || line.ends_with(';') || line.ends_with('}') {
                continue;
            }
            let end = format!("{}}}", " ".repeat(indent));
            let length = lines[at..].iter().position(|line| *line == end).unwrap_or(0);
            if length > FUNCTION_LINES_MAX {
                long.push(format!("{}:{}: {length} lines", path.display(), at + 1));
            }
        }
    }
    complain(&long, "over 70 lines: give a part of it a name of its own");
}

#[test]
fn every_module_says_its_duty() {
    let silent: Vec<_> = all_sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    complain(&silent, "begin the file with `//!`: what it is for, and what it refuses to do");
}

#[test]
fn layers_do_not_look_up() {
    let banned: &[(&str, &[&str])] = &[
        ("actors/src", &["actix_web", "sled::", "std::fs"]),
        ("storage/src", &["actix", "serde_json", "std::env"]),
        ("src", &["sled::", "storage::view", "storage::txn", "storage::shard"]),
    ];
    let mut wrong = Vec::new();
    for (layer, words) in banned {
        for (path, text) in sources(layer) {
            for word in words.iter().filter(|word| shipped(&text).contains(**word)) {
                wrong.push(format!("{}: {word}", path.display()));
            }
        }
    }
    complain(
        &wrong,
        "a layer uses what is above it or two steps below: go through the layer between",
    );
}

#[test]
fn sled_is_named_in_the_view_only() {
    let wrong: Vec<_> = sources("storage/src")
        .into_iter()
        .filter(|(path, text)| text.contains("sled::") && !path.starts_with("storage/src/view"))
        .filter(|(path, _)| path != Path::new("storage/src/view.rs"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    complain(&wrong, "use the `View` trait instead of sled");
}

#[test]
fn only_four_folders_are_pure() {
    let pure = ["src/http", "src/cli", "src/console", "tests/it/kit"];
    let wrong: Vec<_> = all_sources()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.ends_with("mod.rs"))
        .filter(|path| !pure.iter().any(|folder| path.parent() == Some(Path::new(folder))))
        .map(|path| path.display().to_string())
        .collect();
    complain(&wrong, "name the file `x.rs` beside the folder `x/`, not `x/mod.rs`");
}

#[test]
fn routes_are_mounted_from_the_table_only() {
    let wrong: Vec<_> = sources("src/http")
        .into_iter()
        .filter(|(path, _)| !path.ends_with("routes.rs") && !path.ends_with("mod.rs"))
        .filter(|(_, text)| {
            shipped(text).contains("web::resource(") || shipped(text).contains("web::scope(")
        })
        .map(|(path, _)| path.display().to_string())
        .collect();
    complain(&wrong, "add a row to the resource's ROUTES instead of mounting by hand");
}

#[test]
fn the_way_around_a_permit_is_counted() {
    // May only shrink. Each use names its reason.
    const INTERNAL_MAX: usize = 5;
    let used: usize = ["src", "actors/src"]
        .into_iter()
        .flat_map(sources)
        .map(|(_, text)| {
            let is_use = |line: &&str| line.contains("Permit") && line.contains("::internal(");
            shipped(&text).lines().filter(is_use).count()
        })
        .sum();
    assert!(used <= INTERNAL_MAX, "{used} uses of Permit::internal; let a caller bring its permit");
}

#[test]
fn the_release_profile_unwinds() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("a manifest");
    let release = manifest.split("[profile.release]").nth(1).expect("a release profile");
    assert!(release.contains("panic = \"unwind\""), "supervision catches panics; do not abort");
}

#[test]
fn every_key_tag_is_documented() {
    let formats = fs::read_to_string(root().join("docs/formats.md")).expect("docs/formats.md");
    let missing: Vec<_> = storage::keys::Key::TAGS
        .iter()
        .filter(|(tag, name)| !formats.contains(&format!("| `{}` | {name} |", char::from(*tag))))
        .map(|(tag, name)| format!("| `{}` | {name} |", char::from(*tag)))
        .collect();
    complain(&missing, "add a row to the table of keys in docs/formats.md");
}

#[test]
fn every_problem_is_documented() {
    let page = fs::read_to_string(root().join("docs/problems.md")).expect("docs/problems.md");
    let missing: Vec<_> = bundle_of_problem_codes()
        .into_iter()
        .filter(|code| !page.contains(&format!("`{code}`")))
        .collect();
    complain(&missing, "describe the problem in docs/problems.md");
}

fn bundle_of_problem_codes() -> Vec<String> {
    bulkhead::http::problem::KINDS.iter().map(|kind| kind.code.to_owned()).collect()
}

#[test]
fn no_leftovers() {
    let marks = [
        concat!("to", "do!("),
        concat!("unimplem", "ented!("),
        concat!("FIX", "ME"),
        concat!("db", "g!("),
    ];
    let mut found = Vec::new();
    for (path, text) in all_sources() {
        for mark in marks.iter().filter(|mark| text.contains(**mark)) {
            found.push(format!("{}: {mark}", path.display()));
        }
    }
    complain(&found, "finish it or delete it");
}

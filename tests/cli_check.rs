//! `sidestep check` as users see it: text, JSON and exit code.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

const CATALOGUE: &str = r#"{ "changeNumber": 1, "cloud": "Public", "values": [
  { "name": "Storage", "id": "Storage", "properties": { "changeNumber": 1, "region": "", "regionId": 0,
    "platform": "Azure", "systemService": "AzureStorage", "addressPrefixes": ["20.60.0.0/16"],
    "networkFeatures": ["API", "NSG", "UDR", "FW", "VSE"] } } ] }"#;

const GOOD: &str = r#"location = "westeurope"
tags = "tags.json"

[[virtual_network]]
name = "n"
address_space = ["10.0.0.0/16"]

  [[virtual_network.subnet]]
  name = "s"
  address_prefixes = ["10.0.1.0/24"]
  route_table = "t"
  service_endpoints = [{ service = "Microsoft.Storage" }]

[[route_table]]
name = "t"
routes = [{ name = "r", address_prefix = "Storage", next_hop_type = "Internet" }]
"#;

/// Runs the command in a folder.
fn sidestep(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidestep"));
    command.current_dir(folder).env_remove("SIDESTEP_LOG").args(arguments).output().unwrap()
}

/// A folder with a catalogue and a document.
fn folder(document: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tags.json"), CATALOGUE).unwrap();
    fs::write(folder.path().join("n.toml"), document).unwrap();
    folder
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn good_document_as_text() {
    let folder = folder(GOOD);
    let output = sidestep(folder.path(), &["check", "-c", "n.toml"]);
    assert_eq!(
        text(&output.stdout),
        "n.toml: ok: 1 virtual network, 1 subnet, 1 service endpoint, 1 route table, 1 route, 0 NICs, 0 services; \
         1 service tag in the catalogue\n"
    );
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn good_document_as_json() {
    let folder = folder(GOOD);
    let output = sidestep(folder.path(), &["check", "-c", "n.toml", "--json"]);
    let expected = json!({
        "path": "n.toml", "ok": true, "virtual_networks": 1, "subnets": 1, "service_endpoints": 1,
        "route_tables": 1, "routes": 1, "nics": 0, "services": 0, "service_tags": 1,
    });
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), expected);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn document_without_catalogue() {
    let folder = folder("location = \"westeurope\"\n");
    let output = sidestep(folder.path(), &["check", "-c", "n.toml"]);
    assert_eq!(
        text(&output.stdout),
        "n.toml: ok: 0 virtual networks, 0 subnets, 0 service endpoints, 0 route tables, 0 routes, 0 NICs, 0 services\n"
    );
    let output = sidestep(folder.path(), &["check", "-c", "n.toml", "--json"]);
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["service_tags"], Value::Null);
}

const BAD: &str = "location = \"westeurope\"\nworkers = 0\ncolour = \"red\"\n[gateway]\nvirtual_network = \"hub\"\n";

#[test]
fn mistakes_as_text() {
    let folder = folder(BAD);
    let output = sidestep(folder.path(), &["check", "-c", "n.toml"]);
    assert_eq!(
        text(&output.stderr),
        "n.toml:2:11: error: `workers` is out of range: 0\n  \
         help: write a number from 1 to 64\n\
         n.toml:3:1: error: unknown key `colour` in the document\n\
         n.toml:5:19: error: unknown virtual network `hub`\n\
         n.toml: 3 mistakes\n"
    );
    assert_eq!(text(&output.stdout), "");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn mistakes_as_json() {
    let folder = folder(BAD);
    let output = sidestep(folder.path(), &["check", "--config", "n.toml", "--json"]);
    let expected = json!({ "path": "n.toml", "ok": false, "mistakes": [
        { "line": 2, "column": 11, "message": "`workers` is out of range: 0", "help": "write a number from 1 to 64" },
        { "line": 3, "column": 1, "message": "unknown key `colour` in the document", "help": null },
        { "line": 5, "column": 19, "message": "unknown virtual network `hub`", "help": null },
    ] });
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), expected);
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn broken_catalogue_is_a_mistake_at_its_line_beside_the_others() {
    let folder = folder(&GOOD.replace("10.0.1.0/24", "10.0.1.1/24"));
    fs::write(folder.path().join("tags.json"), CATALOGUE.replace("20.60.0.0/16", "20.60.0.1/16")).unwrap();
    let output = sidestep(folder.path(), &["check", "-c", "n.toml", "--json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mistakes = answer["mistakes"].as_array().unwrap();
    assert_eq!(mistakes.len(), 2, "{answer}");
    assert_eq!((&mistakes[0]["line"], &mistakes[0]["column"]), (&json!(2), &json!(8)));
    let message = mistakes[0]["message"].as_str().unwrap();
    assert!(message.starts_with("the catalogue cannot be used: tags.json:"), "{message}");
    assert!(message.contains("20.60.0.1/16"), "{message}");
    assert_eq!(mistakes[1]["line"], 10);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn missing_catalogue_is_a_mistake_at_its_line() {
    let folder = folder(&GOOD.replace("tags.json", "weekly.json"));
    let output = sidestep(folder.path(), &["check", "-c", "n.toml"]);
    let shown = text(&output.stderr);
    assert!(shown.starts_with("n.toml:2:8: error: the catalogue cannot be used: weekly.json"), "{shown}");
    assert!(shown.ends_with("n.toml: 1 mistake\n"), "{shown}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn another_catalogue_takes_the_place_of_the_documents() {
    let folder = folder(&GOOD.replace("tags.json", "weekly.json"));
    let output = sidestep(folder.path(), &["check", "-c", "n.toml", "--tags", "tags.json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    fs::write(folder.path().join("other.json"), CATALOGUE.replace("Storage", "Sql")).unwrap();
    let output = sidestep(folder.path(), &["check", "-c", "n.toml", "--tags", "other.json"]);
    let shown = text(&output.stderr);
    assert!(shown.contains("n.toml:12:36: error: the catalogue has no service tag `Storage`"), "{shown}");
    assert!(shown.contains("n.toml:16:42: error: unknown service tag `Storage`"), "{shown}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn catalogue_is_looked_for_beside_the_document() {
    let folder = folder(GOOD);
    let document = folder.path().join("n.toml");
    let output = sidestep(Path::new("/"), &["check", "-c", document.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn document_that_cannot_be_read() {
    let folder = folder(GOOD);
    let output = sidestep(folder.path(), &["check", "-c", "nowhere.toml"]);
    assert_eq!(
        text(&output.stderr),
        "error: nowhere.toml: cannot be read\n  caused by: No such file or directory (os error 2)\n"
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn help_says_what_the_command_does() {
    let output = sidestep(Path::new("/"), &["check", "--help"]);
    let shown = text(&output.stdout);
    for part in ["Check a network document", "--config <FILE>", "--tags <FILE>", "--json"] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
}

#[test]
fn shipped_documents_pass() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documents = shipped();
    assert!(documents.len() >= 8, "{documents:?}");
    for document in &documents {
        let output = sidestep(package, &["check", "-c", document]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(text(&output.stdout).starts_with(&format!("{document}: ok: ")), "{}", text(&output.stdout));
        assert!(text(&output.stdout).ends_with("; 12 service tags in the catalogue\n"), "{}", text(&output.stdout));
    }
}

/// The documents of `config`.
fn shipped() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut documents: Vec<_> =
        names.filter(|name| name.ends_with(".toml")).map(|name| format!("config/{name}")).collect();
    documents.sort();
    documents
}

#[test]
fn shipped_documents_pass_with_azures_file() {
    let Some(weekly) = weekly_file() else { return };
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    for document in ["config/demo.toml", "config/example.toml"] {
        let output = sidestep(package, &["check", "-c", document, "--tags", weekly.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(text(&output.stdout).ends_with("; 3041 service tags in the catalogue\n"), "{}", text(&output.stdout));
    }
}

/// Azure's weekly file, which is not part of the project. Its absence is said aloud, and in CI it is a failure.
fn weekly_file() -> Option<PathBuf> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/ServiceTags_Public_20251117.json");
    if file.exists() {
        return Some(file);
    }
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{} is missing", file.display());
    eprintln!("skipped: {} is missing", file.display());
    None
}

//! `sidestep identity` as users see it: text, JSON and exit code.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

/// The two samples that were published.
const SAMPLES: [&str; 2] = ["fde4:8dba:1200:98db:6a12:300:a02:126", "fde4:8dba:1f00:8ef5:6c1f:100:c0a8:fa06"];

const CATALOGUE: &str = r#"{ "changeNumber": 1, "cloud": "Public", "values": [
  { "name": "Storage", "id": "Storage", "properties": { "changeNumber": 1, "region": "", "regionId": 0,
    "platform": "Azure", "systemService": "AzureStorage", "addressPrefixes": ["20.60.0.0/16"] } },
  { "name": "Storage.WestEurope", "id": "Storage.WestEurope", "properties": { "changeNumber": 1,
    "region": "westeurope", "regionId": 18, "platform": "Azure", "systemService": "AzureStorage",
    "addressPrefixes": ["20.60.0.0/24"] } },
  { "name": "Storage.CentralUS", "id": "Storage.CentralUS", "properties": { "changeNumber": 1,
    "region": "centralus", "regionId": 31, "platform": "Azure", "systemService": "AzureStorage",
    "addressPrefixes": ["20.60.1.0/24"] } } ] }"#;

/// The network of the first sample.
const DOCUMENT: &str = r#"location = "West Europe"
tags = "tags.json"

[[virtual_network]]
name = "spoke"
address_space = ["10.2.0.0/16"]
traffic_tag = 0x6adb98

  [[virtual_network.subnet]]
  name = "workload"
  address_prefixes = ["10.2.1.0/24"]
  traffic_tag = 3
"#;

/// Runs the command in a folder with a catalogue and a document.
fn decode(document: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tags.json"), CATALOGUE).unwrap();
    fs::write(folder.path().join("n.toml"), document).unwrap();
    sidestep(folder.path(), &[&["identity", "decode"], arguments].concat())
}

fn sidestep(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidestep"));
    command.current_dir(folder).env_remove("SIDESTEP_LOG").args(arguments).output().unwrap()
}

fn answered(output: &Output) -> &str {
    assert_eq!(std::str::from_utf8(&output.stderr).unwrap(), "");
    assert_eq!(output.status.code(), Some(0));
    std::str::from_utf8(&output.stdout).unwrap()
}

#[test]
fn published_samples_as_text() {
    let output = decode(DOCUMENT, &[SAMPLES[0], "--tags", "tags.json"]);
    assert_eq!(
        answered(&output),
        "fde4:8dba:1200:98db:6a12:300:a02:126\n\
         \x20 prefix       fde4:8dba::/32\n\
         \x20 region       18 (westeurope)\n\
         \x20 network tag  0x126adb98\n\
         \x20 subnet tag   3\n\
         \x20 address      10.2.1.38\n"
    );
    let output = decode(DOCUMENT, &[SAMPLES[1]]);
    assert_eq!(
        answered(&output),
        "fde4:8dba:1f00:8ef5:6c1f:100:c0a8:fa06\n\
         \x20 prefix       fde4:8dba::/32\n\
         \x20 region       31 (unknown)\n\
         \x20 network tag  0x1f6cf58e\n\
         \x20 subnet tag   1\n\
         \x20 address      192.168.250.6\n"
    );
}

#[test]
fn published_samples_as_json() {
    let json = |arguments: &[&str]| -> Value { serde_json::from_str(answered(&decode(DOCUMENT, arguments))).unwrap() };
    assert_eq!(
        json(&[SAMPLES[1], "--tags", "tags.json", "--json"]),
        json!({
            "address": SAMPLES[1], "prefix": "fde4:8dba::/32", "regionId": 31, "region": "centralus",
            "networkTag": 0x1f6c_f58e, "subnetTag": 1, "privateAddress": "192.168.250.6",
        })
    );
    let answer = json(&[SAMPLES[0], "-c", "n.toml", "--json"]);
    assert_eq!(answer["region"], "westeurope");
    assert_eq!(
        answer["owner"],
        json!({
            "document": "n.toml", "identityPrefix": "fde4:8dba::/32",
            "virtualNetwork": "spoke", "subnet": "workload",
        })
    );
    assert_eq!(json(&[SAMPLES[1], "-c", "n.toml", "--json"])["owner"]["subnet"], Value::Null);
}

#[test]
fn a_document_says_whose_the_address_is() {
    let last_line = |document: &str, address: &str| {
        answered(&decode(document, &[address, "-c", "n.toml"])).lines().last().unwrap().to_owned()
    };
    assert_eq!(last_line(DOCUMENT, SAMPLES[0]), "  subnet       spoke/workload");
    assert_eq!(last_line(DOCUMENT, SAMPLES[1]), "  subnet       none of n.toml");
    let other_subnet = "fde4:8dba:1200:98db:6a12:400:a02:126";
    assert_eq!(last_line(DOCUMENT, other_subnet), "  subnet       none of virtual network spoke in n.toml");
    let other_region = "fde4:8dba:1201:98db:6a12:300:a02:126";
    assert_eq!(last_line(DOCUMENT, other_region), "  subnet       none of n.toml");
    let other_prefix = format!("{DOCUMENT}\n[identity]\nprefix = \"fd12:3456::/32\"\n");
    assert_eq!(last_line(&other_prefix, SAMPLES[0]), "  subnet       none of n.toml, whose prefix is fd12:3456::/32");
}

#[test]
fn what_cannot_be_read_is_an_error() {
    let output = decode(DOCUMENT, &["10.2.1.38"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(std::str::from_utf8(&output.stderr).unwrap().contains("invalid IPv6 address"));
    let output = decode("location = 1\n", &[SAMPLES[0], "-c", "n.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(std::str::from_utf8(&output.stderr).unwrap().contains("n.toml:1:12: error: expected a string"));
}

//! `sidestep tags` as people and scripts meet it: text, JSON, errors and exit codes of every question.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

fn sidestep(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidestep"));
    command.args(arguments).env_remove("SIDESTEP_LOG");
    command
}

fn run(arguments: &[&str]) -> Output {
    sidestep(arguments).output().unwrap()
}

/// The answer of a command that has to succeed and to say nothing else.
fn answer(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
    assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn json_answer(arguments: &[&str]) -> Value {
    serde_json::from_str(&answer(arguments)).unwrap()
}

/// The error of a command that has to fail with an exit code and to answer nothing.
fn error(arguments: &[&str], code: i32) -> String {
    let output = run(arguments);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{arguments:?}");
    assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Two weeks of a small catalogue.
struct Weeks {
    _folder: TempDir,
    older: PathBuf,
    newer: PathBuf,
}

impl Weeks {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let tag = |name: &str, number: u64, features: &[&str], prefixes: &[&str]| {
            let properties = json!({
                "changeNumber": number, "region": "", "regionId": 0, "platform": "Azure", "systemService": name,
                "addressPrefixes": prefixes, "networkFeatures": features,
            });
            json!({ "name": name, "id": name, "properties": properties })
        };
        let write = |file: &str, number: u64, values: &[Value]| {
            let path = folder.path().join(file);
            let document = json!({ "changeNumber": number, "cloud": "Public", "values": values });
            fs::write(&path, document.to_string()).unwrap();
            path
        };
        let older = write(
            "older.json",
            7,
            &[
                tag("Moved", 1, &["API", "NSG"], &["192.0.2.0/25", "192.0.2.128/25", "2001:db8:1::/48"]),
                tag("Same", 1, &["API", "NSG"], &["198.51.100.0/25", "198.51.100.128/25"]),
                tag("Gone", 1, &[], &["203.0.113.0/24"]),
            ],
        );
        let newer = write(
            "newer.json",
            8,
            &[
                tag("Fresh", 1, &[], &["203.0.113.128/25", "203.0.113.0/25"]),
                tag("Moved", 2, &["NSG", "API", "UDR"], &["192.0.2.0/25", "192.0.2.192/26", "2001:db8:2::/48"]),
                tag("Same", 1, &["NSG", "API"], &["198.51.100.128/25", "198.51.100.0/25"]),
            ],
        );
        Self { _folder: folder, older, newer }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn lookup_lists_tags_longest_prefix_first() {
    assert_eq!(
        answer(&["tags", "lookup", "20.60.1.10"]),
        "\
Tag                    Prefix        Region      Service       Features
Storage                20.60.1.0/24  -           AzureStorage  API, NSG, UDR, FW, VSE
Storage.WestEurope     20.60.1.0/24  westeurope  AzureStorage  API, NSG, UDR, FW
AzureCloud             20.60.0.0/17  -           -             API, NSG
AzureCloud.westeurope  20.60.0.0/17  westeurope  -             API, NSG
"
    );
    assert_eq!(
        answer(&["tags", "lookup", "2603:1020:206:100::10"]).lines().nth(2),
        Some("Storage.WestEurope     2603:1020:206:100::/64  westeurope  AzureStorage  API, NSG, UDR, FW")
    );
}

#[test]
fn lookup_answers_in_json() {
    let found = json_answer(&["tags", "lookup", "20.60.1.10", "--json"]);
    assert_eq!(found["address"], "20.60.1.10");
    assert_eq!(found["tags"].as_array().unwrap().len(), 4);
    assert_eq!(
        found["tags"][1],
        json!({
            "name": "Storage.WestEurope", "addressPrefix": "20.60.1.0/24", "region": "westeurope",
            "systemService": "AzureStorage", "networkFeatures": ["API", "NSG", "UDR", "FW"],
        })
    );
}

#[test]
fn an_address_in_no_tag_is_an_answer_and_no_error() {
    assert_eq!(answer(&["tags", "lookup", "198.51.100.80"]), "198.51.100.80 is in no service tag\n");
    assert_eq!(
        json_answer(&["tags", "lookup", "203.0.113.10", "--json"]),
        json!({ "address": "203.0.113.10", "tags": [] })
    );
}

#[test]
fn what_is_no_address_is_a_usage_error() {
    let message = error(&["tags", "lookup", "20.60.1.0/24"], 2);
    assert!(message.starts_with("error: invalid value '20.60.1.0/24' for '<ADDRESS>'"), "{message}");
}

#[test]
fn show_prints_a_tag_whatever_the_case_of_its_name() {
    assert_eq!(
        answer(&["tags", "show", "storage.westeurope"]),
        "\
Storage.WestEurope
  service        AzureStorage
  region         westeurope (18)
  features       API, NSG, UDR, FW
  change number  1
  prefixes       2 IPv4, 1 IPv6
    20.60.1.0/24
    20.60.77.128/25
    2603:1020:206:100::/64
"
    );
}

#[test]
fn show_answers_in_the_form_of_the_document() {
    let document: Value = serde_json::from_str(include_str!("../config/service-tags.json")).unwrap();
    for tag in document["values"].as_array().unwrap() {
        assert_eq!(&json_answer(&["tags", "show", tag["name"].as_str().unwrap(), "--json"]), tag);
    }
}

#[test]
fn an_unknown_tag_is_an_error_with_the_nearest_name() {
    assert_eq!(
        error(&["tags", "show", "Storge"], 1),
        "error: there is no service tag \"Storge\"; did you mean \"Storage\"?\n"
    );
    assert_eq!(error(&["tags", "show", "Mars", "--json"], 1), "error: there is no service tag \"Mars\"\n");
    assert_eq!(
        error(&["tags", "show", "virtualnetwork"], 1),
        "error: VirtualNetwork is computed from the network and has no list of prefixes\n"
    );
}

#[test]
fn list_has_a_row_for_each_tag() {
    let list = answer(&["tags", "list"]);
    let lines: Vec<_> = list.lines().collect();
    assert_eq!(lines.len(), 13);
    assert_eq!(lines[0], "Tag                    Region       Service          IPv4  IPv6  Features");
    assert_eq!(lines[1], "AzureCloud             -            -                8     2     API, NSG");
    assert_eq!(lines[12], "Storage.WestEurope     westeurope   AzureStorage     2     1     API, NSG, UDR, FW");
}

#[test]
fn list_answers_in_json() {
    let list = json_answer(&["tags", "list", "--json"]);
    assert_eq!(list.as_array().unwrap().len(), 12);
    assert_eq!(
        list[11],
        json!({
            "name": "Storage.WestEurope", "region": "westeurope", "regionId": 18, "systemService": "AzureStorage",
            "changeNumber": 1, "networkFeatures": ["API", "NSG", "UDR", "FW"], "prefixesV4": 2, "prefixesV6": 1,
        })
    );
}

#[test]
fn stats_count_the_catalogue() {
    let weeks = Weeks::new();
    assert_eq!(
        answer(&["tags", "stats", "--tags", text(&weeks.newer)]),
        "\
cloud          Public
change number  8
tags           3 (3 global, 0 regional in 0 regions)
prefixes       7 (6 IPv4, 1 IPv6)
distinct       7 (6 IPv4, 1 IPv6)
addresses      704 IPv4
features       API 2, NSG 2, UDR 1
endpoint tags  -
"
    );
}

#[test]
fn stats_of_the_weekly_file_answer_in_json() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/ServiceTags_Public_20251117.json");
    if !path.exists() {
        assert_ne!(env::var("CI").as_deref(), Ok("true"), "{} is missing", path.display());
        eprintln!("skipped: {} is missing", path.display());
        return;
    }
    let stats = json_answer(&["tags", "stats", "--json", "--tags", text(&path)]);
    let numbers = [
        ("changeNumber", 376),
        ("tags", 3_041),
        ("prefixes", 95_823),
        ("distinctV4", 39_638),
        ("distinctV6", 13_948),
        ("globalTags", 100),
        ("regionalTags", 2_941),
    ];
    for (field, number) in numbers {
        assert_eq!(stats[field], number, "{field}");
    }
    assert_eq!(stats["networkFeatures"]["VSE"], 9);
    assert_eq!(stats["endpointTags"].as_array().unwrap().len(), 9);
}

#[test]
fn diff_shows_tags_and_prefixes_that_changed() {
    let weeks = Weeks::new();
    assert_eq!(
        answer(&["tags", "diff", text(&weeks.older), text(&weeks.newer)]),
        "\
change number 7 -> 8
tags: 1 added, 1 removed, 1 changed
prefixes: 4 added, 3 removed
+ Fresh
    + 203.0.113.0/25
    + 203.0.113.128/25
- Gone
    - 203.0.113.0/24
~ Moved
    changeNumber: 1 -> 2
    networkFeatures: API, NSG -> API, NSG, UDR
    + 192.0.2.192/26
    + 2001:db8:2::/48
    - 192.0.2.128/25
    - 2001:db8:1::/48
"
    );
    assert_eq!(
        answer(&["tags", "diff", text(&weeks.older), text(&weeks.older)]),
        "change number 7 -> 7\nno tag differs\n"
    );
}

#[test]
fn diff_answers_in_json() {
    let weeks = Weeks::new();
    let nothing = json!([]);
    assert_eq!(
        json_answer(&["tags", "diff", text(&weeks.older), text(&weeks.newer), "--json"]),
        json!({
            "from": 7,
            "to": 8,
            "added": [{
                "name": "Fresh", "fields": nothing,
                "addedPrefixes": ["203.0.113.0/25", "203.0.113.128/25"], "removedPrefixes": nothing,
            }],
            "removed": [{
                "name": "Gone", "fields": nothing, "addedPrefixes": nothing, "removedPrefixes": ["203.0.113.0/24"],
            }],
            "changed": [{
                "name": "Moved",
                "fields": [
                    { "field": "changeNumber", "from": "1", "to": "2" },
                    { "field": "networkFeatures", "from": "API, NSG", "to": "API, NSG, UDR" },
                ],
                "addedPrefixes": ["192.0.2.192/26", "2001:db8:2::/48"],
                "removedPrefixes": ["192.0.2.128/25", "2001:db8:1::/48"],
            }],
        })
    );
}

#[test]
fn a_broken_catalogue_is_refused_with_every_mistake() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("tags.json");
    fs::write(
        &path,
        "{\n  \"values\": [\n    { \"name\": \"A\", \"properties\": { \"addressPrefixes\": [\"192.0.2.1/24\", \"x\"] } },\n    \
         { \"name\": \"a\", \"properties\": { \"addressPrefixes\": [] } }\n  ]\n}\n",
    )
    .unwrap();
    let path = text(&path);
    for question in [&["lookup", "192.0.2.1"][..], &["show", "A"], &["list"], &["stats"]] {
        let arguments = [&["tags"], question, &["--tags", path]].concat();
        assert_eq!(
            error(&arguments, 1),
            format!(
                "error: {path}: 3 mistakes in the service tags\n  \
                 {path}:3:56: values[0] \"A\", addressPrefixes[0]: \"192.0.2.1/24\" has host bits set; the prefix is \
                 \"192.0.2.0/24\"\n  \
                 {path}:3:72: values[0] \"A\", addressPrefixes[1]: \"x\" is no address prefix such as \"192.0.2.0/24\" \
                 or \"2001:db8::/32\"\n  \
                 {path}:4:15: values[1] \"a\": the tag is there already: values[0] \"A\" on line 3\n"
            )
        );
    }
}

#[test]
fn an_empty_or_cut_off_or_missing_file_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("tags.json");
    let weeks = Weeks::new();
    let path = text(&path);
    let diff = |file| error(&["tags", "diff", text(&weeks.older), file], 1);
    assert_eq!(
        diff(path),
        format!(
            "error: {path}: the service tags cannot be read\n  caused by: No such file or directory (os error 2)\n"
        )
    );
    fs::write(path, "").unwrap();
    assert_eq!(diff(path), format!("error: {path}: the document of service tags is empty\n"));
    fs::write(path, "{ \"cloud\": \"Public\" }").unwrap();
    assert_eq!(diff(path), format!("error: {path}:1:1: `values` is missing\n"));
    fs::write(path, "{ \"values\": [\n{ \"name\": \"Storage\", \"properties\": { \"addressPrefixes\": [ \"192.0.")
        .unwrap();
    assert_eq!(
        diff(path),
        format!(
            "error: {path}:2:65: values[0] \"Storage\", addressPrefixes[0]: the JSON is cut off: EOF while parsing a \
             string\n"
        )
    );
}

#[test]
fn one_page_of_several_is_answered_with_a_warning() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("tags.json");
    fs::write(&path, r#"{ "values": [{ "name": "T", "properties": { "addressPrefixes": [] } }], "nextLink": "https://management.example/next" }"#).unwrap();
    let output = run(&["tags", "lookup", "192.0.2.1", "--tags", text(&path)]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "192.0.2.1 is in no service tag\n");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("WARN") && log.contains("is one page of several"), "{log}");
    assert!(output.status.success());
}

#[test]
fn a_reader_that_closes_the_pipe_is_no_error() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let output = sidestep(&["tags", "list", "--json"]).stdout(writer).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_log_filter_that_is_none_is_an_error() {
    let output = sidestep(&["tags", "list"]).env("SIDESTEP_LOG", "sidestep=loud").output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.starts_with("error: SIDESTEP_LOG: \"sidestep=loud\" is no log filter\n  caused by: "), "{message}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn help_names_every_question() {
    let help = answer(&["tags", "--help"]);
    for line in [
        "  lookup  Show which tags contain an address, longest prefix first",
        "  show    Show a tag and its prefixes",
        "  list    List the tags",
        "  stats   Count tags, prefixes and addresses",
        "  diff    Compare two catalogues: tags and prefixes that were added, removed or changed",
    ] {
        assert!(help.lines().any(|shown| shown == line), "{line:?} in:\n{help}");
    }
    for question in ["lookup", "show", "list", "stats", "diff"] {
        assert!(answer(&["tags", question, "--help"]).contains("--json"), "{question}");
    }
}

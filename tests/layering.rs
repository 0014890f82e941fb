//! Who may use whom: the rule in the crate's documentation, held against every `crate::` path in `src`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms below the top, each with the rooms that it may use. Rooms that are not listed sit on top and use anything.
const RULES: &[(&str, &[&str])] = &[
    ("packet", &[]),
    ("table", &[]),
    ("model", &[]),
    ("tags", &[]),
    ("snapshot", &["table"]),
    ("plan", &["model", "tags", "table", "snapshot"]),
    ("path", &["packet", "table", "snapshot"]),
    ("port", &["packet"]),
    ("privileges", &[]),
    ("worker", &["path", "port", "packet", "table", "snapshot", "privileges"]),
];

/// Rooms on top, which the others must not use.
const TOP: &[&str] = &["control", "telemetry", "lab", "cli"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every room named after `crate::` or `sidestep::`, also inside `use crate::{a, b::c}`.
fn rooms_used(text: &str) -> BTreeSet<String> {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut used = BTreeSet::new();
    for marker in ["crate::", "sidestep::"] {
        for (at, _) in code.match_indices(marker) {
            let rest = &code[at + marker.len()..];
            if let Some(group) = rest.strip_prefix('{') {
                let mut depth = 0;
                let mut name = String::new();
                let mut naming = true;
                for character in group.chars() {
                    match character {
                        '}' if depth == 0 => break,
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 0 => {
                            used.insert(std::mem::take(&mut name));
                            naming = true;
                            continue;
                        }
                        ':' if depth == 0 => naming = false,
                        _ => {}
                    }
                    if naming && depth == 0 && (character.is_alphanumeric() || character == '_') {
                        name.push(character);
                    }
                }
                used.insert(name);
            } else {
                used.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
            }
        }
    }
    used
}

#[test]
fn rooms_use_only_what_they_may() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&source, &mut files);
    let rules: BTreeMap<_, _> = RULES.iter().copied().collect();
    let rooms: BTreeSet<&str> = rules.keys().copied().chain(TOP.iter().copied()).collect();
    let mut broken = Vec::new();
    let mut seen = BTreeSet::new();
    for file in files {
        let relative = file.strip_prefix(&source).unwrap();
        let first = relative.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
        let room = first.trim_end_matches(".rs").to_owned();
        if room == "lib" || room == "main" {
            continue;
        }
        assert!(rooms.contains(room.as_str()), "{} is in no room that the rule knows", relative.display());
        seen.insert(room.clone());
        let Some(allowed) = rules.get(room.as_str()) else { continue };
        for used in rooms_used(&fs::read_to_string(&file).unwrap()) {
            if rooms.contains(used.as_str()) && used != room && !allowed.contains(&used.as_str()) {
                broken.push(format!("{} uses {used}", relative.display()));
            }
        }
    }
    assert!(broken.is_empty(), "the module rule is broken:\n{}", broken.join("\n"));
    assert_eq!(seen.len(), rooms.len(), "every room of the rule exists: {seen:?}");
}

#[test]
fn the_scan_sees_groups_and_plain_paths() {
    let text = "use crate::{model::x, tags};\nlet a = crate::plan::b();\n// crate::control\nuse crate::table::{c, d};";
    let used = rooms_used(text);
    for room in ["model", "tags", "plan", "table"] {
        assert!(used.contains(room), "{room} in {used:?}");
    }
    assert!(!used.contains("control"));
}

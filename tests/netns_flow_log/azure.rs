//! Azure's files as a reader of them sees them.

use std::fs;
use std::path::{Path, PathBuf};

/// Every tuple of Azure's files: its fields, and the file.
pub(crate) fn tuples(folder: &Path) -> Vec<(Vec<String>, PathBuf)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).expect("folder") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let content: serde_json::Value = serde_json::from_slice(&fs::read(&path).expect("file")).expect("JSON");
            for record in content["records"].as_array().expect("records") {
                assert_eq!(record["flowLogVersion"], 4);
                for flow in record["flowRecords"]["flows"].as_array().expect("flows") {
                    for group in flow["flowGroups"].as_array().expect("groups") {
                        for tuple in group["flowTuples"].as_array().expect("tuples") {
                            let fields: Vec<_> = tuple.as_str().expect("text").split(',').map(str::to_owned).collect();
                            assert_eq!(fields.len(), 13, "{tuple}");
                            found.push((fields, path.clone()));
                        }
                    }
                }
            }
        }
    }
    found
}

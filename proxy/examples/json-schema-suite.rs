//! Runs the JSON Schema Test Suite (2020-12) by the schemas of contracts: `scripts/json-schema-suite`.

use std::{collections::BTreeMap, path::Path};

use quorumgate_proxy::inspect::schema::Document;
use serde_json::Value;

fn main() {
    let folder = std::env::args().nth(1).expect("the folder tests/draft2020-12 of the suite");
    let (mut passed, mut failed, mut refused) = (0, 0, 0);
    let mut why: BTreeMap<String, usize> = BTreeMap::new();
    for (name, asserts_formats) in files(Path::new(&folder)) {
        let text = std::fs::read_to_string(Path::new(&folder).join(&name)).expect("a file that is there");
        let groups: Vec<Value> = serde_json::from_str(&text).expect("a list of groups");
        let (mut file_passed, mut file_failed) = (0, 0);
        for group in groups {
            let tests = group["tests"].as_array().expect("tests");
            let document = Document::new(&group["schema"]);
            let mut document = if asserts_formats { document } else { document.without_formats() };
            let compiled = document.schema("").and_then(|id| Ok((document.finish()?, id)));
            let (schemas, id) = match compiled {
                Ok(compiled) => compiled,
                Err(invalid) => {
                    refused += tests.len();
                    let word = invalid.field.rsplit('/').next().unwrap_or_default().to_owned();
                    *why.entry(format!("{name}: {word} found {}", invalid.found)).or_default() += tests.len();
                    continue;
                }
            };
            for test in tests {
                let bytes = test["data"].to_string().len();
                match schemas.mistakes(id, &test["data"], bytes).map(|it| it.is_empty()) == test["valid"].as_bool() {
                    true => file_passed += 1,
                    false => {
                        file_failed += 1;
                        *why.entry(format!("{name}: FAILED {}: {}", group["description"], test["description"]))
                            .or_default() += 1;
                    }
                }
            }
        }
        println!("{name}: {file_passed} passed, {file_failed} failed");
        passed += file_passed;
        failed += file_failed;
    }
    println!();
    for (what, count) in why {
        println!("{count:4} {what}");
    }
    println!("\nrefused with an error, as docs/OPERATING.md says: {refused}\n{passed} passed, {failed} failed");
    std::process::exit(i32::from(failed > 0));
}

/// Formats are asserted in the files of those that are; elsewhere they are annotations.
fn files(folder: &Path) -> Vec<(String, bool)> {
    let list = |inner: &str| {
        let entries = std::fs::read_dir(folder.join(inner)).expect("the suite's folder");
        let names = entries.map(|it| it.expect("an entry").file_name().to_string_lossy().into_owned());
        let mut names: Vec<_> = names.filter(|it| it.ends_with(".json")).collect();
        names.sort();
        names
    };
    let mut files: Vec<_> = list("").into_iter().map(|it| (it, false)).collect();
    let asserted = ["date.json", "time.json", "date-time.json", "uuid.json", "ipv4.json", "ipv6.json"];
    let formats = list("optional/format").into_iter().filter(|it| asserted.contains(&it.as_str()));
    files.extend(formats.map(|it| (format!("optional/format/{it}"), true)));
    files.push(("optional/ecmascript-regex.json".to_owned(), false));
    files
}

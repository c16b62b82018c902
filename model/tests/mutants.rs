//! `scripts/mutants.txt` against the sources: every mutant is asked about somewhere, and the test that is to notice it is
//! there. Whether it does notice it, `scripts/mutants` tells.
#![allow(clippy::disallowed_methods, reason = "the wall is for the model; its tests read files")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use quorumgate_model::mutants::Mutant;

const CRATES: [&str; 4] = ["model", "raft-store", "proxy", "node"];

struct Row {
    mutant: String,
    of: String,
    target: String,
    test: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn table() -> Vec<Row> {
    let text = fs::read_to_string(root().join("scripts/mutants.txt")).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let row = |line: &str| {
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        let [mutant, of, target, test] = words.try_into().unwrap_or_else(|_| panic!("not four words: {line:?}"));
        Row { mutant, of, target, test }
    };
    lines.map(row).collect()
}

/// Of the sources below.
fn sources(dir: &Path, into: &mut Vec<(PathBuf, String)>) {
    for found in fs::read_dir(dir).unwrap() {
        let path = found.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|it| it == "rs") {
            into.push((path.clone(), fs::read_to_string(&path).unwrap()));
        }
    }
}

fn sources_of(name: &str) -> Vec<(PathBuf, String)> {
    let mut all = Vec::new();
    ["src", "tests"].iter().map(|it| root().join(name).join(it)).for_each(|dir| sources(&dir, &mut all));
    all
}

#[test]
fn the_table_has_each_mutant_once_in_their_order() {
    let found: Vec<_> = table().into_iter().map(|row| row.mutant).collect();
    let words: Vec<_> = Mutant::ALL.iter().map(|mutant| mutant.word()).collect();
    assert_eq!(found, words);
    assert!(Mutant::ALL.iter().all(|mutant| Mutant::from_word(&mutant.word()) == Some(*mutant)));
}

#[test]
fn each_mutant_is_planted_somewhere() {
    let all: Vec<_> = CRATES.iter().flat_map(|name| sources_of(name)).collect();
    let is_planted = |mutant: &Mutant| {
        let asked = [format!("mutants::is(Mutant::{mutant:?})"), format!("mutants::unless(Mutant::{mutant:?},")];
        all.iter().any(|(_, text)| asked.iter().any(|it| text.contains(it)))
    };
    let missing: Vec<_> = Mutant::ALL.iter().filter(|mutant| !is_planted(mutant)).collect();
    assert!(missing.is_empty(), "nothing asks about {missing:?}");
}

#[test]
fn the_tests_that_the_table_names_are_there() {
    let sources = CRATES.map(|name| (name, sources_of(name)));
    for Row { mutant, of, target, test } in table() {
        let (_, files) =
            sources.iter().find(|(name, _)| *name == of).unwrap_or_else(|| panic!("{mutant}: no crate {of}"));
        let name = test.rsplit("::").next().unwrap();
        let place = if target == "lib" { "src".into() } else { format!("tests/{target}") };
        let place = root().join(&of).join(place).display().to_string();
        let is_there = |(path, text): &(PathBuf, String)| {
            path.display().to_string().starts_with(&place) && text.contains(&format!("fn {name}("))
        };
        assert!(files.iter().any(is_there), "{mutant}: {of} has no test {test} in {target}");
    }
}

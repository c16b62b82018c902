//! The corpora, and the golden files, through every property: what was found once is never found again.
#![allow(clippy::disallowed_methods)]

use std::{fs, path::Path};

use prost::Message;
use quorumgate_fuzz::{TARGETS, Target};

fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<_> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

fn replay(name: &str) {
    let target = Target::named(name).unwrap();
    let files = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("corpora").join(name));
    assert!(!files.is_empty(), "{name} has no corpus");
    for (file, input) in files {
        println!("{name}/{file}");
        (target.check)(&input);
        // And all that it begins with, which is where parsers have to wait.
        (0..input.len().min(512)).for_each(|end| (target.check)(&input[..end]));
    }
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let mut names: Vec<_> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("corpora"))
        .unwrap()
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, TARGETS.each_ref().map(|target| target.name));
}

macro_rules! replayed {
    ($($name:ident)*) => { $(#[test] fn $name() { replay(stringify!($name)); })* };
}

replayed!(apply cel codecs configuration edge frames jwt openapi path peer proxy_header route);

/// Every stored form there is: `command.*`, `ledger.*` and `record.*` of the model.
#[test]
fn the_golden_files_hold_up() {
    let golden = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden"));
    let codecs = Target::named("codecs").unwrap();
    let apply = Target::named("apply").unwrap();
    let mut commands = vec![0];
    for (file, hex) in &golden {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(hex.trim_ascii()).unwrap();
        let tag = match file.split('.').next() {
            Some("command" | "ledger") => b'c',
            Some("resource") => b'r',
            _ => continue,
        };
        println!("{file}");
        (codecs.check)(&[&[tag], &*bytes].concat());
        if tag == b'c' && quorumgate_proto::store::v1::Command::decode(&*bytes).is_ok() {
            prost::encoding::encode_varint(bytes.len() as u64, &mut commands);
            commands.extend(bytes);
        }
    }
    assert!(commands.len() > 1_000, "{} bytes of commands", commands.len());
    (apply.check)(&commands);
}

//! Configuration files as they were read: names, texts, and the lines that errors point at.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use super::tree::{FILE_BYTES_MAX, Place};
use crate::cli::failure::{Failure, Outcome};

/// The most files of one command.
const FILES_MAX: usize = 10_000;
/// Longer lines are cut around the caret.
const LINE_CHARS_MAX: usize = 120;

#[derive(Debug, Clone)]
pub struct Source {
    /// As the operator wrote it; `<stdin>` for `-`.
    pub name: String,
    /// None for standard input.
    pub path: Option<PathBuf>,
    pub text: String,
}

/// Reads files, directories (their .yaml, .yml and .json files, by name) and standard input.
pub fn read(files: &[PathBuf]) -> Outcome<Vec<Source>> {
    let mut sources = Vec::new();
    for file in files {
        if file == Path::new("-") {
            let text = bounded("<stdin>", std::io::stdin().lock())?;
            sources.push(Source { name: "<stdin>".into(), path: None, text });
        } else if file.is_dir() {
            for inner in directory(file)? {
                sources.push(open(&inner)?);
            }
        } else {
            sources.push(open(file)?);
        }
    }
    if sources.len() > FILES_MAX {
        return Err(Failure::usage(format!("found {} files; allowed: at most {FILES_MAX}", sources.len())));
    }
    Ok(sources)
}

fn directory(dir: &Path) -> Outcome<Vec<PathBuf>> {
    let wrong = |error| Failure::usage(format!("{}: {error}", dir.display()));
    let entries = fs::read_dir(dir).map_err(wrong)?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(wrong)?.path();
        if path.extension().is_some_and(|it| it == "yaml" || it == "yml" || it == "json") {
            files.push(path);
        }
    }
    files.sort();
    match files.is_empty() {
        true => Err(Failure::usage(format!("{}: there is no .yaml, .yml or .json file in it", dir.display()))),
        false => Ok(files),
    }
}

fn open(file: &Path) -> Outcome<Source> {
    let name = file.display().to_string();
    let opened = fs::File::open(file).map_err(|error| Failure::usage(format!("{name}: {error}")))?;
    Ok(Source { text: bounded(&name, opened)?, name, path: Some(file.to_owned()) })
}

fn bounded(name: &str, reader: impl Read) -> Outcome<String> {
    let mut bytes = Vec::new();
    reader
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::usage(format!("{name}: {error}")))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::usage(format!("{name}: larger than {} MiB", FILE_BYTES_MAX >> 20))
            .help("apply it in parts: objects that a file leaves out stay as they are"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::usage(format!("{name}: not a text in UTF-8, from byte {at} on"))
    })
}

impl Source {
    /// The place alone, of what is no YAML: nobody can tell which of its lines are secret.
    pub fn at(&self, place: Option<Place>) -> String {
        match place {
            Some(place) => format!(" --> {}:{}:{}", self.name, place.line, place.column),
            None => format!(" --> {}", self.name),
        }
    }

    /// `--> file:line:column`, the line, and a caret under the word.
    pub fn show(&self, place: Place) -> String {
        let line = self.text.lines().nth(place.line.saturating_sub(1)).unwrap_or_default();
        let letters: Vec<char> = line.chars().collect();
        let at = place.column.saturating_sub(1).min(letters.len());
        let word = self.text.get(place.start..place.start.saturating_add(place.bytes)).unwrap_or_default();
        let width = word.lines().next().unwrap_or_default().trim_end().chars().count().clamp(1, LINE_CHARS_MAX);
        // A long line is shown from a little before the caret.
        let from = if letters.len() > LINE_CHARS_MAX { at.saturating_sub(40) } else { 0 };
        let shown: String = letters[from..].iter().take(LINE_CHARS_MAX).collect();
        let indent: String = letters[from..at].iter().map(|it| if *it == '\t' { '\t' } else { ' ' }).collect();
        let number = place.line.to_string();
        let gutter = " ".repeat(number.len());
        format!(
            "{gutter}--> {}:{}:{}\n{gutter} |\n{number} | {shown}\n{gutter} | {indent}{}",
            self.name,
            place.line,
            place.column,
            "^".repeat(width)
        )
    }
}

//! Files that a configuration file names: read from beside it, their content put where the model wants it; and taken
//! out again where the file itself is rewritten.

use std::{fs, io::Read, path::Path};

use serde_json::{Map, Value as Json};

use super::{
    check::{FileWord, Wrong},
    form::Content,
    source::Source,
};

/// Certificates, key sets and secrets are all far smaller.
const INNER_BYTES_MAX: u64 = 1 << 20;
/// Of lists, which may have a million lines.
const LINES_BYTES_MAX: u64 = 32 << 20;

/// Puts the file's content in place of its name.
pub fn fill(words: &mut Json, file: &FileWord, source: &Source) -> Result<(), Wrong> {
    let wrong = |why: String| Wrong {
        place: file.place,
        message: format!("{}.{}: {}: {why}", file.path, file.field, file.file),
        help: match source.path {
            Some(_) => "a relative path begins beside the configuration file".into(),
            None => "a relative path begins in the working directory".into(),
        },
    };
    let beside = source.path.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
    let bytes_max = if matches!(file.content, Content::Lines) { LINES_BYTES_MAX } else { INNER_BYTES_MAX };
    let bytes = read(&beside.join(&file.file), bytes_max).map_err(wrong)?;
    let text = |bytes| String::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8 text".into()));
    let content = match file.content {
        Content::Base64 => Json::String(data_encoding::BASE64.encode(&bytes)),
        Content::Text => Json::String(text(bytes)?),
        Content::Lines => {
            let text = text(bytes)?;
            let words = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
            words.filter(|word| !word.is_empty()).map(Json::from).collect()
        }
        Content::Secret => {
            let text = text(bytes)?;
            let line = text.strip_suffix('\n').unwrap_or(&text);
            let secret = line.strip_suffix('\r').unwrap_or(line);
            if secret.is_empty() {
                return Err(wrong("it is empty".into()));
            }
            Json::String(format!("plain:{secret}"))
        }
        Content::Json => serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?,
    };
    replace(words, &file.path, file.field, file.target, content);
    Ok(())
}

/// The opposite, for `fmt`: an object's canonical words with the name of the file again. `path` is the object's own.
pub fn restore(words: &mut Json, file: &FileWord, path: &str) {
    let inner = file.path.strip_prefix(path).unwrap_or_default();
    replace(words, inner, file.target, file.field, Json::String(file.file.clone()));
}

/// Another key and value at the place of `from` in the map at `path`.
fn replace(words: &mut Json, path: &str, from: &str, to: &str, value: Json) {
    let mut here = words;
    for step in path.split(['.', '[', ']']).filter(|step| !step.is_empty()) {
        let inner = match here {
            Json::Array(items) => step.parse().ok().and_then(|at: usize| items.get_mut(at)),
            other => other.get_mut(step),
        };
        match inner {
            Some(inner) => here = inner,
            None => return,
        }
    }
    let Json::Object(fields) = here else { return };
    let renamed = std::mem::take(fields).into_iter().map(|(key, old)| match key == from {
        true => (to.to_owned(), value.clone()),
        false => (key, old),
    });
    *fields = renamed.collect::<Map<_, _>>();
}

fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    match bytes.len() as u64 > bytes_max {
        true => Err(format!("larger than {} MiB", bytes_max >> 20)),
        false => Ok(bytes),
    }
}

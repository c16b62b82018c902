//! What comes from outside besides arguments: secrets, standard input, and the answer to a question.

use std::{
    io::{IsTerminal, Read, Write},
    path::Path,
};

use super::{
    args::Global,
    failure::{Failure, Outcome},
};

/// The longest secret file that is read.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// A secret from a file or from standard input (`-`), without the white space around it.
pub fn secret(file: &Path) -> Outcome<String> {
    let wrong = |error: std::io::Error| Failure::usage(format!("{}: {error}", file.display()));
    let mut text = String::new();
    match file == Path::new("-") {
        true => std::io::stdin().take(SECRET_BYTES_MAX).read_to_string(&mut text).map_err(wrong)?,
        false => std::fs::File::open(file)
            .and_then(|opened| opened.take(SECRET_BYTES_MAX).read_to_string(&mut text))
            .map_err(wrong)?,
    };
    match text.trim() {
        "" => Err(Failure::usage(format!("{}: it is empty", file.display()))),
        text => Ok(text.to_owned()),
    }
}

/// What is asked about first needs `--yes` or a terminal to ask at.
fn may_ask(global: &Global) -> Outcome {
    match global.yes || (std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        true => Ok(()),
        false => Err(Failure::usage("this is asked about first, and there is no terminal to ask at").help("add --yes")),
    }
}

/// Asks before something is removed, or made in the place of something. Without a terminal it still says what it is.
pub fn confirm(global: &Global, preview: &str) -> Outcome {
    if global.yes {
        return Ok(());
    }
    eprintln!("{preview}");
    may_ask(global)?;
    eprint!("Go on? [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(Failure::internal)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::usage("not confirmed, nothing was changed")),
    }
}

//! The command line: one verb a file, one write path (ApplyConfig), stable JSON on stdout, messages on stderr.

pub mod relay;

/// Parses the arguments, runs the command, and maps its error to an exit code (docs/OPERATING.md).
pub fn main() -> std::process::ExitCode {
    todo!("H8")
}

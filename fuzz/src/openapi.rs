//! OpenAPI documents: what is imported is a configuration file that is taken, and what is refused is refused with words.

use quorumgate_node::fuzzing::{configuration, imported};

/// The first byte says with which flags.
pub fn check(input: &[u8]) {
    let Some((flags, document)) = input.split_first() else { return };
    let Ok(document) = std::str::from_utf8(document) else { return };
    let mut words = vec!["--upstream", "svc"];
    for (bit, flag) in ["--lossy", "--no-auth", "--no-scopes", "--open", "--responses=enforce"].into_iter().enumerate()
    {
        let conflicts = flag == "--open" && words.contains(&"--no-auth");
        if flags >> bit & 1 == 1 && !conflicts {
            words.push(flag);
        }
    }
    match imported(document, &words) {
        Ok(file) => {
            let taken = configuration(&file).unwrap_or_else(|why| panic!("{why}\nof what was imported:\n{file}"));
            assert_eq!(taken.canonical, file, "what is imported is in canonical form");
        }
        Err(refused) => assert!(!refused.is_empty(), "refused without a word: {document:?}"),
    }
}

//! Configuration files: what is taken means the same in its canonical form and as a message, and what is refused is
//! refused with words.

use quorumgate_node::fuzzing::{Configuration, configuration};

pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    // Files that a configuration names are read from the disk: not from this one.
    if text.contains("file") {
        return;
    }
    let Configuration { resources, canonical, message } = match configuration(text) {
        Ok(taken) => taken,
        Err(refused) => {
            assert!(!refused.is_empty(), "refused without a word: {text:?}");
            return;
        }
    };
    let again = configuration(&canonical).unwrap_or_else(|why| panic!("{why}\nof its canonical form:\n{canonical}"));
    assert_eq!(again.canonical, canonical, "the canonical form is its own");
    let sorted = |resources: &[quorumgate_model::resource::Resource]| {
        let mut sorted = resources.to_vec();
        sorted.sort_by_key(quorumgate_model::resource::Resource::key);
        sorted
    };
    assert_eq!(sorted(&again.resources), sorted(&resources), "the canonical form means the same:\n{canonical}");
    let sent = quorumgate_model::convert::config_from(message).expect("what was taken can be sent");
    assert_eq!(sorted(&sent), sorted(&resources), "what is sent means the same");
}

//! Entries of any content, in any order: apply is total, the same everywhere, and a snapshot between any two entries
//! changes nothing.

use std::sync::LazyLock;

use prost::Message;
use quorumgate_model::{LEVEL, command::Command, convert, state::State};
use quorumgate_proto::store::v1 as store;

use crate::codecs::rebuilt;

/// The founder's first command, from the golden files.
static BOOTSTRAP: LazyLock<Command> = LazyLock::new(|| {
    let hex = include_str!("../../model/tests/golden/command.bootstrap.hex");
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(hex.trim().as_bytes()).expect("it is hexadecimal");
    let message = store::Command::decode(&*bytes).expect("a golden file is decoded");
    convert::command_from(message).expect("a golden file is taken")
});

/// Length-delimited commands; the first byte says after which of them a snapshot is taken.
pub fn check(input: &[u8]) {
    let Some((&cut, mut bytes)) = input.split_first() else { return };
    let (mut state, mut other) = (State::default(), State::default());
    let mut commands = vec![BOOTSTRAP.clone()];
    while !bytes.is_empty() {
        let Ok(message) = store::Command::decode_length_delimited(&mut bytes) else { break };
        // What cannot be decoded, or is of a later level, stops consensus before it.
        if let Ok(command) = convert::command_from(message)
            && command.min_level <= LEVEL
        {
            commands.push(command);
        }
    }
    for (at, command) in commands.iter().enumerate() {
        let index = at as u64 + 1;
        let applied = state.apply(index, command).0;
        assert_eq!(other.apply(index, command).0, applied, "two nodes differ about {command:?}");
        if at == usize::from(cut) {
            other = rebuilt(&other);
        }
        assert_eq!(state.hash(), other.hash(), "two nodes differ after {command:?}");
    }
    assert_eq!(rebuilt(&state).hash(), state.hash());
}

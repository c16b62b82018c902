//! What outlives the process: commands, log entries, snapshot records and the frames of the log. What is decoded is
//! encoded to what is decoded alike, and a frame that is not whole is not there.

use prost::Message;
use quorumgate_model::{
    convert,
    snapshot::{Rebuild, records},
    state::State,
};
use quorumgate_proto::{admin::v1 as admin, store::v1 as store};
use quorumgate_raft_store::{fuzzing, wire};

/// The first byte says what the rest is.
pub fn check(input: &[u8]) {
    match input.split_first() {
        Some((b'c', bytes)) => command(bytes),
        Some((b'e', bytes)) => entry(bytes),
        Some((b'r', bytes)) => resource(bytes),
        Some((b's', bytes)) => snapshot(bytes),
        Some((b'w', bytes)) => log(bytes),
        _ => {}
    }
}

fn command(bytes: &[u8]) {
    let Ok(message) = store::Command::decode(bytes) else { return };
    let Ok(command) = convert::command_from(message) else { return };
    let bytes = convert::command_to(&command).encode_to_vec();
    let again = convert::command_from(store::Command::decode(&*bytes).expect("what we encode we decode"));
    let again = again.unwrap_or_else(|why| panic!("{why}: {command:?}"));
    assert_eq!(again, command);
    assert_eq!(convert::command_to(&again).encode_to_vec(), bytes, "equal commands have equal bytes");
}

fn entry(bytes: &[u8]) {
    let Ok(message) = store::RaftEntry::decode(bytes) else { return };
    let Ok(entry) = wire::entry_from(message) else { return };
    let bytes = wire::entry_to(&entry).encode_to_vec();
    let again = wire::entry_from(store::RaftEntry::decode(&*bytes).expect("what we encode we decode"));
    let again = again.unwrap_or_else(|why| panic!("{why}: {entry:?}"));
    assert_eq!(again, entry);
    assert_eq!(wire::entry_to(&again).encode_to_vec(), bytes, "equal entries have equal bytes");
}

fn resource(bytes: &[u8]) {
    let Ok(message) = admin::Resource::decode(bytes) else { return };
    let Ok(resource) = convert::resource_from(message) else { return };
    let again = convert::resource_from(convert::resource_to(&resource));
    assert_eq!(again.unwrap_or_else(|why| panic!("{why}: {resource:?}")), resource);
}

/// Length-delimited records, as a snapshot has them.
fn snapshot(mut bytes: &[u8]) {
    let mut rebuild = Rebuild::default();
    while !bytes.is_empty() {
        let Ok(record) = store::SnapshotRecord::decode_length_delimited(&mut bytes) else { return };
        if rebuild.push(record).is_err() {
            return;
        }
    }
    let Ok(state) = rebuild.finish() else { return };
    let again = rebuilt(&state);
    assert_eq!(again.hash(), state.hash(), "the state of its own snapshot");
}

/// The state that a snapshot of this one comes to.
pub fn rebuilt(state: &State) -> State {
    let mut rebuild = Rebuild::default();
    for record in records(state) {
        let bytes = record.encode_to_vec();
        let record = store::SnapshotRecord::decode(&*bytes).expect("what we encode we decode");
        rebuild.push(record).unwrap_or_else(|why| panic!("{why} in the snapshot of {state:?}"));
    }
    rebuild.finish().unwrap_or_else(|why| panic!("{why} at the end of the snapshot of {state:?}"))
}

/// As found on a disk; and as we would have written it, with one bit turned.
fn log(bytes: &[u8]) {
    if let Some((framed, again)) = fuzzing::record(bytes, 0) {
        assert_eq!(bytes[..framed], again, "a record is written as it was read");
    }
    let Some((&[kind, at, bit], body)) = bytes.split_first_chunk::<3>() else { return };
    let framed = fuzzing::framed(kind % 7 + 1, body, 7);
    assert_eq!(fuzzing::record(&framed, 7), Some((framed.len(), framed.clone())));
    assert_eq!(fuzzing::record(&framed, 8), None, "a record of another segment");
    for cut in 0..framed.len() {
        assert_eq!(fuzzing::record(&framed[..cut], 7), None, "a record cut at {cut}");
    }
    let mut turned = framed;
    let at = usize::from(at) % turned.len();
    turned[at] ^= 1 << (bit % 8);
    assert_eq!(fuzzing::record(&turned, 7), None, "a record with a bit turned at {at}");
}

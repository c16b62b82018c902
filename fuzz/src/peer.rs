//! Frames of peers: no length is believed beyond what is allowed, no message changes on its way through our types, and
//! nobody passes for somebody else.

use prost::Message;
use quorumgate_node::{
    fuzzing,
    peer::{
        frame::{STRANGER_FRAME_MAX, body_bytes},
        hello::{Me, PROTOCOL},
    },
};
use quorumgate_proto::peer::v1::{self as pb, request::Call, response::Answer};

const ME: Me = Me { cluster: *b"a cluster's id..", node: 2, incarnation: [9; 16] };

/// A stream of frames. The first byte of each body says which message it is.
pub fn check(input: &[u8]) {
    let mut left = input;
    while let Some((head, rest)) = left.split_first_chunk::<4>() {
        let said = u32::from_be_bytes(*head) as usize;
        let Ok(bytes) = body_bytes(*head, STRANGER_FRAME_MAX) else {
            assert!(said > STRANGER_FRAME_MAX);
            return;
        };
        assert!(bytes == said && bytes <= STRANGER_FRAME_MAX);
        let Some((body, rest)) = rest.split_at_checked(bytes) else { return };
        left = rest;
        match body.split_first() {
            Some((0, body)) => hello(body),
            Some((1, body)) => request(body),
            Some((_, body)) => response(body),
            None => {}
        }
    }
}

fn decoded<M: Message + Default>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    let encoded = message.encode_to_vec();
    let again = M::decode(&*encoded).expect("what we encode we decode");
    // By their bytes: not every number equals itself.
    assert_eq!(again.encode_to_vec(), encoded, "a message is another one after a round");
    Some(message)
}

fn hello(body: &[u8]) {
    let Some(hello) = decoded::<pb::Hello>(body) else { return };
    if ME.check(&hello, Some(3)).is_ok() {
        assert!(hello.protocol == PROTOCOL && hello.cluster_id == ME.cluster && hello.node_id == 3, "{hello:?}");
    }
    if ME.check(&hello, None).is_ok() {
        assert!(hello.protocol == PROTOCOL && hello.cluster_id == ME.cluster && hello.dialled_id == 2, "{hello:?}");
    }
}

/// A message that our types take comes out of them as it was put in, whatever it was before.
fn stable<M: PartialEq + std::fmt::Debug + Clone>(through: impl Fn(M) -> Result<M, String>, message: M) {
    if let Ok(once) = through(message) {
        assert_eq!(through(once.clone()), Ok(once));
    }
}

fn request(body: &[u8]) {
    match decoded::<pb::Request>(body).and_then(|it| it.call) {
        Some(Call::Append(it)) => stable(fuzzing::append, it),
        Some(Call::Vote(it) | Call::PreVote(it)) => stable(fuzzing::vote_request, it),
        Some(Call::TransferLeader(it)) => stable(fuzzing::transfer_leader, it),
        _ => {}
    }
}

fn response(body: &[u8]) {
    match decoded::<pb::Response>(body).and_then(|it| it.answer) {
        Some(Answer::Append(it)) => stable(fuzzing::appended, it),
        Some(Answer::Vote(it)) => stable(fuzzing::vote_response, it),
        _ => {}
    }
}

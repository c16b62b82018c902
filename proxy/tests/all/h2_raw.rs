//! HTTP/2 as bytes, for what no library would send.
#![allow(dead_code)]

use crate::support::soon;
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;

pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const ENHANCE_YOUR_CALM: u32 = 0xb;

/// Indexes of HPACK's static table.
pub const GET: u8 = 2;
pub const POST: u8 = 3;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `:method`, `:scheme http`, `:path /`, `:authority a`.
pub fn fields(method: u8) -> Vec<u8> {
    vec![0x80 | method, 0x86, 0x84, 0x01, 0x01, b'a']
}

/// One field, literally.
pub fn field(name: &str, value: &[u8]) -> Vec<u8> {
    let length = |it: usize| u8::try_from(it).ok().filter(|it| *it < 0x7f).unwrap();
    [&[0, length(name.len())], name.as_bytes(), &[length(value.len())], value].concat()
}

pub fn head(stream: u32, method: u8, flags: u8) -> Vec<u8> {
    frame(HEADERS, flags, stream, &fields(method))
}

/// What the gateway said.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The code of its last GOAWAY.
    pub go_away: Option<u32>,
    /// Streams and the codes with which it reset them.
    pub resets: Vec<(u32, u32)>,
    /// Streams and the first byte of their answer's head, which is an index for the usual statuses.
    pub answers: Vec<(u32, u8)>,
}

/// Of whole frames.
pub fn heard_of(mut said: &[u8]) -> Heard {
    let mut heard = Heard::default();
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    while said.len() >= 9 {
        let length = number(&[&[0], &said[..3]].concat()) as usize;
        let Some(payload) = said.get(9..9 + length) else { break };
        let stream = number(&said[5..9]);
        match said[3] {
            HEADERS => heard.answers.push((stream, payload[0])),
            RST_STREAM => heard.resets.push((stream, number(payload))),
            GOAWAY => heard.go_away = Some(number(&payload[4..8])),
            _ => (),
        }
        said = &said[9 + length..];
    }
    heard
}

/// Sends a preface and then `bytes`, and listens until there is something to hear, or the end.
pub async fn talk(gateway: SocketAddr, bytes: &[u8]) -> Heard {
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    // The gateway may be done with it before it has read all.
    let _ = stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), bytes].concat()).await;
    let mut said = Vec::new();
    loop {
        let mut part = [0; 4096];
        match soon("what the gateway says", stream.read(&mut part)).await {
            Ok(n @ 1..) => said.extend_from_slice(&part[..n]),
            _ => return heard_of(&said),
        }
        let heard = heard_of(&said);
        if heard != Heard::default() {
            return heard;
        }
    }
}

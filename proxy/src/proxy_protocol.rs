//! The PROXY header that a balancer sends before anything else (the PROXY protocol, versions 1 and 2): whose connection
//! it is. Read from trusted peers only, and from those always: to guess would let a client write it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// With its CR LF (section 2.1).
const V1_BYTES_MAX: usize = 107;
const V2_HEAD_BYTES: usize = 16;
/// Addresses and extensions; balancers send a few hundred bytes.
const V2_BODY_BYTES_MAX: usize = 4 << 10;
const HEADER_BYTES_MAX: usize = V2_HEAD_BYTES + V2_BODY_BYTES_MAX;
const TYPE_CRC32C: u8 = 0x03;

/// What some first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// A header of this many bytes. None: the balancer speaks for itself, or will not say.
    Header {
        bytes: usize,
        client: Option<SocketAddr>,
    },
    Unfinished,
    Wrong,
}

/// Takes the header off the stream, and not a byte more. None: keep the peer's own address.
pub(crate) async fn read(stream: &mut TcpStream, limit: Duration) -> io::Result<Option<SocketAddr>> {
    timeout(limit, read_header(stream)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn read_header(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut header = [0; HEADER_BYTES_MAX];
    let mut have = 0;
    loop {
        let seen = have + stream.peek(&mut header[have..]).await?;
        if seen == have {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let said = parse(&header[..seen]);
        // What was looked at is the header's own, up to its end.
        let taken = match said {
            Said::Header { bytes, .. } => bytes,
            Said::Unfinished => seen,
            Said::Wrong => return Err(io::ErrorKind::InvalidData.into()),
        };
        stream.read_exact(&mut header[have..taken]).await?;
        have = taken;
        match said {
            Said::Header { client, .. } => return Ok(client),
            _ if have == HEADER_BYTES_MAX => return Err(io::ErrorKind::InvalidData.into()),
            _ => {}
        }
    }
}

pub(crate) fn parse(bytes: &[u8]) -> Said {
    let common = bytes.len().min(V2_SIGNATURE.len());
    if bytes[..common] == V2_SIGNATURE[..common] {
        return if common == V2_SIGNATURE.len() { parse_v2(bytes) } else { Said::Unfinished };
    }
    parse_v1(bytes)
}

fn parse_v1(bytes: &[u8]) -> Said {
    const BEGIN: &[u8] = b"PROXY ";
    let common = bytes.len().min(BEGIN.len());
    if bytes[..common] != BEGIN[..common] {
        return Said::Wrong;
    }
    let window = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() >= V1_BYTES_MAX { Said::Wrong } else { Said::Unfinished };
    };
    let Ok(line) = std::str::from_utf8(&window[BEGIN.len()..end]) else { return Said::Wrong };
    let bytes = end + 2;
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Said::Header { bytes, client: None };
    }
    match v1_client(line) {
        Some(client) => Said::Header { bytes, client: Some(client) },
        None => Said::Wrong,
    }
}

/// `TCP4 192.0.2.1 192.0.2.2 56324 443`, with single spaces.
fn v1_client(line: &str) -> Option<SocketAddr> {
    let words: Vec<&str> = line.split(' ').collect();
    let [family, source, target, source_port, target_port] = words[..] else { return None };
    let port = |text: &str| -> Option<u16> {
        let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        text.parse().ok().filter(|_| plain)
    };
    port(target_port)?;
    let client: IpAddr = match family {
        "TCP4" => target.parse::<Ipv4Addr>().and(source.parse::<Ipv4Addr>()).ok()?.into(),
        "TCP6" => target.parse::<Ipv6Addr>().and(source.parse::<Ipv6Addr>()).ok()?.into(),
        _ => return None,
    };
    Some(SocketAddr::new(client, port(source_port)?))
}

fn parse_v2(bytes: &[u8]) -> Said {
    let Some(head) = bytes.first_chunk::<V2_HEAD_BYTES>() else { return Said::Unfinished };
    let body_bytes = usize::from(u16::from_be_bytes([head[14], head[15]]));
    let local = match head[12] {
        0x20 => true,
        0x21 => false,
        _ => return Said::Wrong,
    };
    if body_bytes > V2_BODY_BYTES_MAX {
        return Said::Wrong;
    }
    let whole = V2_HEAD_BYTES + body_bytes;
    let Some(header) = bytes.get(..whole) else { return Said::Unfinished };
    let body = &header[V2_HEAD_BYTES..];
    let (client, address_bytes) = match head[13] {
        // TCP over IPv4 and IPv6: source, target, and the two ports.
        0x11 if body.len() >= 12 => {
            let ip: [u8; 4] = body[..4].try_into().expect("twelve bytes begin with four");
            (Some(SocketAddr::new(ip.into(), u16::from_be_bytes([body[8], body[9]]))), 12)
        }
        0x21 if body.len() >= 36 => {
            let ip: [u8; 16] = body[..16].try_into().expect("36 bytes begin with sixteen");
            (Some(SocketAddr::new(ip.into(), u16::from_be_bytes([body[32], body[33]]))), 36)
        }
        0x11 | 0x21 if !local => return Said::Wrong,
        // UDP, unix sockets and what is not said: the connection's own address it is.
        _ => (None, body.len()),
    };
    match is_intact(header, V2_HEAD_BYTES + address_bytes) {
        true => Said::Header { bytes: whole, client: client.filter(|_| !local) },
        false => Said::Wrong,
    }
}

/// The extensions are well formed, and the checksum, if there is one, is right (section 2.2.3).
fn is_intact(header: &[u8], mut at: usize) -> bool {
    while at < header.len() {
        let Some([kind, high, low]) = header.get(at..at + 3) else { return false };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let value = at + 3;
        if value + len > header.len() {
            return false;
        }
        if *kind == TYPE_CRC32C {
            let Ok(sum) = <[u8; 4]>::try_from(&header[value..value + len]) else { return false };
            let mut blank = header.to_vec();
            blank[value..value + 4].fill(0);
            if crc32c::crc32c(&blank) != u32::from_be_bytes(sum) {
                return false;
            }
        }
        at = value + len;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: Said) {
        assert_eq!(parse(bytes), expected, "{bytes:?}");
    }

    fn client(bytes: usize, address: &str) -> Said {
        Said::Header { bytes, client: Some(address.parse().unwrap()) }
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let len = (body.len() as u16).to_be_bytes();
        [&V2_SIGNATURE[..], &[command, family], &len, body].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0x1f, 0x90, 1, 187];

    #[test]
    fn version_1_is_a_line_and_nothing_else() {
        let line = "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n";
        check(line.as_bytes(), client(line.len(), "192.0.2.1:56324"));
        check(format!("{line}GET / HTTP/1.1\r\n").as_bytes(), client(line.len(), "192.0.2.1:56324"));
        let v6 = "PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n";
        check(v6.as_bytes(), client(v6.len(), "[2001:db8::1]:1"));
        check(b"PROXY UNKNOWN\r\n", Said::Header { bytes: 15, client: None });
        check(b"PROXY UNKNOWN a b c\r\nx", Said::Header { bytes: 21, client: None });
        for len in 1..line.len() {
            check(&line.as_bytes()[..len], Said::Unfinished);
        }
        for wrong in [
            "GET / HTTP/1.1\r\n",
            "proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
            "PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n\r\n",
            "\u{16}\u{3}\u{1}",
        ] {
            check(wrong.as_bytes(), Said::Wrong);
        }
        check(&[b"PROXY UNKNOWN ".as_slice(), &[b'x'; V1_BYTES_MAX]].concat(), Said::Wrong);
    }

    #[test]
    fn version_2_says_how_long_it_is() {
        let header = v2(0x21, 0x11, &V4);
        check(&header, client(28, "192.0.2.1:8080"));
        check(&[&header[..], b"GET"].concat(), client(28, "192.0.2.1:8080"));
        let mut v6 = [0; 36];
        v6[15] = 1;
        v6[33] = 80;
        check(&v2(0x21, 0x21, &v6), client(52, "[::1]:80"));
        // The balancer's own health check, and what is no TCP.
        check(&v2(0x20, 0, &[]), Said::Header { bytes: 16, client: None });
        check(&v2(0x20, 0x11, &V4), Said::Header { bytes: 28, client: None });
        check(&v2(0x21, 0x31, &[0; 216]), Said::Header { bytes: 232, client: None });
        for len in 1..header.len() {
            check(&header[..len], Said::Unfinished);
        }
        check(&v2(0x11, 0x11, &V4), Said::Wrong);
        check(&v2(0x22, 0x11, &V4), Said::Wrong);
        check(&v2(0x21, 0x11, &V4[..11]), Said::Wrong);
        check(&v2(0x21, 0x21, &V4), Said::Wrong);
        check(&v2(0x21, 0x11, &[0; V2_BODY_BYTES_MAX + 1]), Said::Wrong);
    }

    #[test]
    fn extensions_are_skipped_and_a_checksum_is_checked() {
        let with = |rest: &[u8]| v2(0x21, 0x11, &[&V4[..], rest].concat());
        check(&with(&[1, 0, 2, b'h', b'2']), client(33, "192.0.2.1:8080"));
        check(&with(&[1, 0, 3, b'h', b'2']), Said::Wrong);
        check(&with(&[1, 0]), Said::Wrong);
        let blank = with(&[TYPE_CRC32C, 0, 4, 0, 0, 0, 0]);
        let sum = crc32c::crc32c(&blank).to_be_bytes();
        let right = [&blank[..blank.len() - 4], &sum].concat();
        check(&right, client(35, "192.0.2.1:8080"));
        check(&blank, Said::Wrong);
    }
}

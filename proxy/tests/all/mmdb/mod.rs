//! Small files in MaxMind's format (MMDB 2.0), as `proxy.geo` names them.

/// A text or a name, as the format has it.
pub fn text(text: &str) -> Vec<u8> {
    let mut bytes = vec![0x40 | text.len() as u8];
    bytes.extend(text.as_bytes());
    bytes
}

pub fn map(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![0xe0 | pairs.len() as u8];
    pairs.iter().for_each(|(key, value)| {
        bytes.extend(text(key));
        bytes.extend(value);
    });
    bytes
}

pub fn u16(number: u16) -> Vec<u8> {
    [&[0xa2][..], &number.to_be_bytes()].concat()
}

pub fn u32(number: u32) -> Vec<u8> {
    [&[0xc4][..], &number.to_be_bytes()].concat()
}

/// Of two halves of IPv4, with records of 24 bits.
pub fn database(low: &[u8], high: &[u8]) -> Vec<u8> {
    let (nodes, separator) = (1u32, 16u32);
    let record = |offset: usize| (nodes + separator + offset as u32).to_be_bytes()[1..].to_vec();
    let mut bytes = [record(0), record(low.len())].concat();
    bytes.extend([0; 16]);
    bytes.extend([low, high].concat());
    bytes.extend(b"\xab\xcd\xefMaxMind.com");
    bytes.extend(map(&[
        ("binary_format_major_version", u16(2)),
        ("binary_format_minor_version", u16(0)),
        ("build_epoch", vec![4, 2, 0, 0, 0, 1]),
        ("database_type", text("Test")),
        ("description", map(&[])),
        ("ip_version", u16(4)),
        ("languages", vec![0, 4]),
        ("node_count", u32(nodes)),
        ("record_size", u16(24)),
    ]));
    bytes
}

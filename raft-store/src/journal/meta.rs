//! What the journal knows of itself: whether it was closed in good order, and counts that are found again when lost.

/// In bincode, since it is this node's alone and can be rebuilt; its shape is part of the bytes, and bytes of another
/// shape are nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, bincode::Encode, bincode::Decode)]
pub(super) struct Meta {
    /// Everything that was recorded up to this entry is durable.
    pub synced_index: u64,
    /// Bytes of audit records.
    pub audit_bytes: u64,
    /// Closed in good order, and not opened since.
    pub clean: bool,
}

const SHAPE: &[u8] = b"Meta{synced_index:u64,audit_bytes:u64,clean:bool}";
const BYTES_MAX: usize = 64;

impl Meta {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = crc32c::crc32c(SHAPE).to_le_bytes().to_vec();
        bytes.extend(bincode::encode_to_vec(self, config()).expect("three numbers fit into the limit"));
        bytes
    }

    /// None for anything but exactly one value of this shape.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let content = bytes.strip_prefix(&crc32c::crc32c(SHAPE).to_le_bytes())?;
        let (meta, consumed) = bincode::decode_from_slice(content, config()).ok()?;
        (consumed == content.len()).then_some(meta)
    }
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<BYTES_MAX>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_nothing_but_its_own_bytes() {
        let meta = Meta { synced_index: 300, audit_bytes: u64::MAX, clean: true };
        let bytes = meta.encode();
        assert_eq!(Meta::decode(&bytes), Some(meta));
        for cut in 0..bytes.len() {
            assert_eq!(Meta::decode(&bytes[..cut]), None);
        }
        assert_eq!(Meta::decode(&[bytes.as_slice(), &[0]].concat()), None);
        assert_eq!(Meta::decode(&[0xff; 64]), None);
    }
}

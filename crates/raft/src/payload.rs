//! Many commands in one entry.
//!
//! ```text
//! payload = version u8 │ (len u32 │ command)*          little endian; an empty payload: no command
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

const VERSION: u8 = 1;

/// What stands in front of each command.
pub(crate) const COMMAND_HEAD: usize = size_of::<u32>();

/// Puts commands into one payload.
pub fn encode(commands: &[Bytes]) -> Bytes {
    let size = commands.iter().map(|command| COMMAND_HEAD + command.len()).sum::<usize>();
    let mut payload = BytesMut::with_capacity(1 + size);
    payload.put_u8(VERSION);
    for command in commands {
        payload.put_u32_le(u32::try_from(command.len()).expect("commands are limited to 1 GiB"));
        payload.put_slice(command);
    }
    payload.freeze()
}

/// Takes a payload apart, without copying; `None` where it does not read.
pub fn decode(mut payload: Bytes) -> Option<Vec<Bytes>> {
    if payload.is_empty() {
        return Some(Vec::new());
    }
    if payload.get_u8() != VERSION {
        return None;
    }
    let mut commands = Vec::new();
    while payload.has_remaining() {
        let len = payload.try_get_u32_le().ok()? as usize;
        if payload.len() < len {
            return None;
        }
        commands.push(payload.split_to(len));
    }
    Some(commands)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn commands_come_back(commands in proptest::collection::vec(any::<Vec<u8>>(), 0..20)) {
            let commands: Vec<Bytes> = commands.into_iter().map(Bytes::from).collect();
            prop_assert_eq!(decode(encode(&commands)), Some(commands));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let commands = decode(Bytes::from(bytes.clone()));
            if let Some(commands) = commands.filter(|_| !bytes.is_empty()) {
                prop_assert_eq!(encode(&commands), bytes);
            }
        }
    }
}

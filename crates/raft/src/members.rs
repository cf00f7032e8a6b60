//! The members of a cluster as bytes, for the state machine to keep.
//!
//! ```text
//! version u8 │ leaves joint by itself u8 │ 4 × (count u16 │ id u64 …)          little endian
//!             voters, learners, outgoing voters, next learners
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft::eraftpb::ConfState;

const VERSION: u8 = 1;

pub(crate) fn of_voters(voters: &[u64]) -> ConfState {
    ConfState::from((voters.to_vec(), Vec::new()))
}

pub(crate) fn encode(members: &ConfState) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(VERSION);
    bytes.put_u8(members.auto_leave.into());
    for ids in
        [&members.voters, &members.learners, &members.voters_outgoing, &members.learners_next]
    {
        bytes.put_u16_le(u16::try_from(ids.len()).expect("clusters have a handful of members"));
        ids.iter().for_each(|id| bytes.put_u64_le(*id));
    }
    bytes.freeze()
}

pub(crate) fn decode(mut bytes: Bytes) -> Option<ConfState> {
    if bytes.try_get_u8().ok()? != VERSION {
        return None;
    }
    let auto_leave = bytes.try_get_u8().ok()? != 0;
    let mut lists = [const { Vec::new() }; 4];
    for ids in &mut lists {
        let count = bytes.try_get_u16_le().ok()?;
        *ids = (0..count).map(|_| bytes.try_get_u64_le()).collect::<Result<_, _>>().ok()?;
    }
    let [voters, learners, outgoing, next] = lists;
    let mut members = ConfState::from((voters, learners));
    members.set_voters_outgoing(outgoing);
    members.set_learners_next(next);
    members.set_auto_leave(auto_leave);
    (!bytes.has_remaining()).then_some(members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn members_come_back(voters: Vec<u64>, learners: Vec<u64>, auto_leave: bool) {
            let mut members = ConfState::from((voters, learners));
            members.set_auto_leave(auto_leave);
            prop_assert_eq!(decode(encode(&members)), Some(members));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = decode(Bytes::from(bytes));
        }
    }
}

//! Watch answers as bytes. Events were encoded once, for all their watchers; here they are copied in.

use bytes::{BufMut, BytesMut};
use chronolith_proto::etcdserverpb::{ResponseHeader, WatchResponse};
use chronolith_store::watch::EventBatch;
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};

use crate::call::put_prefix;

// Field numbers of `WatchResponse`.
const HEADER: u32 = 1;
const WATCH_ID: u32 = 2;
const FRAGMENT: u32 = 7;
const EVENTS: u32 = 11;

/// Appends any answer.
pub(super) fn push(out: &mut BytesMut, response: &WatchResponse) {
    let length = response.encoded_len();
    out.reserve(length + 5);
    put_prefix(out, length);
    response.encode_raw(out);
}

/// Appends an answer with all events of a batch.
pub(super) fn push_events(
    out: &mut BytesMut,
    header: &ResponseHeader,
    watch_id: i64,
    batch: &EventBatch,
) {
    push_head(out, header, watch_id, false, batch.encoded_events().len());
    out.put_slice(batch.encoded_events());
}

/// Appends the events of a batch as several answers, none of them larger than `max_bytes` unless a
/// single event is.
pub(super) fn push_fragments(
    out: &mut BytesMut,
    header: &ResponseHeader,
    watch_id: i64,
    batch: &EventBatch,
    max_bytes: usize,
) {
    let room = max_bytes.saturating_sub(head_len(header, watch_id, true));
    let mut events = BytesMut::new();
    for event in batch.events() {
        let bytes = event.encoded(batch.prev_kv());
        let length = key_len(EVENTS) + encoded_len_varint(bytes.len() as u64) + bytes.len();
        if !events.is_empty() && events.len() + length > room {
            push_head(out, header, watch_id, true, events.len());
            out.put_slice(&events.split());
        }
        encode_key(EVENTS, WireType::LengthDelimited, &mut events);
        encode_varint(bytes.len() as u64, &mut events);
        events.put_slice(bytes);
    }
    push_head(out, header, watch_id, false, events.len());
    out.put_slice(&events);
}

fn push_head(
    out: &mut BytesMut,
    header: &ResponseHeader,
    watch_id: i64,
    fragment: bool,
    events_bytes: usize,
) {
    let length = head_len(header, watch_id, fragment) + events_bytes;
    out.reserve(length + 5);
    put_prefix(out, length);
    encode_key(HEADER, WireType::LengthDelimited, out);
    encode_varint(header.encoded_len() as u64, out);
    header.encode_raw(out);
    if watch_id != 0 {
        encode_key(WATCH_ID, WireType::Varint, out);
        // Negative numbers travel in two's complement.
        encode_varint(watch_id.cast_unsigned(), out);
    }
    if fragment {
        encode_key(FRAGMENT, WireType::Varint, out);
        encode_varint(1, out);
    }
}

fn head_len(header: &ResponseHeader, watch_id: i64, fragment: bool) -> usize {
    let header_len = header.encoded_len();
    let mut length = key_len(HEADER) + encoded_len_varint(header_len as u64) + header_len;
    if watch_id != 0 {
        length += key_len(WATCH_ID) + encoded_len_varint(watch_id.cast_unsigned());
    }
    if fragment {
        length += key_len(FRAGMENT) + 1;
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Buf;

    fn decode(mut bytes: &[u8]) -> WatchResponse {
        assert_eq!(bytes.get_u8(), 0);
        let length = bytes.get_u32() as usize;
        assert_eq!(bytes.len(), length);
        WatchResponse::decode(bytes).unwrap()
    }

    #[test]
    fn a_head_written_by_hand_reads_as_the_message() {
        let header =
            ResponseHeader { cluster_id: 1, member_id: u64::MAX, revision: 9, raft_term: 2 };
        for (watch_id, fragment) in [(0, false), (7, true), (-1, false), (i64::MAX, true)] {
            let mut out = BytesMut::new();
            push_head(&mut out, &header, watch_id, fragment, 0);
            let expected = WatchResponse {
                header: Some(header),
                watch_id,
                fragment,
                ..WatchResponse::default()
            };
            assert_eq!(decode(&out), expected);
        }
    }
}

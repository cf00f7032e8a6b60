//! The messages as JSON, in the form of etcd's own gateway: bytes are base64, 64-bit numbers are strings,
//! and what is zero or empty is left out. Numbers are accepted as numbers, too.

use crate::status::{Code, Status};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use chronolith_proto::{
    etcdserverpb::{PutRequest, PutResponse, ResponseHeader},
    history::{
        AuditCheckpointResponse, AuditQueryResponse, CheckpointResponse, ConsistencyResponse,
        DiffResponse, Difference, EraseRequest, EraseResponse, KeyHistoryResponse, KeyVersion,
        Moment, ProveResponse, RestorePrefixRequest, RestorePrefixResponse, RevisionRange,
        VerifiedGetResponse, VerifiedPutRequest, VerifiedPutResponse, moment,
    },
    mvccpb::KeyValue,
};
use serde_json::{Map, Value};

/// An object that leaves out what is zero or empty.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn with(mut self, name: &str, value: Value, is_default: bool) -> Self {
        if !is_default {
            self.0.insert(name.to_owned(), value);
        }
        self
    }

    fn int(self, name: &str, value: i64) -> Self {
        self.with(name, value.to_string().into(), value == 0)
    }

    fn uint(self, name: &str, value: u64) -> Self {
        self.with(name, value.to_string().into(), value == 0)
    }

    fn flag(self, name: &str, value: bool) -> Self {
        self.with(name, value.into(), !value)
    }

    fn text(self, name: &str, value: &str) -> Self {
        self.with(name, value.into(), value.is_empty())
    }

    fn bytes(self, name: &str, value: &[u8]) -> Self {
        self.with(name, base64(value), value.is_empty())
    }

    fn object(self, name: &str, value: Option<Object>) -> Self {
        match value {
            None => self,
            Some(value) => self.with(name, Value::Object(value.0), false),
        }
    }

    fn list(self, name: &str, values: Vec<Value>) -> Self {
        let is_empty = values.is_empty();
        self.with(name, Value::Array(values), is_empty)
    }

    fn header(self, header: Option<&ResponseHeader>) -> Self {
        let header = header.map(|header| {
            Object::default()
                .uint("cluster_id", header.cluster_id)
                .uint("member_id", header.member_id)
                .int("revision", header.revision)
                .uint("raft_term", header.raft_term)
        });
        self.object("header", header)
    }
}

fn base64(bytes: &[u8]) -> Value {
    BASE64_STANDARD.encode(bytes).into()
}

fn all_base64(all: &[Bytes]) -> Vec<Value> {
    all.iter().map(|bytes| base64(bytes)).collect()
}

fn numbers(all: &[i64]) -> Vec<Value> {
    all.iter().map(|number| number.to_string().into()).collect()
}

/// An answer that has a JSON form.
pub(super) trait Answer {
    fn to_json(&self) -> Value;
}

macro_rules! answers {
    ($($message:ty: |$it:ident| $object:expr;)*) => {
        $(impl Answer for $message {
            fn to_json(&self) -> Value {
                let $it = self;
                Value::Object($object.0)
            }
        })*
    };
}

answers! {
    CheckpointResponse: |it| Object::default()
        .text("note", &it.note)
        .text("verifier_key", &it.verifier_key);
    ConsistencyResponse: |it| Object::default()
        .list("hashes", all_base64(&it.hashes))
        .uint("to_size", it.to_size)
        .text("note", &it.note);
    ProveResponse: |it| Object::default()
        .header(it.header.as_ref())
        .bytes("bundle", &it.bundle)
        .text("proof_file", &it.proof_file);
    KeyHistoryResponse: |it| Object::default()
        .header(it.header.as_ref())
        .list("versions", it.versions.iter().map(version).collect())
        .flag("more", it.more);
    VerifiedGetResponse: |it| Object::default()
        .header(it.header.as_ref())
        .int("revision", it.revision)
        .object("kv", it.kv.as_ref().map(key_value))
        .bytes("bundle", &it.bundle)
        .text("note", &it.note)
        .list("consistency", all_base64(&it.consistency))
        .flag("erased", it.erased);
    VerifiedPutResponse: |it| Object::default()
        .object("put", it.put.as_ref().map(put))
        .bytes("bundle", &it.bundle)
        .text("note", &it.note)
        .list("consistency", all_base64(&it.consistency));
    DiffResponse: |it| Object::default()
        .header(it.header.as_ref())
        .int("from_revision", it.from_revision)
        .int("to_revision", it.to_revision)
        .list("differences", it.differences.iter().map(difference).collect())
        .flag("more", it.more);
    RestorePrefixResponse: |it| Object::default()
        .header(it.header.as_ref())
        .int("to_revision", it.to_revision)
        .int("new_revision", it.new_revision)
        .int("puts", it.puts)
        .int("deletes", it.deletes)
        .list("keys", all_base64(&it.keys))
        .list("new_revisions", numbers(&it.new_revisions));
    EraseResponse: |it| Object::default()
        .header(it.header.as_ref())
        .list("revisions", numbers(&it.revisions));
    // The lines as they stand in the files: byte for byte what the audit log's leaves are made of.
    AuditQueryResponse: |it| Object::default()
        .list("events", it.events.iter().map(|line| line.as_str().into()).collect())
        .uint("last_sequence", it.last_sequence)
        .flag("more", it.more);
    AuditCheckpointResponse: |it| Object::default()
        .text("note", &it.note)
        .text("verifier_key", &it.verifier_key)
        .list("consistency", all_base64(&it.consistency));
}

fn key_value(kv: &KeyValue) -> Object {
    Object::default()
        .bytes("key", &kv.key)
        .int("create_revision", kv.create_revision)
        .int("mod_revision", kv.mod_revision)
        .int("version", kv.version)
        .bytes("value", &kv.value)
        .int("lease", kv.lease)
}

fn put(put: &PutResponse) -> Object {
    Object::default()
        .header(put.header.as_ref())
        .object("prev_kv", put.prev_kv.as_ref().map(key_value))
}

fn version(version: &KeyVersion) -> Value {
    let object = Object::default()
        .int("revision", version.revision)
        .text("state", version.state().as_str_name())
        .bytes("value", &version.value)
        .int("create_revision", version.create_revision)
        .int("version", version.version)
        .int("lease", version.lease)
        .uint("time_ms", version.time_ms)
        .bytes("actor", &version.actor);
    Value::Object(object.0)
}

fn difference(difference: &Difference) -> Value {
    let object = Object::default()
        .bytes("key", &difference.key)
        .object("before", difference.before.as_ref().map(key_value))
        .object("after", difference.after.as_ref().map(key_value));
    Value::Object(object.0)
}

/// The fields of a request; each is taken once, and what is left over is refused.
pub(super) struct Fields(Map<String, Value>);

fn wrong(why: String) -> Status {
    Status::new(Code::InvalidArgument, format!("chronolith: {why}"))
}

impl Fields {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Status> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(wrong("the body is no JSON object".to_owned())),
            Err(error) => Err(wrong(format!("the body is no JSON: {error}"))),
        }
    }

    fn bytes(&mut self, name: &str) -> Result<Bytes, Status> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(Bytes::new()),
            Some(Value::String(text)) => BASE64_STANDARD
                .decode(text)
                .map(Bytes::from)
                .map_err(|_| wrong(format!("{name} is not base64, as all bytes are"))),
            Some(_) => Err(wrong(format!("{name} is not a string of base64"))),
        }
    }

    fn text(&mut self, name: &str) -> Result<String, Status> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(wrong(format!("{name} is not a string"))),
        }
    }

    fn flag(&mut self, name: &str) -> Result<bool, Status> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(wrong(format!("{name} is neither true nor false"))),
        }
    }

    fn number<T: std::str::FromStr>(&mut self, name: &str) -> Result<Option<T>, Status> {
        let text = match self.0.remove(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) => text,
            Some(Value::Number(number)) => number.to_string(),
            Some(_) => return Err(wrong(format!("{name} is not a number"))),
        };
        text.parse().map(Some).map_err(|_| wrong(format!("{name} {text:?} is not such a number")))
    }

    fn object(&mut self, name: &str) -> Result<Option<Fields>, Status> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(Fields(fields))),
            Some(_) => Err(wrong(format!("{name} is not an object"))),
        }
    }

    /// A field that is misspelt would be a request for something else.
    fn end(self) -> Result<(), Status> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(wrong(format!("there is no field {name:?} here"))),
        }
    }

    fn moment(&mut self, name: &str) -> Result<Option<Moment>, Status> {
        let Some(mut fields) = self.object(name)? else { return Ok(None) };
        let revision = fields.number("revision")?.map(moment::At::Revision);
        let time = fields.number("time_ms")?.map(moment::At::TimeMs);
        fields.end()?;
        match (revision, time) {
            (Some(_), Some(_)) => Err(wrong(format!("{name} is a revision or a time, not both"))),
            (at, other) => Ok(Some(Moment { at: at.or(other) })),
        }
    }
}

/// A request that can be read from JSON.
pub(super) trait Request: Sized {
    fn from_json(fields: Fields) -> Result<Self, Status>;
}

impl Request for VerifiedPutRequest {
    /// The fields of etcd's put, with `pinned_size` beside them.
    fn from_json(mut fields: Fields) -> Result<Self, Status> {
        let put = PutRequest {
            key: fields.bytes("key")?,
            value: fields.bytes("value")?,
            lease: fields.number("lease")?.unwrap_or_default(),
            prev_kv: fields.flag("prev_kv")?,
            ignore_value: fields.flag("ignore_value")?,
            ignore_lease: fields.flag("ignore_lease")?,
        };
        let pinned_size = fields.number("pinned_size")?.unwrap_or_default();
        fields.end()?;
        Ok(Self { put: Some(put), pinned_size })
    }
}

impl Request for RestorePrefixRequest {
    fn from_json(mut fields: Fields) -> Result<Self, Status> {
        let request = Self {
            prefix: fields.bytes("prefix")?,
            to: fields.moment("to")?,
            dry_run: fields.flag("dry_run")?,
        };
        fields.end()?;
        Ok(request)
    }
}

impl Request for EraseRequest {
    fn from_json(mut fields: Fields) -> Result<Self, Status> {
        let revisions = match fields.object("revisions")? {
            None => None,
            Some(mut range) => {
                let (from, to) = (range.number("from")?, range.number("to")?);
                range.end()?;
                let (Some(from), Some(to)) = (from, to) else {
                    return Err(wrong("revisions need from and to".to_owned()));
                };
                Some(RevisionRange { from, to })
            }
        };
        let request = Self { key: fields.bytes("key")?, revisions, reason: fields.text("reason")? };
        fields.end()?;
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<R: Request>(body: &str) -> Result<R, String> {
        Fields::parse(body.as_bytes()).and_then(R::from_json).map_err(|status| status.message)
    }

    #[test]
    fn requests_are_read_as_etcds_gateway_reads_them() {
        let request: VerifiedPutRequest =
            read(r#"{"key": "aw==", "value": "dg==", "lease": "7", "pinned_size": 9}"#).unwrap();
        let put = request.put.unwrap();
        assert_eq!((&put.key[..], &put.value[..], put.lease), (&b"k"[..], &b"v"[..], 7));
        assert_eq!(request.pinned_size, 9);
        let request: RestorePrefixRequest =
            read(r#"{"prefix": "YS8=", "to": {"time_ms": "5"}, "dry_run": true}"#).unwrap();
        assert_eq!(request.to.unwrap().at, Some(moment::At::TimeMs(5)));
        assert!(request.dry_run);
    }

    #[test]
    fn a_request_in_another_form_is_told_which_field_is_wrong() {
        let refused = |body| read::<VerifiedPutRequest>(body).unwrap_err();
        assert!(refused("[]").contains("no JSON object"));
        assert!(refused("{").contains("no JSON: "));
        assert!(refused(r#"{"key": "not base64!"}"#).contains("key is not base64"));
        assert!(refused(r#"{"kee": "aw=="}"#).contains("no field \"kee\""));
        assert!(refused(r#"{"lease": "x"}"#).contains("lease \"x\""));
        assert!(refused(r#"{"prev_kv": "yes"}"#).contains("prev_kv"));
        let both = r#"{"to": {"revision": 1, "time_ms": 1}}"#;
        assert!(read::<RestorePrefixRequest>(both).unwrap_err().contains("not both"));
        let open = r#"{"key": "aw==", "reason": "r", "revisions": {"from": 2}}"#;
        assert!(read::<EraseRequest>(open).unwrap_err().contains("from and to"));
    }

    #[test]
    fn answers_leave_out_what_is_zero_and_write_large_numbers_as_text() {
        let header = ResponseHeader { revision: 3, ..ResponseHeader::default() };
        let kv = KeyValue { key: "k".into(), mod_revision: 1 << 60, ..KeyValue::default() };
        let answer =
            VerifiedGetResponse { header: Some(header), kv: Some(kv), ..Default::default() };
        assert_eq!(
            answer.to_json().to_string(),
            r#"{"header":{"revision":"3"},"kv":{"key":"aw==","mod_revision":"1152921504606846976"}}"#
        );
    }
}

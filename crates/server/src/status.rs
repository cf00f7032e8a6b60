//! gRPC status: a code, a text, and how both travel in trailers.
//!
//! Clients of etcd match on code *and* text, so both are passed through untouched. The text is
//! percent-encoded on the wire as the gRPC specification asks.

use std::fmt;

use chronolith_store::StoreError;
use http::{HeaderMap, HeaderName, HeaderValue};

/// gRPC's status codes; the discriminant is the number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Code {
    pub(crate) const ALL: [Code; 17] = [
        Code::Ok,
        Code::Cancelled,
        Code::Unknown,
        Code::InvalidArgument,
        Code::DeadlineExceeded,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
        Code::Unauthenticated,
    ];

    /// The code's name as etcd's metrics label it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Code::Ok => "OK",
            Code::Cancelled => "Canceled",
            Code::Unknown => "Unknown",
            Code::InvalidArgument => "InvalidArgument",
            Code::DeadlineExceeded => "DeadlineExceeded",
            Code::NotFound => "NotFound",
            Code::AlreadyExists => "AlreadyExists",
            Code::PermissionDenied => "PermissionDenied",
            Code::ResourceExhausted => "ResourceExhausted",
            Code::FailedPrecondition => "FailedPrecondition",
            Code::Aborted => "Aborted",
            Code::OutOfRange => "OutOfRange",
            Code::Unimplemented => "Unimplemented",
            Code::Internal => "Internal",
            Code::Unavailable => "Unavailable",
            Code::DataLoss => "DataLoss",
            Code::Unauthenticated => "Unauthenticated",
        }
    }
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) code: Code,
    pub(crate) message: String,
}

impl Status {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Status { code, message: message.into() }
    }

    /// The client is gone: nobody will read this status.
    pub(crate) fn cancelled() -> Self {
        Status::new(Code::Cancelled, "context canceled")
    }

    /// What etcd says while it shuts down.
    pub(crate) fn stopped() -> Self {
        Status::new(Code::Unavailable, "etcdserver: server stopped")
    }

    /// The trailers that carry this status.
    pub(crate) fn trailers(&self) -> HeaderMap {
        let mut trailers = HeaderMap::with_capacity(2);
        trailers.insert(GRPC_STATUS, HeaderValue::from(self.code as u16));
        if !self.message.is_empty() {
            trailers.insert(GRPC_MESSAGE, percent_encode(&self.message));
        }
        trailers
    }
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        let (code, message) = error.status();
        Status { code: Code::from(code), message }
    }
}

impl From<chronolith_store::Code> for Code {
    fn from(code: chronolith_store::Code) -> Self {
        use chronolith_store::Code as Store;
        match code {
            Store::Unknown => Code::Unknown,
            Store::InvalidArgument => Code::InvalidArgument,
            Store::NotFound => Code::NotFound,
            Store::ResourceExhausted => Code::ResourceExhausted,
            Store::FailedPrecondition => Code::FailedPrecondition,
            Store::OutOfRange => Code::OutOfRange,
            Store::Internal => Code::Internal,
            Store::Unavailable => Code::Unavailable,
            Store::DataLoss => Code::DataLoss,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.label(), self.message)
    }
}

pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The trailers of every call that succeeded.
pub(crate) fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

/// Printable ASCII except `%` stands for itself; every other byte becomes `%XX`.
fn percent_encode(text: &str) -> HeaderValue {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            out.push(byte);
        } else {
            out.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
    HeaderValue::from_bytes(&out).expect("printable ASCII is a legal header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_outside_printable_ascii_is_percent_encoded() {
        assert_eq!(percent_encode("a b").as_bytes(), b"a b");
        assert_eq!(percent_encode("5%\n\u{e9}").as_bytes(), b"5%25%0A%C3%A9");
    }

    #[test]
    fn codes_are_numbered_as_grpc_numbers_them() {
        for (number, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, number);
        }
        let trailers = Status::new(Code::OutOfRange, "far").trailers();
        assert_eq!(trailers["grpc-status"], "11");
        assert_eq!(trailers["grpc-message"], "far");
    }
}

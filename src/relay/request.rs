//! A request as the spool keeps it: a short header and the body as it came.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use jiff::Timestamp;

/// How a body is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// `gzip`.
    Gzip,
    /// `deflate`: zlib's format.
    Deflate,
}

/// What MLflow gets of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An OTLP `ExportTraceServiceRequest` in protobuf.
    Spans(Encoding),
    /// A trace's row: StartTraceV3.
    Start,
    /// A trace's spans as a file.
    File,
    /// An assessment of a trace, with its id.
    Assessment,
    /// A tag of a trace that is set, or its end by an SDK 2.x: both may come twice.
    Change,
    /// A tag of a trace that is deleted.
    DeleteTag,
}

impl Kind {
    /// Whether it only adds to a trace that is there.
    pub fn is_follower(self) -> bool {
        matches!(self, Self::Assessment | Self::Change | Self::DeleteTag)
    }
}

/// A request on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRequest {
    /// When it came, in milliseconds since 1970.
    pub received: u64,
    /// What it is.
    pub kind: Kind,
    /// The trace that it is about; empty of spans, which may be of several.
    pub trace: String,
    /// The path below MLflow's address, of an assessment or a change.
    pub path: String,
    /// As it came.
    pub body: Bytes,
}

impl StoredRequest {
    /// A request that has just come.
    pub fn new(kind: Kind, trace: &str, path: &str, body: Bytes) -> Self {
        let received = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
        Self { received, kind, trace: trace.to_owned(), path: path.to_owned(), body }
    }

    /// How long it is there.
    pub fn age(&self) -> Duration {
        let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
        Duration::from_millis(now.saturating_sub(self.received))
    }

    /// What the spool keeps.
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(HEADER + self.trace.len() + self.path.len() + self.body.len());
        bytes.put_u8(FORMAT);
        bytes.put_u8(KINDS.iter().position(|kind| *kind == self.kind).unwrap_or_default() as u8);
        bytes.put_u64(self.received);
        for text in [&self.trace, &self.path] {
            bytes.put_u16(text.len() as u16);
            bytes.put_slice(text.as_bytes());
        }
        bytes.put(self.body.clone());
        bytes.freeze()
    }

    /// What [`Self::to_bytes`] made; `None` of what this version does not know.
    pub fn parse(bytes: &Bytes) -> Option<Self> {
        let mut rest = bytes.clone();
        if rest.try_get_u8().ok()? != FORMAT {
            return None;
        }
        let kind = *KINDS.get(usize::from(rest.try_get_u8().ok()?))?;
        let received = rest.try_get_u64().ok()?;
        let mut text = || {
            let length = usize::from(rest.try_get_u16().ok()?);
            (rest.len() >= length).then(|| rest.split_to(length)).and_then(|text| String::from_utf8(text.to_vec()).ok())
        };
        let (trace, path) = (text()?, text()?);
        Some(Self { received, kind, trace, path, body: rest })
    }
}

const FORMAT: u8 = 2;
const HEADER: usize = 14;
/// In the spool a kind is its place here.
const KINDS: [Kind; 8] = [
    Kind::Spans(Encoding::Identity),
    Kind::Spans(Encoding::Gzip),
    Kind::Spans(Encoding::Deflate),
    Kind::Start,
    Kind::File,
    Kind::Assessment,
    Kind::Change,
    Kind::DeleteTag,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_out_of_the_spool_as_it_went_in() {
        for kind in KINDS {
            let (trace, path) = ("tr-1".to_owned(), "/api/2.0/mlflow/traces/tr-1/tags".to_owned());
            let body = Bytes::from_static(b"\x0a\x00");
            let request = StoredRequest { received: 1_790_000_000_000, kind, trace, path, body };
            assert_eq!(StoredRequest::parse(&request.to_bytes()), Some(request));
        }
        for unknown in [
            &b""[..],
            b"\x02\x00",
            b"\x01\x00\0\0\0\0\0\0\0\0\0\0\0\0",
            b"\x02\x09\0\0\0\0\0\0\0\0\0\0\0\0",
            b"\x02\x00\0\0\0\0\0\0\0\0\0\x09ab",
        ] {
            assert_eq!(StoredRequest::parse(&Bytes::from_static(unknown)), None);
        }
    }
}

//! What agents send, read far enough to know that MLflow can read it.

use std::collections::BTreeMap;
use std::io::Read;

use bytes::Bytes;
use flate2::read::{GzDecoder, ZlibDecoder};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use super::request::Encoding;

/// Of spans, as the content type names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/x-protobuf`.
    Protobuf,
    /// `application/json`.
    Json,
}

/// Why spans are refused for good. An agent that sends the same again gets the same answer.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Another content type.
    #[error("Content-Type is \"{0}\": send application/x-protobuf or application/json")]
    ContentType(String),
    /// Another packing.
    #[error("Content-Encoding is \"{0}\": send gzip, deflate or none")]
    ContentEncoding(String),
    /// It does not unpack.
    #[error("the body does not unpack as its Content-Encoding says")]
    Packed(#[source] std::io::Error),
    /// Unpacked it is too large.
    #[error("the body has more than {MAX_UNPACKED} bytes: let the exporter send fewer spans at a time")]
    TooLarge,
    /// It is no OTLP in protobuf.
    #[error("the body is no OTLP ExportTraceServiceRequest in protobuf")]
    Protobuf(#[source] prost::DecodeError),
    /// It is no OTLP in JSON.
    #[error("the body is no OTLP ExportTraceServiceRequest in JSON")]
    Json(#[source] serde_json::Error),
}

/// The format that a content type names; without one protobuf, which all SDKs send.
pub fn format(content_type: &str) -> Result<Format, Unreadable> {
    match content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "" | "application/x-protobuf" | "application/protobuf" => Ok(Format::Protobuf),
        "application/json" => Ok(Format::Json),
        _ => Err(Unreadable::ContentType(content_type.chars().take(100).collect())),
    }
}

/// The packing that a content encoding names.
pub fn encoding(content_encoding: &str) -> Result<Encoding, Unreadable> {
    match content_encoding.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(Encoding::Identity),
        "gzip" | "x-gzip" => Ok(Encoding::Gzip),
        "deflate" => Ok(Encoding::Deflate),
        _ => Err(Unreadable::ContentEncoding(content_encoding.chars().take(100).collect())),
    }
}

/// The body as MLflow takes it.
pub fn unpack(encoding: Encoding, body: &Bytes) -> Result<Bytes, Unreadable> {
    let unpacked = match encoding {
        Encoding::Identity => return Ok(body.clone()),
        Encoding::Gzip => read(GzDecoder::new(body.as_ref())),
        Encoding::Deflate => read(ZlibDecoder::new(body.as_ref())),
    };
    let unpacked = unpacked.map_err(Unreadable::Packed)?;
    if unpacked.len() > MAX_UNPACKED { Err(Unreadable::TooLarge) } else { Ok(unpacked.into()) }
}

/// A trace of which spans came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// As MLflow writes its id.
    pub trace: String,
    /// Whether its root span is among them.
    pub is_root: bool,
}

/// What is kept and sent on: the body as it came if MLflow can read it, JSON as protobuf, which every MLflow takes. Of which traces
/// spans are in it comes with it.
pub fn check(format: Format, encoding: Encoding, body: Bytes) -> Result<(Encoding, Bytes, Vec<Seen>), Unreadable> {
    let unpacked = unpack(encoding, &body)?;
    match format {
        Format::Protobuf => Ok((encoding, body, seen(&unpacked)?)),
        Format::Json => {
            let spans: ExportTraceServiceRequest = serde_json::from_slice(&unpacked).map_err(Unreadable::Json)?;
            Ok((Encoding::Identity, spans.encode_to_vec().into(), traces(&spans)))
        }
    }
}

/// Of which traces spans are in a body in protobuf.
pub fn seen(unpacked: &Bytes) -> Result<Vec<Seen>, Unreadable> {
    ExportTraceServiceRequest::decode(unpacked.clone()).map(|spans| traces(&spans)).map_err(Unreadable::Protobuf)
}

fn traces(spans: &ExportTraceServiceRequest) -> Vec<Seen> {
    let mut seen: BTreeMap<&[u8], bool> = BTreeMap::new();
    for span in spans.resource_spans.iter().flat_map(|of| &of.scope_spans).flat_map(|of| &of.spans) {
        *seen.entry(&span.trace_id).or_default() |= span.parent_span_id.is_empty();
    }
    let id = |bytes: &[u8]| bytes.iter().fold("tr-".to_owned(), |id, byte| format!("{id}{byte:02x}"));
    seen.into_iter().map(|(trace, is_root)| Seen { trace: id(trace), is_root }).collect()
}

/// No more than is allowed and one byte, which shows that there is more.
fn read(reader: impl Read) -> std::io::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    reader.take(MAX_UNPACKED as u64 + 1).read_to_end(&mut unpacked)?;
    Ok(unpacked)
}

/// Bytes of a request when it is unpacked.
pub const MAX_UNPACKED: usize = 16 << 20;

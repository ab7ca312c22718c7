//! A request as the spool keeps it: a short header and the body as it came.

use bytes::{BufMut, Bytes, BytesMut};

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

/// Spans on their way: an OTLP `ExportTraceServiceRequest` in protobuf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanRequest {
    /// When it came, in milliseconds since 1970.
    pub received: u64,
    /// How the body is packed.
    pub encoding: Encoding,
    /// As it came.
    pub body: Bytes,
}

impl SpanRequest {
    /// What the spool keeps.
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(HEADER + self.body.len());
        bytes.put_u8(FORMAT);
        bytes.put_u8(match self.encoding {
            Encoding::Identity => 0,
            Encoding::Gzip => 1,
            Encoding::Deflate => 2,
        });
        bytes.put_u64(self.received);
        bytes.put(self.body.clone());
        bytes.freeze()
    }

    /// What [`Self::to_bytes`] made; `None` of what this version does not know.
    pub fn parse(bytes: &Bytes) -> Option<Self> {
        let (header, _) = bytes.split_first_chunk::<HEADER>()?;
        let [FORMAT, encoding, received @ ..] = *header else { return None };
        let encoding = match encoding {
            0 => Encoding::Identity,
            1 => Encoding::Gzip,
            2 => Encoding::Deflate,
            _ => return None,
        };
        Some(Self { received: u64::from_be_bytes(received), encoding, body: bytes.slice(HEADER..) })
    }
}

const FORMAT: u8 = 1;
const HEADER: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_out_of_the_spool_as_it_went_in() {
        for encoding in [Encoding::Identity, Encoding::Gzip, Encoding::Deflate] {
            let request = SpanRequest { received: 1_790_000_000_000, encoding, body: Bytes::from_static(b"\x0a\x00") };
            assert_eq!(SpanRequest::parse(&request.to_bytes()), Some(request));
        }
        for unknown in [&b""[..], b"\x01\x00", b"\x02\x00\0\0\0\0\0\0\0\0", b"\x01\x09\0\0\0\0\0\0\0\0"] {
            assert_eq!(SpanRequest::parse(&Bytes::from_static(unknown)), None);
        }
    }
}

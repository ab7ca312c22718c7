//! What comes before HTTP: handshakes that are none, old, slow or cut off.

use std::time::Duration;

use rustls::SupportedProtocolVersion;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};

use super::case::{Case, Dialect, Hears, Over, Say, TLS, client};
use super::request;

const OLDER: &[&SupportedProtocolVersion] = &[&TLS12];
const NEWER: &[&SupportedProtocolVersion] = &[&TLS13];

pub fn cases() -> Vec<Case> {
    [garbage(), hellos(), dialects()].into_iter().flatten().collect()
}

fn wire(name: &str, bytes: impl Into<Vec<u8>>) -> Case {
    Case::new(name, bytes, Hears::End).over(Over::Wire)
}

/// A record of TLS: its type, version and length as they are given.
fn record(kind: u8, version: [u8; 2], length: u16, content: &[u8]) -> Vec<u8> {
    [&[kind, version[0], version[1]][..], &length.to_be_bytes(), content].concat()
}

/// A whole record with a message of a handshake.
fn handshake(message: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len() as u32;
    let content = [&[message][..], &length.to_be_bytes()[1..], content].concat();
    record(22, [3, 1], content.len() as u16, &content)
}

fn garbage() -> Vec<Case> {
    let review = super::review().to_string();
    let huge = record(22, [3, 1], 16_384, &[&[1, 255, 255, 255][..], &[0; 16_380]].concat());
    vec![
        wire("a review without TLS", request("", &review)),
        wire("a GET without TLS", b"GET / HTTP/1.0\r\n\r\n".to_vec()),
        wire("the h2 preface without TLS", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        wire("NULs without TLS", vec![0; 64 << 10]),
        wire("bytes of all ones without TLS", vec![255; 64 << 10]),
        wire("a greeting of SSH", b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()),
        wire("a hello of SSL 2", b"\x80\x2e\x01\0\x02\0\x15\0\0\0\x10\x01\0\x80\x02\0\x80\x03\0\x80".to_vec()),
        wire("a record of SSL 3", record(22, [3, 0], 4, &[1, 0, 0, 0])),
        wire("a record without content", record(22, [3, 3], 0, &[])),
        wire("a thousand records without content", record(22, [3, 3], 0, &[]).repeat(1000)),
        wire("a record that is longer than records are", record(22, [3, 3], 65_535, &[0; 65_535])),
        wire("a record of no known kind", record(99, [3, 3], 4, &[0; 4])),
        wire("a record of a version that is to come", record(22, [9, 9], 4, &[1, 0, 0, 0])),
        wire("an alert before everything", record(21, [3, 3], 2, &[2, 40])),
        wire("application data before everything", record(23, [3, 3], 16, &[0; 16])),
        wire("a change of cipher before everything", record(20, [3, 3], 1, &[1])),
        wire("a message of a handshake that claims 16 MiB", huge.clone()),
        wire(
            "the same with as much of it as is taken",
            [huge, record(22, [3, 1], 16_384, &[0; 16_384]).repeat(63)].concat(),
        ),
        wire("a finish before a hello", handshake(20, &[0; 12])),
        wire("a server's hello from a client", handshake(2, &[0; 70])),
        wire("a request for renegotiation before a hello", handshake(0, &[])),
        wire("a certificate before a hello", handshake(11, &[0; 100])),
        wire("silence without a hello", Vec::new()),
        wire("a connection that ends at once", Vec::new()).and([Say::Finish]),
        Case { hears: Hears::Nothing, ..wire("a connection whose peer leaves at once", Vec::new()).and([Say::Leave]) },
    ]
}

fn hellos() -> Vec<Case> {
    let hello = hello();
    let half = hello.len() / 2;
    let second = Duration::from_secs(1);
    // Old clients have no list of versions: only that of the hello itself.
    let old = |minor: u8| {
        let suites = [0, 4, 0xc0, 0x09, 0, 0x2f];
        handshake(1, &[&[3, minor][..], &[7; 32], &[0], &suites, &[1, 0, 0, 0]].concat())
    };
    let changed = |at: usize, byte: u8| {
        let mut changed = hello.clone();
        changed[at] = byte;
        changed
    };
    vec![
        wire("a hello of SSL 3", old(0)),
        wire("a hello of TLS 1.0", old(1)),
        wire("a hello of TLS 1.1", old(2)),
        wire("a hello of TLS 1.2 with ciphers of yesterday", old(3)),
        wire("a hello without any cipher", handshake(1, &[&[3, 3][..], &[7; 32], &[0, 0, 0, 1, 0, 0, 0]].concat())),
        wire("a hello with a session of 255 bytes", changed(43, 255)),
        wire("a hello whose length lies", changed(8, 1)),
        wire("a hello whose message has another type", changed(5, 99)),
        wire("half a hello and the end", hello[..half].to_vec()).and([Say::Finish]),
        wire("half a hello and silence", hello[..half].to_vec()),
        wire("a hello a byte in half a second", hello[..1].to_vec())
            .and(hello[1..40].iter().flat_map(|byte| [Say::Pause(second / 2), Say::Bytes(vec![*byte])])),
        wire("a hello and silence", hello.clone()),
        wire("a hello twice", hello.repeat(2)),
        wire("a hello and HTTP behind it", [hello.clone(), b"GET / HTTP/1.1\r\n\r\n".to_vec()].concat()),
        wire("a hello and an alert behind it", [hello.clone(), record(21, [3, 3], 2, &[2, 0])].concat()),
        wire("a hello cut into records of one byte", {
            hello[5..].iter().flat_map(|byte| record(22, [3, 1], 1, &[*byte])).collect::<Vec<_>>()
        }),
    ]
}

fn dialects() -> Vec<Case> {
    let review = request("", super::review().to_string());
    let mut cases = Vec::new();
    let mut case = |name: &str, dialect, hears| {
        cases.push(Case::new(name, review.clone(), hears).over(Over::Tls(dialect)));
    };
    case("TLS 1.2 only", Dialect { versions: OLDER, ..TLS }, Hears::Patched);
    case("TLS 1.3 only", Dialect { versions: NEWER, ..TLS }, Hears::Patched);
    case("somebody else's server name", Dialect { server_name: "elsewhere.example.com", ..TLS }, Hears::Patched);
    case("an address in place of a server name", Dialect { server_name: "127.0.0.1", ..TLS }, Hears::Patched);
    case("HTTP/1.1 by ALPN", Dialect { protocols: &["http/1.1"], ..TLS }, Hears::Patched);
    case("h2 or HTTP/1.1 by ALPN, as Go asks", Dialect { protocols: &["h2", "http/1.1"], ..TLS }, Hears::Patched);
    case("only h2 by ALPN", Dialect { protocols: &["h2"], ..TLS }, Hears::End);
    case("only HTTP/1.0 by ALPN", Dialect { protocols: &["http/1.0"], ..TLS }, Hears::End);
    case("only a protocol by ALPN that nobody knows", Dialect { protocols: &["nonsense"], ..TLS }, Hears::End);
    for (name, then) in [
        ("HTTP below TLS after the handshake", &b"GET / HTTP/1.1\r\n\r\n"[..]),
        ("a record that nobody can decrypt", b"\x17\x03\x03\0\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        ("a record after the handshake that is too long", b"\x17\x03\x03\xff\xff"),
        ("a renegotiation in plain text", b"\x16\x03\x03\0\x04\x01\0\0\0"),
        ("an alert in plain text after the handshake", b"\x15\x03\x03\0\x02\x02\x28"),
    ] {
        case(name, Dialect { then: Some(then), ..TLS }, Hears::End);
        let older = format!("{name}, in TLS 1.2");
        case(&older, Dialect { then: Some(then), versions: OLDER, ..TLS }, Hears::End);
    }
    cases
}

/// A good one.
fn hello() -> Vec<u8> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = rustls::ClientConnection::new(client(&TLS).into(), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

//! HTTP that is bent, broken or old.

use std::time::Duration;

use super::case::{Case, Hears, Say};
use super::request;

pub fn cases() -> Vec<Case> {
    [lengths(), chunks(), headers(), lines(), order()].into_iter().flatten().collect()
}

fn codes<const N: usize>(codes: [u16; N]) -> Hears {
    Hears::Codes(codes.to_vec())
}

/// A POST with these header lines, each of which ends itself.
fn post(headers: &str, body: &[u8]) -> Vec<u8> {
    [format!("POST /mutate HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}\r\n").as_bytes(), body].concat()
}

/// The review as it is sent in chunks of this size.
fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let chunk = |part: &[u8]| [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
    [body.chunks(size).flat_map(chunk).collect(), b"0\r\n\r\n".to_vec()].concat()
}

fn lengths() -> Vec<Case> {
    let review = super::review().to_string().into_bytes();
    let (length, all) = (review.len(), chunked(&review, 4096));
    let mut cases = Vec::new();
    let mut case =
        |name: &str, headers: &str, body: &[u8], hears| cases.push(Case::new(name, post(headers, body), hears));
    let chunks = "transfer-encoding: chunked\r\n";
    for (name, value, hears) in [
        ("a length of words", "many", codes([400])),
        ("a length below zero", "-5", codes([400])),
        ("a length with a plus", "+5", codes([400])),
        ("a length in hexadecimal digits", "0x10", codes([400])),
        ("a length that is no integer", "5.0", codes([400])),
        ("a length that is empty", "", codes([400])),
        ("a length of two to the 64th", "18446744073709551616", codes([400])),
        ("the largest length of 64 bits", "18446744073709551615", codes([431])),
        ("a length of two to the 63rd", "9223372036854775808", codes([413])),
        ("a list of two lengths", "5, 5", codes([400])),
    ] {
        case(name, &format!("content-length: {value}\r\n"), b"", hears);
    }
    case("the same length twice", &format!("content-length: {length}\r\n").repeat(2), &review, Hears::Patched);
    case(
        "two lengths",
        &format!("content-length: {length}\r\ncontent-length: {}\r\n", length + 1),
        &review,
        codes([400]),
    );
    case("a length of zero and a review behind it", "content-length: 0\r\n", &review, codes([400]));
    case("no length and a review behind it", "", &review, codes([400]));
    case("a length after chunks, smuggled", &format!("{chunks}content-length: 6\r\n"), &all, Hears::Patched);
    case("a length before chunks, smuggled", &format!("content-length: 6\r\n{chunks}"), &all, Hears::Patched);
    case("a length of words beside chunks", &format!("{chunks}content-length: x\r\n"), &all, Hears::Patched);
    for (name, value, hears) in [
        ("an encoding of identity", "identity", codes([400])),
        ("an encoding of gzip alone", "gzip", codes([400])),
        ("chunks inside gzip", "chunked, gzip", codes([400])),
        ("gzip inside chunks that is none", "gzip, chunked", Hears::Patched),
        ("chunks in capitals", "CHUNKED", Hears::Patched),
        ("an encoding that only ends like chunks", "xchunked", codes([400])),
        ("chunks with a vertical tab", "\x0bchunked", codes([400])),
        ("chunks in quotes", "\"chunked\"", codes([400])),
        ("an encoding that is empty", "", codes([400])),
    ] {
        case(name, &format!("transfer-encoding: {value}\r\n"), &all, hears);
    }
    case("a space before the colon of the encoding", "transfer-encoding : chunked\r\n", &all, codes([400]));
    case("identity, then chunks", &format!("transfer-encoding: identity\r\n{chunks}"), &all, Hears::Patched);
    case("chunks, then identity", &format!("{chunks}transfer-encoding: identity\r\n"), &all, codes([400]));
    cases.push(Case::new(
        "chunks in HTTP/1.0",
        [b"POST /mutate HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(), all.clone()].concat(),
        codes([400]),
    ));
    cases
}

fn chunks() -> Vec<Case> {
    let review = super::review().to_string().into_bytes();
    let size = format!("{:x}", review.len());
    let whole = |before: &str, after: &str| [before.as_bytes(), &review, after.as_bytes()].concat();
    let mut cases = Vec::new();
    for (name, body, hears) in [
        ("chunks of one byte", chunked(&review, 1), Hears::Patched),
        ("a chunk of no hexadecimal size", b"zz\r\n".to_vec(), codes([400])),
        ("a chunk of a size below zero", b"-1\r\n".to_vec(), codes([400])),
        ("a chunk whose size has a prefix", whole(&format!("0x{size}\r\n"), "\r\n0\r\n\r\n"), codes([400])),
        ("a chunk without a size", b"\r\n".to_vec(), codes([400])),
        ("a chunk of 2 to the 64th", b"10000000000000000\r\n".to_vec(), codes([400])),
        ("a chunk with zeros before its size", whole(&format!("0000{size}\r\n"), "\r\n0\r\n\r\n"), Hears::Patched),
        ("a chunk with an extension", whole(&format!("{size};a=b\r\n"), "\r\n0\r\n\r\n"), Hears::Patched),
        ("an extension of 32 KiB", whole(&format!("{size};{}\r\n", "a".repeat(32 << 10)), ""), codes([400])),
        ("a chunk with a bare line feed", whole(&format!("{size}\n"), "\n0\n\n"), codes([400])),
        ("a chunk with a bare carriage return", whole(&format!("{size}\r"), "\r0\r\r"), codes([400])),
        ("a chunk longer than its size", whole("5\r\n", "\r\n0\r\n\r\n"), codes([400])),
        ("a space in the size of a chunk", whole(&format!("{} {}\r\n", &size[..1], &size[1..]), ""), codes([400])),
        ("trailers", whole(&format!("{size}\r\n"), "\r\n0\r\nchecked: yes\r\n\r\n"), Hears::Patched),
        (
            "trailers of 32 KiB",
            whole(&format!("{size}\r\n"), &format!("\r\n0\r\na: {}\r\n\r\n", "a".repeat(32 << 10))),
            codes([400]),
        ),
        (
            "a thousand trailers",
            whole(&format!("{size}\r\n"), &format!("\r\n0\r\n{}\r\n", "a: b\r\n".repeat(1000))),
            codes([400]),
        ),
        ("no chunk but the last", b"0\r\n\r\n".to_vec(), codes([400])),
    ] {
        cases.push(Case::new(name, post("transfer-encoding: chunked\r\n", &body), hears));
    }
    for (name, body) in [
        ("chunks without a last one", whole(&format!("{size}\r\n"), "\r\n")),
        ("a chunk shorter than its size", b"ff\r\n{".to_vec()),
        ("the largest chunk of 64 bits", b"ffffffffffffffff\r\n{".to_vec()),
        ("chunks that end in a size", b"5".to_vec()),
    ] {
        let case = Case::new(name, post("transfer-encoding: chunked\r\n", &body), codes([400]));
        cases.push(case.and([Say::Finish]));
    }
    cases
}

fn headers() -> Vec<Case> {
    let review = super::review().to_string().into_bytes();
    let length = format!("content-length: {}\r\n", review.len());
    let many = |count: usize| (0..count).map(|n| format!("x-{n}: a\r\n")).collect::<String>();
    let mut cases = Vec::new();
    for (name, headers, hears) in [
        ("ninety headers", many(90), Hears::Patched),
        ("a hundred headers and the four of every request", many(100), codes([431])),
        ("a thousand headers", many(1000), codes([431])),
        ("a header of 16 KiB", format!("x: {}\r\n", "a".repeat(16 << 10)), Hears::Patched),
        ("a header of 128 KiB", format!("x: {}\r\n", "a".repeat(128 << 10)), codes([431])),
        ("a header whose name has 60,000 characters", format!("{}: a\r\n", "a".repeat(60_000)), Hears::Patched),
        ("a header whose name has 70,000 characters", format!("{}: a\r\n", "a".repeat(70_000)), codes([431])),
        ("a header without a name", ": a\r\n".into(), codes([400])),
        ("a header without a colon", "nothing\r\n".into(), codes([400])),
        ("a header without a value", "x:\r\n".into(), Hears::Patched),
        ("a NUL in a header", "x: a\0b\r\n".into(), codes([400])),
        ("a bare carriage return in a header", "x: a\rb\r\n".into(), codes([400])),
        ("obsolete folding of a header", "x: a\r\n b\r\n".into(), codes([400])),
        ("a name with a space in it", "x y: a\r\n".into(), codes([400])),
        ("a name with a parenthesis", "x(: a\r\n".into(), codes([400])),
        ("a value of UTF-8", "x: ü\r\n".into(), Hears::Patched),
        ("a second host", "host: b\r\n".into(), Hears::Patched),
        ("a content type of text", "content-type: text/plain\r\n".into(), Hears::Patched),
        ("a content encoding that the body does not have", "content-encoding: gzip\r\n".into(), Hears::Patched),
        ("an answer is wanted in XML", "accept: text/xml\r\n".into(), Hears::Patched),
        ("an upgrade to h2c", "upgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n".into(), Hears::Patched),
        ("an upgrade to a websocket", "upgrade: websocket\r\nsec-websocket-key: a\r\n".into(), Hears::Patched),
        ("a range of bytes", "range: bytes=0-1\r\n".into(), Hears::Patched),
        ("a method that overrides", "x-http-method-override: DELETE\r\n".into(), Hears::Patched),
        ("somebody else's address", "x-forwarded-for: 10.0.0.1\r\n".into(), Hears::Patched),
        ("a connection that names every header", "connection: host, content-length\r\n".into(), Hears::Patched),
        ("an expectation that is none", "expect: miracles\r\n".into(), Hears::Patched),
        ("an expectation of a go-ahead", "expect: 100-continue\r\n".into(), codes([100, 200])),
    ] {
        cases.push(Case::new(name, post(&format!("{length}{headers}"), &review), hears));
    }
    let without = |head: &str| [head.as_bytes(), length.as_bytes(), b"connection: close\r\n\r\n", &review].concat();
    cases.push(Case::new("no host at all", without("POST /mutate HTTP/1.1\r\n"), Hears::Patched));
    cases.push(Case::new(
        "a space before the first header",
        without("POST /mutate HTTP/1.1\r\n host: a\r\n"),
        codes([400]),
    ));
    cases.push(Case::new(
        "lines that end in a line feed alone",
        {
            let head = format!("POST /mutate HTTP/1.1\nhost: a\n{}\nconnection: close\n\n", length.trim_end());
            [head.as_bytes(), &review].concat()
        },
        Hears::Patched,
    ));
    cases.push(Case::new(
        "a go-ahead is expected for what is too large",
        post("expect: 100-continue\r\ncontent-length: 99999999\r\n", b""),
        codes([413]),
    ));
    cases
}

fn lines() -> Vec<Case> {
    let review = super::review().to_string().into_bytes();
    let mut cases = Vec::new();
    let rest = format!("host: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", review.len());
    let mut case = |name: &str, line: &[u8], hears| {
        cases.push(Case::new(name, [line, b"\r\n", rest.as_bytes(), &review].concat(), hears));
    };
    for method in ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "post", "X"] {
        // An answer to HEAD has no body, whatever its length says.
        let hears = if method == "HEAD" { Hears::Codes(vec![405]) } else { codes([405]) };
        case(&format!("the method {method}"), format!("{method} /mutate HTTP/1.1").as_bytes(), hears);
    }
    for path in ["/", "//mutate", "/mutate/", "/MUTATE", "/%6dutate", "/mutate/../mutate", "/metrics", "/debug", "/."] {
        case(&format!("the path {path}"), format!("POST {path} HTTP/1.1").as_bytes(), codes([404]));
    }
    for (name, line, hears) in [
        ("a question behind the path", &b"POST /mutate?timeout=2s HTTP/1.1"[..], Hears::Patched),
        ("a question of percent signs", b"POST /mutate?%%% HTTP/1.1", Hears::Patched),
        ("a fragment behind the path", b"POST /mutate#a HTTP/1.1", Hears::Patched),
        ("the absolute form", b"POST https://elsewhere.example.com/mutate HTTP/1.1", Hears::Patched),
        ("the authority form", b"POST localhost:9443 HTTP/1.1", codes([404])),
        ("the asterisk form", b"OPTIONS * HTTP/1.1", codes([404])),
        ("a tunnel to elsewhere", b"CONNECT elsewhere.example.com:443 HTTP/1.1", codes([404])),
        ("no path", b"POST HTTP/1.1", codes([400])),
        ("a space in the path", b"POST /mu tate HTTP/1.1", codes([400])),
        ("a NUL in the path", b"POST /mu\0tate HTTP/1.1", codes([400])),
        ("bytes above ASCII in the path", b"POST /mut\xffate HTTP/1.1", codes([400])),
        ("two spaces before the path", b"POST  /mutate HTTP/1.1", codes([400])),
        ("a tab before the path", b"POST\t/mutate HTTP/1.1", codes([400])),
        ("a method with a NUL", b"PO\0ST /mutate HTTP/1.1", codes([400])),
        ("an empty line before everything", b"\r\n\r\nPOST /mutate HTTP/1.1", Hears::Patched),
        ("HTTP/1.0", b"POST /mutate HTTP/1.0", Hears::Patched),
        ("HTTP/1.2", b"POST /mutate HTTP/1.2", codes([400])),
        ("HTTP/2.0 in a request line", b"POST /mutate HTTP/2.0", codes([400])),
        ("HTTP/0.9", b"POST /mutate", codes([400])),
        ("http in lower case", b"POST /mutate http/1.1", codes([400])),
        ("a version without a number", b"POST /mutate HTTP/", codes([400])),
        ("a protocol of another name", b"POST /mutate ICY/1.1", codes([400])),
        ("a line of SMTP", b"EHLO localhost", codes([400])),
    ] {
        case(name, line, hears);
    }
    let long = |length: usize| format!("POST /{} HTTP/1.1", "a".repeat(length)).into_bytes();
    case("a path of 60,000 characters", &long(60_000), codes([404]));
    // Longer than the server's buffer too: how much of it has come when it is looked at decides which of the two it is.
    case("a path of 70,000 characters", &long(70_000), Hears::OneOf([414, 431]));
    case("a method of 60,000 characters", &[b"A".repeat(60_000), b" /mutate HTTP/1.1".to_vec()].concat(), codes([405]));
    cases
}

/// What comes before, after and instead of a request.
fn order() -> Vec<Case> {
    let review = super::review().to_string();
    let one = request("", &review);
    let kept = {
        let head = format!("POST /mutate HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", review.len());
        [head.as_bytes(), review.as_bytes()].concat()
    };
    let end = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_vec();
    let second = Duration::from_secs(1);
    let half = kept.len() / 2;
    vec![
        Case::new("a review and the end behind it", [kept.clone(), end.clone()].concat(), codes([200, 404])),
        Case::new(
            "twenty reviews in one breath",
            [kept.repeat(20), end.clone()].concat(),
            Hears::Codes([vec![200; 20], vec![404]].concat()),
        ),
        Case::new(
            "garbage behind a review",
            [kept.clone(), b"\x01\x02\x03\r\n\r\n".to_vec()].concat(),
            codes([200, 400]),
        ),
        Case::new("garbage behind the last review", [one.clone(), b"garbage".to_vec()].concat(), codes([200])),
        Case::new(
            "what is no review, and a review behind it",
            [request("", "{}"), kept.clone()].concat(),
            codes([400]),
        ),
        Case::new(
            "a wrong path, and a review on the same connection",
            [b"GET /wrong HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(), one.clone()].concat(),
            codes([404, 200]),
        ),
        Case::new("the h2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(), Hears::End),
        Case::new(
            "the h2 preface behind a review",
            [kept.clone(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()].concat(),
            codes([200]),
        ),
        Case::new("a review and no more", kept.clone(), codes([200])).and([Say::Finish]),
        Case::new("a review from a peer that leaves", kept.clone(), Hears::Nothing).and([Say::Leave]),
        Case::new("half a header and the end", b"POST /mutate HTTP/1.1\r\nho".to_vec(), Hears::End).and([Say::Finish]),
        Case::new("half a header from a peer that leaves", b"POST /mut".to_vec(), Hears::Nothing).and([Say::Leave]),
        Case::new("half a body and the end", kept[..half].to_vec(), codes([400])).and([Say::Finish]),
        Case::new("half a body from a peer that leaves", kept[..half].to_vec(), Hears::Nothing).and([Say::Leave]),
        Case::new("half a header and silence", b"POST /mutate HTTP/1.1\r\nhost: a\r\n".to_vec(), Hears::End),
        Case::new("half a body and silence", kept[..half].to_vec(), codes([408])),
        Case::new("silence", Vec::new(), Hears::End),
        Case::new("nothing and the end", Vec::new(), Hears::End).and([Say::Finish]),
        Case::new("a header a byte a second", b"POST /".to_vec(), Hears::End)
            .and((0..10).flat_map(|_| [Say::Pause(second), Say::Bytes(b"a".to_vec())])),
        Case::new("a body a byte in a quarter of a second", kept[..half].to_vec(), codes([408]))
            .and((0..10).flat_map(|_| [Say::Pause(second / 4), Say::Bytes(b" ".to_vec())])),
        Case::new("a review in two halves", one[..half].to_vec(), Hears::Patched)
            .and([Say::Pause(second / 2), Say::Bytes(one[half..].to_vec())]),
        Case::new("a body whose second half comes too late", kept[..half].to_vec(), codes([408]))
            .and([Say::Pause(second * 2), Say::Bytes(kept[half..].to_vec())]),
        Case::new("empty lines for ever", b"\r\n".repeat(1000), Hears::End),
        Case::new("NULs", vec![0; 4096], codes([400])),
        Case::new("a TLS hello inside TLS", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(), codes([400])),
    ]
}

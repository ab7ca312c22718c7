//! Bodies that are no JSON, no review, too deep, too large or too slow.

use std::time::Duration;

use serde_json::{Value, json};

use super::case::{Case, Hears, Say};
use super::{request, review};

pub fn cases() -> Vec<Case> {
    [texts(), types(), twice(), depths(), sizes()].into_iter().flatten().collect()
}

const REFUSED: u16 = 400;

fn refused() -> Hears {
    Hears::Codes(vec![REFUSED])
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn texts() -> Vec<Case> {
    let text = review().to_string();
    let with = |from: &str, to: &str| text.replacen(from, to, 1).into_bytes();
    let utf16 = |bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<_>>();
    let spliced = |at: &str, bytes: &[u8]| {
        let at = text.find(at).unwrap() + at.len();
        [&text.as_bytes()[..at], bytes, &text.as_bytes()[at..]].concat()
    };
    let uid = format!("\"uid\":\"{}", super::UID);
    let secret = "\"value\":\"";
    [
        ("an empty body", Vec::new(), refused()),
        ("a body of white space", b" \r\n\t ".to_vec(), refused()),
        ("a review in white space", format!("\n\t{text}\r\n ").into_bytes(), Hears::Patched),
        ("a form feed before a review", format!("\x0c{text}").into_bytes(), refused()),
        ("a byte order mark", [b"\xef\xbb\xbf", text.as_bytes()].concat(), refused()),
        ("UTF-16, little end first", utf16(u16::to_le_bytes), refused()),
        ("UTF-16, big end first", utf16(u16::to_be_bytes), refused()),
        ("two reviews, one behind the other", text.repeat(2).into_bytes(), refused()),
        ("a review and a NUL", format!("{text}\0").into_bytes(), refused()),
        ("a review without its last brace", text[..text.len() - 1].into(), refused()),
        ("a review with a brace too many", format!("{text}}}").into_bytes(), refused()),
        ("a comma too many", with("\"userInfo\"", ",\"userInfo\""), refused()),
        ("a comma before the end", format!("{},}}", &text[..text.len() - 1]).into_bytes(), refused()),
        ("single quotes", text.replace('"', "'").into_bytes(), refused()),
        ("keys without quotes", with("\"request\"", "request"), refused()),
        ("a comment", format!("// {}\n{text}", super::CANARY).into_bytes(), refused()),
        ("NaN", with("false", "NaN"), refused()),
        ("Infinity", with("false", "-Infinity"), refused()),
        ("a number with a zero before it", with("false", "01"), refused()),
        ("a number with a point and no more", with("false", "1."), refused()),
        ("a minus and no number", with("false", "-"), refused()),
        ("undefined", with("false", "undefined"), refused()),
        ("truth in capitals", with("false", "TRUE"), refused()),
        ("a huge number where nobody looks", with("\"options\":null", "\"options\":1e999999"), Hears::Patched),
        (
            "an integer of 10,000 digits where nobody looks",
            { with("\"options\":null", &format!("\"options\":{}", "9".repeat(10_000))) },
            Hears::Patched,
        ),
        ("a lone surrogate in the uid", spliced(&uid, b"\\ud800"), refused()),
        ("a lone surrogate in a variable", spliced(secret, b"\\ud800"), Hears::Unchanged),
        ("surrogates in the wrong order in a variable", spliced(secret, b"\\udc00\\ud800"), Hears::Unchanged),
        ("a pair of surrogates in a variable", spliced(secret, b"\\ud83d\\ude00"), Hears::Patched),
        ("an escape of no character", spliced(secret, b"\\x41"), refused()),
        ("an escape with three digits", spliced(secret, b"\\u12g4"), refused()),
        ("an escaped NUL in a variable", spliced(secret, b"\\u0000"), Hears::Patched),
        ("a line feed in a string", spliced(secret, b"\n"), refused()),
        ("a raw NUL in a string", spliced(secret, b"\0"), refused()),
        ("Latin-1 in a variable", spliced(secret, b"\xfc"), Hears::Unchanged),
        ("Latin-1 in the uid", spliced(&uid, b"\xfc"), refused()),
        ("Latin-1 where nobody looks", spliced("\"fieldManager\":\"", b"\xfc"), Hears::Patched),
        ("an overlong slash in a variable", spliced(secret, b"\xc0\xaf"), Hears::Unchanged),
        ("a surrogate in UTF-8 in a variable", spliced(secret, b"\xed\xa0\x80"), Hears::Unchanged),
        ("half a character of UTF-8 in the name", spliced("\"name\":\"", b"\xe2\x82"), refused()),
        ("a review in YAML", serde_yaml::to_string(&review()).unwrap().into_bytes(), refused()),
        ("a review in XML", format!("<AdmissionReview>{}</AdmissionReview>", super::CANARY).into_bytes(), refused()),
        ("a form", format!("review={}", super::CANARY).into_bytes(), refused()),
        ("Kubernetes' protobuf", [b"k8s\0\x0a\x10\x0a\x02v1", text.as_bytes()].concat(), refused()),
        ("CBOR", [b"\xd9\xd9\xf7\xa1\x63uid", text.as_bytes()].concat(), refused()),
    ]
    .into_iter()
    .map(|(name, body, hears)| Case::new(name, request("", body), hears))
    .chain([
        Case::new(
            "gzip",
            request("content-encoding: gzip\r\n", b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xab\xae\x05\0C\xbf\xa6\xa3\x02\0\0\0"),
            refused(),
        ),
        Case::new(
            "deflate",
            request("content-encoding: deflate\r\n", b"\x78\x9c\xab\xae\x05\0\x01\x75\0\xf9"),
            refused(),
        ),
        Case::new(
            "a body of random bytes",
            request("", (0..4096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>()),
            refused(),
        ),
    ])
    .collect()
}

/// Every field of a review as every type that it is not.
fn types() -> Vec<Case> {
    let types = [
        ("null", json!(null)),
        ("a truth", json!(true)),
        ("a number", json!(7)),
        // Names, kinds and operations are told in the log.
        ("a text", json!("text")),
        ("a list", json!([super::CANARY])),
        ("an object", json!({"a": super::CANARY})),
    ];
    let mut cases = Vec::new();
    for (kind, value) in &types {
        cases.push(Case::new(format!("{kind} in place of a review"), request("", value.to_string()), refused()));
    }
    // What stands for which of the types in this field, in their order.
    let text = [false, false, false, true, false, false];
    for (field, reads) in [
        ("/apiVersion", text),
        ("/kind", text),
        ("/request", [false; 6]),
        ("/request/uid", text),
        ("/request/kind", [false, false, false, false, false, true]),
        ("/request/kind/group", text),
        ("/request/kind/kind", text),
        ("/request/namespace", text),
        ("/request/name", text),
        ("/request/operation", text),
        ("/request/subResource", text),
        ("/request/dryRun", [true, true, false, false, false, false]),
        ("/request/userInfo", [false, false, false, false, false, true]),
        ("/request/userInfo/username", text),
    ] {
        for ((kind, value), reads) in types.iter().zip(reads) {
            let hears = match (field, reads) {
                (_, false) => refused(),
                ("/apiVersion" | "/kind", _) => refused(),
                ("/request/uid", _) => Hears::Codes(vec![200]),
                ("/request/name" | "/request/dryRun" | "/request/userInfo" | "/request/userInfo/username", _) => {
                    Hears::Patched
                }
                _ => Hears::Unchanged,
            };
            cases.push(Case::new(format!("{kind} as {field}"), request("", placed(field, value).to_string()), hears));
        }
    }
    // Nobody looks at these, whatever they are; of an object that cannot be read nothing is decided.
    for (field, hears) in [
        ("/request/options", || Hears::Patched),
        ("/request/resource", || Hears::Patched),
        ("/request/oldObject", || Hears::Patched),
        ("/request/object", || Hears::Unchanged),
        ("/request/object/spec", || Hears::Unchanged),
    ] as [(&str, fn() -> Hears); 5]
    {
        for (kind, value) in &types {
            cases.push(Case::new(format!("{kind} as {field}"), request("", placed(field, value).to_string()), hears()));
        }
    }
    cases
}

fn placed(field: &str, value: &Value) -> Value {
    let mut review = review();
    let (parent, key) = field.rsplit_once('/').unwrap();
    review.pointer_mut(parent).unwrap()[key] = value.clone();
    review
}

/// Keys that are there twice.
fn twice() -> Vec<Case> {
    let text = review().to_string();
    let before = |key: &str, more: &str| text.replacen(&format!("\"{key}\""), &format!("{more},\"{key}\""), 1);
    [
        ("two requests", before("request", "\"request\":{\"uid\":\"x\"}"), refused()),
        ("two versions", before("apiVersion", "\"apiVersion\":\"v1\""), refused()),
        ("two uids, of which the last counts", before("uid", "\"uid\":\"another\""), Hears::Patched),
        ("two namespaces, of which the last counts", before("namespace", "\"namespace\":\"shop\""), Hears::Patched),
        ("two operations, of which the last counts", before("operation", "\"operation\":\"DELETE\""), Hears::Patched),
        ("two objects, of which the last counts", before("object", "\"object\":null"), Hears::Patched),
        ("two specs in an object", before("spec", "\"spec\":{}"), Hears::Unchanged),
        ("two templates", before("template", "\"template\":{}"), Hears::Unchanged),
        ("two lists of containers", before("containers", "\"containers\":[]"), Hears::Unchanged),
        ("two environments of a container", before("env", "\"env\":null"), Hears::Unchanged),
        ("an object before its kind", before("uid", "\"object\":{}"), Hears::Patched),
    ]
    .into_iter()
    .map(|(name, body, hears)| Case::new(name, request("", body), hears))
    .collect()
}

fn depths() -> Vec<Case> {
    let text = review().to_string();
    let mut cases = Vec::new();
    for depth in [10, 100, 126, 127, 128, 129, 90_000] {
        let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(depth), close.repeat(depth));
        let (lists, objects) = (deep("[", "]"), deep("{\"a\":", "}"));
        let context = format!("\"name\":\"agent\",\"securityContext\":{objects}");
        for (name, body, hears) in [
            ("lists in place of a review", lists.clone(), refused()),
            ("objects in place of a review", objects.clone(), refused()),
            (
                "lists where nobody looks",
                text.replacen("\"options\":null", &format!("\"options\":{lists}"), 1),
                Hears::Patched,
            ),
            (
                "objects where nobody looks",
                text.replacen("\"options\":null", &format!("\"options\":{objects}"), 1),
                Hears::Patched,
            ),
            (
                "objects in a security context",
                text.replacen("\"name\":\"agent\"", &context, 1),
                // The reader counts the levels around it, too.
                if depth > 110 { Hears::Unchanged } else { Hears::Patched },
            ),
        ] {
            cases.push(Case::new(format!("{depth} {name}"), request("", body), hears));
        }
        let init = format!("\"initContainers\":[{{{context}}}],\"containers\"");
        let body = text.replacen("\"containers\"", &init, 1);
        let hears = if depth > 110 { Hears::Unchanged } else { Hears::Patched };
        cases.push(Case::new(
            format!("{depth} objects in an init container's security context"),
            request("", body),
            hears,
        ));
        cases.push(Case::new(
            format!("{depth} lists that are never closed"),
            request("", "[".repeat(depth)),
            refused(),
        ));
    }
    cases
}

fn sizes() -> Vec<Case> {
    let text = review().to_string();
    let padded = |size: usize| format!("{text}{}", " ".repeat(size - text.len()));
    let mebibytes = 7 << 20;
    let mut cases = Vec::new();
    for (name, size) in [
        ("64 KiB", 64 << 10),
        ("64 KiB and a byte", (64 << 10) + 1),
        ("7 MiB less one byte", mebibytes - 1),
        ("7 MiB", mebibytes),
    ] {
        let body = padded(size);
        let chunks = format!("{size:x}\r\n{body}\r\n0\r\n\r\n");
        let head = "POST /mutate HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
        cases.push(Case::new(
            format!("a review of {name} without a length"),
            format!("{head}{chunks}"),
            Hears::Patched,
        ));
        cases.push(Case::new(format!("a review of {name}"), request("", body), Hears::Patched));
    }
    let too_large = || Hears::Codes(vec![413]);
    let body = padded(mebibytes + 1);
    let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let head = "POST /mutate HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    cases.push(Case::new("a review of 7 MiB and a byte without a length", format!("{head}{chunks}"), too_large()));
    cases.push(Case::new("a review of 7 MiB and a byte", request("", body), too_large()));
    let announced = |length: usize| format!("POST /mutate HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
    cases.push(Case::new("7 MiB and a byte that are only announced", announced(mebibytes + 1), too_large()));
    cases.push(Case::new("7 MiB that are only announced", announced(mebibytes), Hears::Codes(vec![408])));
    let slowly = (0..10).flat_map(|_| [Say::Pause(Duration::from_millis(300)), Say::Bytes(vec![b' '; 100 << 10])]);
    cases.push(Case::new("7 MiB at 300 KiB a second", announced(mebibytes), Hears::Codes(vec![408])).and(slowly));
    cases
}

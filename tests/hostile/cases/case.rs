//! A case: what a peer says, and what it has to hear.
#![allow(dead_code, reason = "each user needs its own part")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

pub struct Case {
    /// A sentence; no two cases have the same.
    pub name: String,
    pub over: Over,
    pub says: Vec<Say>,
    pub hears: Hears,
}

/// What a peer speaks below HTTP.
#[derive(Clone, Copy)]
pub enum Over {
    /// The bytes go onto the wire as they are.
    Wire,
    Tls(Dialect),
}

/// How it speaks TLS.
#[derive(Clone, Copy)]
pub struct Dialect {
    pub server_name: &'static str,
    pub protocols: &'static [&'static str],
    pub versions: &'static [&'static SupportedProtocolVersion],
    /// After the handshake, onto the wire below TLS.
    pub then: Option<&'static [u8]>,
}

pub const TLS: Dialect =
    Dialect { server_name: "localhost", protocols: &[], versions: rustls::ALL_VERSIONS, then: None };

pub enum Say {
    Bytes(Vec<u8>),
    Pause(Duration),
    /// Nothing more comes, but it listens.
    Finish,
    /// It goes away and listens to nothing.
    Leave,
}

#[derive(Debug, PartialEq)]
pub enum Hears {
    /// Answers with these codes, in this order, and then the end.
    Codes(Vec<u16>),
    /// One answer, with one of these.
    OneOf([u16; 2]),
    /// An AdmissionReview that allows it and has a patch.
    Patched,
    /// The same without one.
    Unchanged,
    /// The end, and no HTTP before it.
    End,
    /// It has left.
    Nothing,
}

impl Case {
    pub fn new(name: impl Into<String>, says: impl Into<Vec<u8>>, hears: Hears) -> Self {
        Self { name: name.into(), over: Over::Tls(TLS), says: vec![Say::Bytes(says.into())], hears }
    }

    pub fn and(mut self, more: impl IntoIterator<Item = Say>) -> Self {
        self.says.extend(more);
        self
    }

    pub fn over(mut self, over: Over) -> Self {
        self.over = over;
        self
    }

    pub fn is_large(&self) -> bool {
        let bytes = |say: &Say| if let Say::Bytes(bytes) = say { bytes.len() } else { 0 };
        self.says.iter().map(bytes).sum::<usize>() > 64 << 10
    }

    /// Says it all and listens to the end.
    pub async fn play(&self, server: SocketAddr) -> Result<(), String> {
        let heard = timeout(PATIENCE, self.talk(server)).await;
        let heard = heard.map_err(|_| format!("the server neither answers nor hangs up within {PATIENCE:?}"))?;
        let heard = Answers::parse(&heard.map_err(|error| format!("could not be said: {error}"))?)?;
        if heard.as_expected(&self.hears) { Ok(()) } else { Err(format!("wanted {:?}, heard {heard:?}", self.hears)) }
    }

    async fn talk(&self, server: SocketAddr) -> io::Result<Vec<u8>> {
        let stream = connected(server).await?;
        stream.set_nodelay(true)?;
        let Over::Tls(dialect) = self.over else { return Ok(converse(stream, &self.says).await) };
        let name = ServerName::try_from(dialect.server_name).map_err(io::Error::other)?;
        let stream = match TlsConnector::from(Arc::new(client(&dialect))).connect(name, stream).await {
            Ok(stream) => stream,
            // The server has said no.
            Err(_) if self.hears == Hears::End => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let Some(then) = dialect.then else { return Ok(converse(stream, &self.says).await) };
        let (mut wire, _) = stream.into_inner();
        wire.write_all(then).await?;
        Ok(converse(wire, &[]).await)
    }
}

/// Speaks and listens at once, as a server may answer before it has heard everything.
async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, says: &[Say]) -> Vec<u8> {
    let (mut from, mut to) = tokio::io::split(stream);
    let (left, mut heard) = (tokio::sync::Notify::new(), Vec::new());
    let speak = async {
        for say in says {
            // A server that has heard enough hangs up: what it said before counts.
            let said = match say {
                Say::Bytes(bytes) => async { to.write_all(bytes).await.and(to.flush().await) }.await,
                Say::Pause(pause) => {
                    sleep(*pause).await;
                    Ok(())
                }
                Say::Finish => to.shutdown().await,
                Say::Leave => {
                    left.notify_one();
                    Ok(())
                }
            };
            if said.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let listen = async {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            heard.extend_from_slice(&buffer[..length]);
        }
    };
    tokio::select! {
        () = speak => {}
        () = listen => {}
        () = left.notified() => {}
    }
    heard
}

/// What came back.
#[derive(Debug)]
struct Answers {
    codes: Vec<u16>,
    last: String,
}

impl Answers {
    fn parse(mut heard: &[u8]) -> Result<Self, String> {
        let mut answers = Self { codes: Vec::new(), last: String::new() };
        // An alert of TLS is no answer.
        while heard.starts_with(b"HTTP/1.") {
            let end = heard.windows(4).position(|four| four == b"\r\n\r\n").ok_or("a header without an end")? + 4;
            let head = String::from_utf8_lossy(&heard[..end]).to_lowercase();
            let code = head.get(9..12).and_then(|code| code.parse().ok()).ok_or("no status code")?;
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(Ok(0), str::parse).map_err(|_| "no length")?;
            let body = heard.get(end..end + length).ok_or("a body that ends too early")?;
            answers.codes.push(code);
            answers.last = String::from_utf8_lossy(body).into_owned();
            heard = &heard[end + length..];
        }
        Ok(answers)
    }

    fn as_expected(&self, hears: &Hears) -> bool {
        match hears {
            Hears::Codes(codes) => &self.codes == codes,
            Hears::OneOf(either) => matches!(self.codes[..], [code] if either.contains(&code)),
            Hears::Patched => self.codes == [200] && patch(&self.last).is_ok_and(|patch| patch.is_some()),
            Hears::Unchanged => self.codes == [200] && patch(&self.last).is_ok_and(|patch| patch.is_none()),
            Hears::End => self.codes.is_empty(),
            Hears::Nothing => true,
        }
    }
}

/// The patch of an answer; an error where it is none that allows, with the uid of the question.
pub fn patch(answer: &str) -> Result<Option<json_patch::Patch>, String> {
    let answer: Value = serde_json::from_str(answer).map_err(|error| error.to_string())?;
    let response = &answer["response"];
    let uid = response["uid"].as_str().unwrap_or_default();
    let known = uid == super::UID || uid.chars().all(|c| c == 'ü' || c.is_control());
    if response["allowed"] != true || uid.is_empty() || !known || answer["kind"] != "AdmissionReview" {
        return Err(answer.to_string());
    }
    let Some(patch) = response["patch"].as_str() else { return Ok(None) };
    let patch = STANDARD.decode(patch).map_err(|error| error.to_string())?;
    serde_json::from_slice(&patch).map(Some).map_err(|error| error.to_string())
}

pub fn client(dialect: &Dialect) -> ClientConfig {
    let builder = ClientConfig::builder_with_protocol_versions(dialect.versions).dangerous();
    let mut config = builder.with_custom_certificate_verifier(Arc::new(Anybody)).with_no_client_auth();
    config.alpn_protocols = dialect.protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config
}

/// Who the server is, is not what is tested here.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    aws_lc_rs::default_provider().signature_verification_algorithms
}

/// Above every limit of the server: 5 s for a handshake, 5 s for a header, 1.5 s for a body.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection from one of many peers: each address of loopback has its own share of the places.
pub async fn connected(server: SocketAddr) -> io::Result<TcpStream> {
    static PEER: AtomicU8 = AtomicU8::new(0);
    let from = SocketAddr::from(([127, 0, 1, 1 + PEER.fetch_add(1, Ordering::Relaxed) % 100], 0));
    let socket = TcpSocket::new_v4()?;
    socket.bind(from)?;
    socket.connect(server).await
}

//! Peers that are slow, many or hostile, against a server on a real socket.

use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

#[tokio::test]
async fn requests_share_a_connection_until_the_end_is_announced() {
    let server = TestServer::start(Limits::default()).await;
    let mut peer = server.connect().await;
    assert!(!peer.asks().await.contains("connection: close"));
    assert!(!peer.asks().await.contains("connection: close"));
    server.drain.send_replace(Drain::Announced);
    assert!(peer.asks().await.contains("connection: close"));
    assert!(peer.is_cut_within(Duration::from_secs(1)).await);
    // A connection that comes afterwards is served, once.
    assert!(server.connect().await.asks().await.contains("connection: close"));
}

#[tokio::test]
async fn at_the_end_what_is_being_answered_is_answered_and_idle_connections_are_closed() {
    let server = TestServer::start(Limits::default()).await;
    let mut idle = server.connect().await;
    idle.asks().await;
    let mut slow = server.connect().await;
    slow.says("POST /slow HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n").await;
    sleep(Duration::from_millis(50)).await;
    server.drain.send_replace(Drain::Closed);
    assert!(idle.is_cut_within(Duration::from_secs(1)).await);
    slow.says("x").await;
    assert!(slow.hears().await.starts_with("HTTP/1.1 200"));
    timeout(Duration::from_secs(1), server.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn an_old_connection_is_asked_to_come_back_as_a_new_one() {
    let server = TestServer::start(Limits { age: Duration::ZERO, ..Limits::default() }).await;
    assert!(server.connect().await.asks().await.contains("connection: close"));
}

#[tokio::test]
async fn whoever_says_nothing_or_dribbles_a_header_is_cut_off_but_an_idle_caller_is_not() {
    let server = TestServer::start(Limits { header: Duration::from_millis(200), ..Limits::default() }).await;
    let patience = Duration::from_millis(450);
    let mut silent = server.connect().await;
    assert!(silent.is_cut_within(patience).await);

    let mut caller = server.connect().await;
    caller.asks().await;
    sleep(patience).await;
    caller.asks().await;

    caller.says("GET / HTTP/1.1\r\n").await;
    let dribble = async {
        for _ in 0..30 {
            sleep(Duration::from_millis(20)).await;
            if caller.stream.write_all(b"a").await.is_err() {
                break;
            }
        }
    };
    let started = Instant::now();
    dribble.await;
    assert!(caller.is_cut_within(patience).await);
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn an_idle_caller_is_cut_off_when_its_time_is_over_counted_from_its_last_answer() {
    let limits = Limits { header: Duration::from_millis(100), idle: Duration::from_millis(400), ..Limits::default() };
    let server = TestServer::start(limits).await;
    let mut caller = server.connect().await;
    for _ in 0..3 {
        caller.asks().await;
        sleep(Duration::from_millis(250)).await;
    }
    caller.asks().await;
    let answered = Instant::now();
    assert!(caller.is_cut_within(Duration::from_secs(2)).await);
    assert!(answered.elapsed() >= Duration::from_millis(350), "{:?}", answered.elapsed());
    // What takes long to answer is no idle caller.
    let mut slow = server.connect().await;
    slow.says("POST /slow HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n").await;
    sleep(Duration::from_millis(600)).await;
    slow.says("x").await;
    assert!(slow.hears().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn one_connection_too_many_waits_until_another_ends() {
    let server = TestServer::start(Limits { connections: 1, ..Limits::default() }).await;
    let mut first = server.connect().await;
    first.asks().await;
    let mut second = server.connect().await;
    assert!(timeout(Duration::from_millis(100), second.asks()).await.is_err());
    drop(first);
    assert!(second.hears().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn idle_connections_never_take_the_last_quarter_of_the_places() {
    let server = TestServer::start(Limits { connections: 8, ..Limits::default() }).await;
    let mut kept = Vec::new();
    for _ in 0..6 {
        let mut peer = server.connect().await;
        assert!(!peer.asks().await.contains("connection: close"));
        kept.push(peer);
    }
    for _ in 0..20 {
        let mut peer = server.connect().await;
        assert!(peer.asks().await.contains("connection: close"));
        assert!(peer.is_cut_within(Duration::from_secs(1)).await);
    }
    // Nor do those that came first keep theirs for asking again while places are short.
    let _more = [server.connect().await, server.connect().await];
    sleep(Duration::from_millis(50)).await;
    assert!(kept[0].asks().await.contains("connection: close"));
}

/// Review B7: one peer that opens many leaves the others theirs.
#[tokio::test]
async fn a_peer_has_its_share_of_the_places_then_waits_and_then_is_cut_off() {
    let limits = Limits { per_peer: 2, handshake: Duration::from_secs(2), ..Limits::default() };
    let server = TestServer::start(limits).await;
    let mut served = [server.connect().await, server.connect().await];
    for peer in &mut served {
        peer.asks().await;
    }
    let (mut waiting, _waits_too) = (server.connect().await, server.connect().await);
    let mut beyond = server.connect().await;
    assert!(beyond.is_cut_within(Duration::from_secs(1)).await);
    waiting.says("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut other = Peer { stream: connected_from("127.0.0.2", server.address).await };
    assert!(other.asks().await.starts_with("HTTP/1.1 200"));
    drop(served);
    assert!(waiting.hears().await.starts_with("HTTP/1.1 200"));
}

/// Review B7: 51 unfinished handshakes a second of one pod held every place.
#[tokio::test]
async fn unfinished_handshakes_take_no_place() {
    let tls = watch::Sender::new(None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let drain = watch::Sender::new(Drain::Open);
    let limits = Limits { connections: 1, per_peer: 8, ..Limits::default() };
    let router = Router::new().route("/", get(async || "hello"));
    tokio::spawn(serve(listener, Some(tls.subscribe()), router, limits, drain.subscribe()));
    let _silent = [connected_from("127.0.0.2", address).await, connected_from("127.0.0.2", address).await];
    sleep(Duration::from_millis(50)).await;
    let authority = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(authority.signing_key.serialize_der());
    let serving = crate::tls::serving::Serving::new(vec![authority.cert.der().clone()], key.into()).unwrap();
    tls.send_replace(Some(serving.config().clone()));
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder().danger_accept_invalid_certs(true).no_proxy().build().unwrap();
    let asked = client.get(format!("https://{address}/")).send();
    assert!(timeout(Duration::from_secs(2), asked).await.unwrap().unwrap().status().is_success());
}

async fn connected_from(host: &str, address: std::net::SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(format!("{host}:0").parse().unwrap()).unwrap();
    socket.connect(address).await.unwrap()
}

#[tokio::test]
async fn spread_is_between_0_and_1_and_differs() {
    let chances: Vec<f64> = (0..100).map(|_| chance()).collect();
    assert!(chances.iter().all(|c| (0.0..1.0).contains(c)));
    assert!(chances.iter().any(|c| *c < 0.4) && chances.iter().any(|c| *c > 0.6));
}

struct TestServer {
    address: std::net::SocketAddr,
    drain: watch::Sender<Drain>,
    task: tokio::task::JoinHandle<()>,
}

impl TestServer {
    async fn start(limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let drain = watch::Sender::new(Drain::Open);
        let slow = post(async |body: axum::body::Bytes| body);
        let router = Router::new().route("/", get(async || "hello")).route("/slow", slow);
        let task = tokio::spawn(serve(listener, None, router, limits, drain.subscribe()));
        Self { address, drain, task }
    }

    async fn connect(&self) -> Peer {
        Peer { stream: TcpStream::connect(self.address).await.unwrap() }
    }
}

struct Peer {
    stream: TcpStream,
}

impl Peer {
    async fn asks(&mut self) -> String {
        self.says("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        self.hears().await
    }

    async fn says(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    async fn hears(&mut self) -> String {
        let mut buffer = vec![0; 1024];
        let length = self.stream.read(&mut buffer).await.unwrap();
        assert!(length > 0, "hung up without an answer");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    async fn is_cut_within(&mut self, patience: Duration) -> bool {
        let mut rest = Vec::new();
        timeout(patience, self.stream.read_to_end(&mut rest)).await.is_ok()
    }
}

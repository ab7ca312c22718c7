//! HTTP/1.1 over TLS or plain, for peers that may be slow, many or hostile.
//!
//! Why not a ready-made server: the API server keeps using its connections to a terminating pod (kubernetes#127335) and
//! does not repeat a POST that a closing connection swallowed, so every ending has to be announced with
//! `Connection: close` on an answer, never by hanging up on an idle connection.

pub mod listeners;
mod peers;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, header};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use self::peers::{Peer, Peers};

/// How far a server's end has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drain {
    /// Serving.
    #[default]
    Open,
    /// Serving, and each answer asks the peer to go elsewhere with its next request.
    Announced,
    /// No new connections; those that are answering may finish.
    Closed,
}

/// What a peer may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; more wait.
    pub connections: usize,
    /// Connections of one peer address at once; as many again wait, and more are cut off.
    pub per_peer: usize,
    /// Time for the TLS handshake.
    pub handshake: Duration,
    /// Time from a request's first byte to the end of its header, and from a connection's start to its first request.
    pub header: Duration,
    /// Time between two requests. Above the 90 s after which Go's HTTP client hangs up by itself: whoever hangs up
    /// first may swallow a request that is under way.
    pub idle: Duration,
    /// Age, ± 20 %, from which on answers ask for a new connection, so that load spreads over new replicas.
    pub age: Duration,
    /// Time for the requests in flight at the end.
    pub finish: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connections: 256,
            // The API server is one peer, with a connection for each review at a time: with 32, rolling restarts under load left
            // 8,394 of 21,007 objects unwired. A quarter stays for others.
            per_peer: 192,
            handshake: seconds(5),
            header: seconds(5),
            idle: seconds(120),
            age: seconds(300),
            finish: seconds(5),
        }
    }
}

/// The TLS configuration to use for new connections; none yet: connections wait.
pub type Tls = watch::Receiver<Option<Arc<ServerConfig>>>;

/// Serves until [`Drain::Closed`] and the requests in flight are answered.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    limits: Limits,
    drain: watch::Receiver<Drain>,
) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let arrivals = Arc::new(Semaphore::new(limits.connections * ARRIVALS));
    let peers = Peers::new(limits.per_peer);
    let mut connections = JoinSet::new();
    let mut closing = pin!(closed(drain.clone()));
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = async {
            let arrival = arrivals.clone().acquire_owned().await;
            (arrival, listener.accept().await)
        };
        let (arrival, stream, address) = tokio::select! {
            biased;
            () = &mut closing => break,
            (arrival, accepted) = accepted => match accepted {
                Ok((stream, address)) => (arrival, stream, address),
                Err(error) => {
                    // Out of file descriptors, most likely: others must close first.
                    tracing::warn!(%error, "failed to accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let Some(peer) = peers.arrive(address.ip()) else { continue };
        let (tls, router) = (tls.clone(), router.clone());
        let ends = Ends { limits, slots: slots.clone(), drain: drain.clone() };
        connections.spawn(async move {
            // Both are kept to the connection's end.
            let (_arrival, peer) = (arrival, peer);
            if let Err(error) = connection(stream, &peer, tls, router, ends).await {
                tracing::debug!(%error, "a connection failed");
            }
        });
    }
    drop(listener);
    let rest = async { while connections.join_next().await.is_some() {} };
    if timeout(limits.finish, rest).await.is_err() {
        tracing::warn!("ended before every request was answered");
    }
}

/// What decides when a connection ends.
struct Ends {
    limits: Limits,
    slots: Arc<Semaphore>,
    drain: watch::Receiver<Drain>,
}

impl Ends {
    /// Whether an answer asks for a new connection. Where places are short every one does: whoever keeps a connection and
    /// asks nothing takes at most three quarters of them, and the rest are free again as soon as they were answered.
    fn announced(&self, old_from: Instant) -> bool {
        let crowded = self.slots.available_permits() < self.limits.connections / 4;
        crowded || *self.drain.borrow() >= Drain::Announced || Instant::now() >= old_from
    }
}

async fn connection(stream: TcpStream, peer: &Peer, tls: Option<Tls>, router: Router, ends: Ends) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let _place = timeout(ends.limits.handshake, peer.places.acquire()).await.map_err(late)?;
    let slots = ends.slots.clone();
    let slot = || timeout(ends.limits.header, slots.acquire());
    let Some(mut tls) = tls else {
        let _slot = slot().await.map_err(late)?;
        return http(stream, router, ends).await;
    };
    let handshake = async {
        let config = tls.wait_for(Option::is_some).await.ok().and_then(|config| config.clone());
        let config = config.ok_or(io::ErrorKind::NotConnected)?;
        TlsAcceptor::from(config).accept(stream).await
    };
    // A place is for those that have shown that they mean it: unfinished handshakes take none.
    let stream = timeout(ends.limits.handshake, handshake).await.map_err(late)??;
    let _slot = slot().await.map_err(late)?;
    http(stream, router, ends).await
}

async fn http<S>(stream: S, router: Router, ends: Ends) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = ends.limits;
    let state = Arc::new(AtomicU8::new(HEADER));
    let stream =
        Impatient { stream, state: state.clone(), patience: limits.header, limit: Box::pin(sleep(limits.header)) };
    let old_from = Instant::now() + limits.age.mul_f64(0.8 + 0.4 * chance());
    let answers = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        state.store(BUSY, Ordering::Relaxed);
        let answer = hyper::service::Service::call(&answers, request.map(Body::new));
        async {
            let mut response = answer.await?;
            state.store(IDLE, Ordering::Relaxed);
            if ends.announced(old_from) {
                response.headers_mut().insert(header::CONNECTION, CLOSE);
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            // hyper's limit runs between requests too; the one for a started header is ours.
            .header_read_timeout(limits.idle)
            .max_buf_size(BUFFER)
            // A peer may say that nothing more comes and still listen.
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closed(ends.drain.clone()) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    ended.map_err(io::Error::other)
}

async fn closed(mut drain: watch::Receiver<Drain>) {
    // An error means that nobody can say any more when to end: then it is the end.
    let _ = drain.wait_for(|drain| *drain == Drain::Closed).await;
}

/// A stream that gives a peer limited time from a header's first byte to its last.
struct Impatient<S> {
    stream: S,
    state: Arc<AtomicU8>,
    patience: Duration,
    limit: Pin<Box<Sleep>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Ready(read) => {
                if self.state.compare_exchange(IDLE, HEADER, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                    let until = Instant::now() + self.patience;
                    self.limit.as_mut().reset(until);
                }
                Poll::Ready(read)
            }
            Poll::Pending if self.state.load(Ordering::Relaxed) == HEADER => {
                ready!(self.limit.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// From 0 to 1; for spreading, not for secrets.
fn chance() -> f64 {
    let bits = RandomState::new().hash_one(0_u8) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

/// States of a connection: between requests, reading a header, reading a body or answering.
const IDLE: u8 = 0;
const HEADER: u8 = 1;
const BUSY: u8 = 2;
/// Bounds what 256 connections can make us buffer: hyper's own limit is 400 KiB each.
const BUFFER: usize = 64 << 10;
const CLOSE: HeaderValue = HeaderValue::from_static("close");
/// Connections that may be there for each that is served: shaking hands, or waiting for a place.
const ARRIVALS: usize = 4;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn requests_share_a_connection_until_the_end_is_announced() {
        let server = Server::start(Limits::default()).await;
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
        let server = Server::start(Limits::default()).await;
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
        let server = Server::start(Limits { age: Duration::ZERO, ..Limits::default() }).await;
        assert!(server.connect().await.asks().await.contains("connection: close"));
    }

    #[tokio::test]
    async fn whoever_says_nothing_or_dribbles_a_header_is_cut_off_but_an_idle_caller_is_not() {
        let server = Server::start(Limits { header: Duration::from_millis(200), ..Limits::default() }).await;
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
    async fn one_connection_too_many_waits_until_another_ends() {
        let server = Server::start(Limits { connections: 1, ..Limits::default() }).await;
        let mut first = server.connect().await;
        first.asks().await;
        let mut second = server.connect().await;
        assert!(timeout(Duration::from_millis(100), second.asks()).await.is_err());
        drop(first);
        assert!(second.hears().await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn idle_connections_never_take_the_last_quarter_of_the_places() {
        let server = Server::start(Limits { connections: 8, ..Limits::default() }).await;
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
        let server = Server::start(limits).await;
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

    struct Server {
        address: std::net::SocketAddr,
        drain: watch::Sender<Drain>,
        task: tokio::task::JoinHandle<()>,
    }

    impl Server {
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
}

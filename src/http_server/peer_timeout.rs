//! The time that a peer has for the header of a request, and between two requests.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// A stream that gives a peer limited time from a header's first byte to its last, and from an answer to the next request.
pub(super) struct PeerTimeout<S> {
    stream: S,
    state: Arc<AtomicU8>,
    header: Duration,
    idle: Duration,
    /// The state that `until` belongs to, and when the time in it is over.
    timed: u8,
    until: Instant,
    /// Goes off at `until` or before. It is moved only where it would come too late: to move it with every request takes a lock
    /// and, as often as not, a system call.
    timer: Pin<Box<Sleep>>,
}

impl<S> PeerTimeout<S> {
    /// Begins with a header of which nothing has come yet.
    pub(super) fn new(stream: S, header: Duration, idle: Duration) -> Self {
        let timer = Box::pin(sleep(header));
        Self {
            stream,
            state: Arc::new(AtomicU8::new(HEADER)),
            header,
            idle,
            timed: HEADER,
            until: timer.deadline(),
            timer,
        }
    }

    /// What the stream has to be told of the requests in it.
    pub(super) fn state(&self) -> Arc<AtomicU8> {
        self.state.clone()
    }

    /// Ready when the peer's time is over.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.state.load(Ordering::Relaxed) {
            IDLE if self.timed != IDLE => (self.timed, self.until) = (IDLE, Instant::now() + self.idle),
            IDLE | HEADER => {}
            _ => return Poll::Pending,
        }
        if self.timer.deadline() > self.until {
            self.timer.as_mut().reset(self.until);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if self.timer.deadline() >= self.until {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.until);
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PeerTimeout<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buffer) {
            if self.state.compare_exchange(IDLE, HEADER, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                (self.timed, self.until) = (HEADER, Instant::now() + self.header);
            }
            return Poll::Ready(read);
        }
        self.poll_end(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PeerTimeout<S> {
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

/// States of a connection: between requests, reading a header, reading a body or answering.
pub(super) const IDLE: u8 = 0;
pub(super) const HEADER: u8 = 1;
pub(super) const BUSY: u8 = 2;

//! What MLflow alone can answer is passed on, with the relay's own identity and nothing of the agent's; bodies stream both ways.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::Response;
use futures::stream;
use hyper::body::{Frame, SizeHint};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::forward::Forwarder;
use crate::core::relay::cause::Cause;

/// A request for MLflow.
#[derive(Debug)]
pub struct Question {
    /// Its method.
    pub method: Method,
    /// Path and query below MLflow's address.
    pub path: String,
    /// As they came.
    pub headers: HeaderMap,
    /// As it came.
    pub body: Body,
}

/// MLflow's answer is not to be had.
#[derive(Debug, thiserror::Error)]
#[error("MLflow does not answer now ({}); the relay keeps traces meanwhile, and this request has to be sent again", .0.as_str())]
pub struct NoAnswer(pub Cause);

/// MLflow's answer. Its body follows in a task that ends in time, so that an agent that does not read it keeps nobody from MLflow.
pub async fn pass(forwarder: Arc<Forwarder>, question: Question) -> Result<Response, NoAnswer> {
    let (head, answered) = oneshot::channel();
    let (frames, body) = mpsc::channel(FRAMES);
    tokio::spawn(async move {
        let failed = frames.clone();
        if timeout(PATIENCE, ask(&forwarder, question, head, frames)).await.is_err() {
            let _ = failed.send(Err(io::ErrorKind::TimedOut.into())).await;
        }
    });
    let (status, headers) = answered.await.map_err(|_| NoAnswer(Cause::Timeout))??;
    let frames = stream::unfold(body, async |mut body| body.recv().await.map(|frame| (frame, body)));
    let mut response = Response::new(Body::from_stream(frames));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

type Head = Result<(StatusCode, HeaderMap), NoAnswer>;

async fn ask(
    forwarder: &Arc<Forwarder>,
    question: Question,
    head: oneshot::Sender<Head>,
    frames: mpsc::Sender<io::Result<Bytes>>,
) {
    let Some(_place) = forwarder.asking_place().await else {
        let _ = head.send(Err(NoAnswer(Cause::Busy)));
        return;
    };
    let mut answer = match answer(forwarder, question).await {
        Ok(answer) => answer,
        Err(cause) => {
            let _ = head.send(Err(NoAnswer(cause)));
            return;
        }
    };
    let status = answer.status();
    if head.send(Ok((status, only(answer.headers(), &ANSWER_HEADERS)))).is_err() {
        return;
    }
    loop {
        let frame = match answer.chunk().await {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => return,
            Err(error) => Err(io::Error::other(error)),
        };
        // Nobody reads it any more, or it is broken.
        if frame.is_err() | frames.send(frame).await.is_err() {
            return;
        }
    }
}

async fn answer(forwarder: &Forwarder, question: Question) -> Result<reqwest::Response, Cause> {
    let target = forwarder.target().ok_or(Cause::NoAddress)?;
    let mlflow = target.client(&forwarder.http())?;
    let Question { method, path, headers, body } = question;
    let headers = only(&headers, &QUESTION_HEADERS);
    let body = (!body.is_end_stream()).then(|| reqwest::Body::wrap(Bounded { body: Mutex::new(body), left: MAX_BODY }));
    let answer =
        mlflow.pass(method, &path, headers, body, PATIENCE).await.map_err(|error| super::target::cause(&error))?;
    let is_page =
        answer.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    match answer.status().as_u16() {
        300..=399 => Err(Cause::LoginPage),
        429 | 502..=504 => Err(Cause::Busy),
        _ if is_page => Err(Cause::LoginPage),
        _ => Ok(answer),
    }
}

/// What goes on of the headers of one side. Who somebody is and which workspace it is about is none of it.
fn only(headers: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let named = names.iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone())));
    named.collect()
}

/// A body of so many bytes at most. It is read by one task at a time; the lock only says so.
struct Bounded {
    body: Mutex<Body>,
    left: usize,
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let body = self.body.get_mut().unwrap_or_else(PoisonError::into_inner);
        let frame = Pin::new(body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            let length = frame.data_ref().map_or(0, Bytes::len);
            match self.left.checked_sub(length) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Some(Err(axum::Error::new(io::Error::other("the body is too large"))))),
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.lock().unwrap_or_else(PoisonError::into_inner).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.lock().unwrap_or_else(PoisonError::into_inner).size_hint()
    }
}

const QUESTION_HEADERS: [HeaderName; 6] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
    header::RANGE,
    header::USER_AGENT,
];
const ANSWER_HEADERS: [HeaderName; 6] = [
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::RETRY_AFTER,
];
/// Parts of an answer that an agent has not read yet.
const FRAMES: usize = 4;
/// For a question and its answer: an agent that is slow keeps others from MLflow no longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a file that an agent uploads.
const MAX_BODY: usize = 512 << 20;

//! Requests that are somebody else's: the relay sends them as they came.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Body, Method, Response};
use serde_json::Value;

use super::answer::{body, json, transport};
use super::{Error, MlflowClient, send};

impl MlflowClient {
    /// Sends a request with this path and query below the tracking URI, and brings back whatever is answered. Redirects are not followed.
    pub async fn pass(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Option<Body>,
        patience: Duration,
    ) -> Result<Response, Error> {
        let mut request = self.request(method, path).headers(headers).timeout(patience);
        if let Some(body) = body {
            request = request.body(body);
        }
        self.http.measure(async { request.send().await.map_err(transport) }).await
    }

    /// Sends a body and waits so long until MLflow itself has taken it.
    pub async fn write(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        content: Bytes,
        patience: Duration,
    ) -> Result<(), Error> {
        let request = self.request(method, path).header(CONTENT_TYPE, content_type).timeout(patience).body(content);
        // All that MLflow answers is JSON; a login page is none.
        self.http.measure(async { json::<Value>(&body(send(request).await?).await?) }).await.map(|_| ())
    }

    /// A trace's row, without its spans.
    pub async fn trace_row(&self, trace: &str) -> Result<Value, Error> {
        self.json(self.request(Method::GET, &format!("/api/3.0/mlflow/traces/{trace}"))).await
    }

    /// Whether an assessment is there.
    pub async fn has_assessment(&self, trace: &str, assessment: &str) -> Result<bool, Error> {
        let path = format!("/api/3.0/mlflow/traces/{trace}/assessments/{assessment}");
        match self.json::<Value>(self.request(Method::GET, &path)).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound(Some(_))) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

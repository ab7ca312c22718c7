//! How a request ended, in one word.

use super::Error;

/// How a request to an MLflow server ended. Metric label: it never says which server or what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Ok,
    /// The host name does not resolve.
    Dns,
    /// Nothing listens.
    Refused,
    /// The connection breaks.
    Connection,
    /// No answer in time.
    Timeout,
    /// The TLS connection fails.
    Tls,
    /// 401.
    Unauthorized,
    /// 403, whoever says it.
    Forbidden,
    /// 404. Some questions are asked of servers that may not know them.
    NotFound,
    /// 400 and other refusals.
    Rejected,
    /// 5xx or 429.
    Server,
    /// A web page in place of an API, as a login page is.
    LoginPage,
    /// An answer that MLflow does not give, or that only an MLflow without traces gives.
    Garbage,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Ok,
        Self::Dns,
        Self::Refused,
        Self::Connection,
        Self::Timeout,
        Self::Tls,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::Rejected,
        Self::Server,
        Self::LoginPage,
        Self::Garbage,
    ];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Dns => "dns",
            Self::Refused => "refused",
            Self::Connection => "connection",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Rejected => "rejected",
            Self::Server => "server",
            Self::LoginPage => "login_page",
            Self::Garbage => "garbage",
        }
    }

    pub(super) fn of<T>(done: &Result<T, Error>) -> Self {
        match done {
            Ok(_) => Self::Ok,
            Err(Error::Dns(_)) => Self::Dns,
            Err(Error::Refused(_)) => Self::Refused,
            Err(Error::Connection(_) | Error::Client(_)) => Self::Connection,
            Err(Error::Timeout) => Self::Timeout,
            Err(Error::Tls(_)) => Self::Tls,
            Err(Error::Unauthorized) => Self::Unauthorized,
            Err(Error::HostHeader | Error::Forbidden(_) | Error::Mesh) => Self::Forbidden,
            Err(Error::NoWorkspace | Error::NotFound(_)) => Self::NotFound,
            Err(Error::Rejected { .. }) => Self::Rejected,
            Err(Error::Server { .. } | Error::StorageFull { .. }) => Self::Server,
            Err(Error::LoginPage) => Self::LoginPage,
            Err(Error::Garbage | Error::TooOld(_)) => Self::Garbage,
        }
    }
}

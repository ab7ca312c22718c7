//! Why MLflow did not take a request, and whose matter that is.

/// Why a request is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Where MLflow is, is not known yet.
    NoAddress,
    /// No connection, or it broke.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// TLS fails.
    TlsUntrusted,
    /// A web page or a redirect in its place.
    LoginPage,
    /// 401.
    Unauthorized,
    /// 403.
    Forbidden,
    /// The workspace is not there.
    WorkspaceMissing,
    /// No MLflow at this path, or one that takes no OTLP.
    WrongPath,
    /// 429, 502, 503, 504.
    Busy,
    /// Its storage is full.
    StorageFull,
    /// The experiment is not there, or deleted.
    ExperimentMissing,
    /// 400, 409, 422, 500: it may be about this one request.
    Failed,
    /// It is about a trace that is not there.
    TraceMissing,
}

/// Whom a cause holds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everybody.
    Server,
    /// All of one workload and experiment.
    Lane,
    /// This one request.
    Request,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::NoAddress,
        Self::Unreachable,
        Self::Timeout,
        Self::TlsUntrusted,
        Self::LoginPage,
        Self::Unauthorized,
        Self::Forbidden,
        Self::WorkspaceMissing,
        Self::WrongPath,
        Self::Busy,
        Self::StorageFull,
        Self::ExperimentMissing,
        Self::Failed,
        Self::TraceMissing,
    ];

    /// Whom it holds up. What one workload or one request causes must not occupy the way of the others.
    pub fn scope(self) -> Scope {
        match self {
            Self::NoAddress
            | Self::Unreachable
            | Self::Timeout
            | Self::TlsUntrusted
            | Self::LoginPage
            | Self::Unauthorized
            | Self::Forbidden
            | Self::WorkspaceMissing
            | Self::WrongPath
            | Self::Busy
            | Self::StorageFull => Scope::Server,
            Self::ExperimentMissing => Scope::Lane,
            Self::Failed | Self::TraceMissing => Scope::Request,
        }
    }

    /// The cause of that name in `/evidence`. A relay of another version may have others.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == name)
    }

    /// The name in `/evidence` and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoAddress => "NoAddress",
            Self::Unreachable => "Unreachable",
            Self::Timeout => "Timeout",
            Self::TlsUntrusted => "TLSUntrusted",
            Self::LoginPage => "LoginPage",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::WorkspaceMissing => "WorkspaceMissing",
            Self::WrongPath => "WrongPath",
            Self::Busy => "Busy",
            Self::StorageFull => "StorageFull",
            Self::ExperimentMissing => "ExperimentMissing",
            Self::Failed => "Failed",
            Self::TraceMissing => "TraceMissing",
        }
    }
}

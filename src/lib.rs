//! Brings the traces of AI agents on Kubernetes into MLflow, and proves that they arrive.
//!
//! ```text
//! kube-apiserver --AdmissionReview--> webhook           memory: AgentTracings, labelled namespaces
//!     facts + raw template JSON          |                          (no API call per request)
//!                                        v                                   |
//!                           core::decide(facts, policies) <------------------+
//!                                        | Wire(patch)            Leave(why) -> allowed, no patch, counted
//!                                        v
//!                           core::wiring -> core::inject -> JSON patch
//!
//! AgentTracing / child / workload event --> controller::reconcile
//!     observe (IO) -> Settings::parse -> core::desired -> apply (IO) -> core::status -> patch status if changed (IO)
//!                        \-> drift = workloads whose template decide() would change -> touched, so the webhook mends them
//! ```
//!
//! Everything that *decides* is in [`core`]; everything that touches the world is a thin file around it.

pub mod api;
pub mod cli;
pub mod controller;
pub mod core;
pub mod http_server;
pub mod mlflow;
pub mod names;
pub mod run;
pub mod telemetry;
pub mod tls;
pub mod webhook;

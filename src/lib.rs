//! Gets the traces of AI agents on Kubernetes into MLflow, and proves that they arrive.
//!
//! An `AgentTracing` in a labelled namespace says which MLflow its agents use. A mutating webhook adds the environment variables,
//! volumes and init container that an agent needs to pod templates; a controller keeps running workloads, the MLflow server and
//! the status as the spec says.
//!
//! # Data flow
//!
//! ```text
//! kube-apiserver --AdmissionReview--> webhook              cache: AgentTracings, labelled namespaces, ServiceAccounts
//!                                        |                 (filled by watches: a request waits for no API call)
//!                                        v                                   |
//!                  core::decide (selection -> wiring -> inject) <------------+
//!                        | Wire: JSON patch                Leave: allowed without a patch, reason counted
//!                        v
//!                  AdmissionResponse
//!
//! event of an AgentTracing, a child or a workload --> controller::reconcile
//!     observe (reads) -> Settings, Assessments, children (pure) -> apply (writes) -> status (pure, one write if changed)
//!         -> roll out: touch the workloads whose template decide() would change, a few at a time
//!
//! agent-tracing-operator inject -f tracing.yaml -f deployment.yaml      the same decision from files to stdout
//! ```
//!
//! # Where things are
//!
//! | module | what it does | may use |
//! |---|---|---|
//! | [`api`] | the custom resource: spec, status, conditions | nothing of ours |
//! | [`core`] | every decision, as plain functions over plain data | [`api`], [`names`] |
//! | [`webhook`] | answers AdmissionReviews from its cache | [`core`], [`http_server`] |
//! | [`controller`] | reconciles AgentTracings | [`core`], [`mlflow`], the API server |
//! | [`mlflow`] | REST client; knows nothing of Kubernetes | |
//! | [`relay`] | takes traces from agents, keeps and forwards them | [`core`], [`mlflow`], one watch |
//! | [`tls`] | the webhook's certificate and `caBundle`: issue, rotate, reload | the API server |
//! | [`http_server`] | connections: TLS, limits, timeouts, drain | |
//! | [`cli`] | one file per command | |
//! | [`run`] | builds and supervises the long tasks of the operator | everything |
//!
//! `tests/layers.rs` enforces the borders.
//!
//! # Three words of our own
//!
//! - **wiring**: what one container gets so that its traces reach MLflow: variables, and for TLS the parts of its pod. Made in one
//!   place, [`core::wiring`].
//! - **record**: the annotation `agenttracing.dev/injected` on a pod template. It names every entry that we added with a hash of its
//!   value, so that an entry that somebody changed is theirs and the rest can be removed byte for byte ([`core::inject::record`]).
//! - **touch**: the annotation `agenttracing.dev/touch` on a workload. The controller changes it, the API server calls the webhook for
//!   that update, and the webhook injects; so a template is only ever patched in one place ([`core::workloads::rollout`]).
//!
//! All other words are those of Kubernetes, MLflow and OpenTelemetry.

pub mod api;
pub mod cli;
pub mod controller;
pub mod core;
pub mod http_server;
mod lean;
pub mod mlflow;
pub mod names;
mod process;
pub mod relay;
pub mod run;
mod standstill;
pub mod telemetry;
pub mod tls;
pub mod trust;
pub mod webhook;

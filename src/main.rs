//! Entry point: crypto provider, arguments, dispatch, exit code.

use std::process::ExitCode;

use agent_tracing::cli::Cli;
use clap::Parser;

/// The static binary's own allocator (musl's) takes a global lock and system calls where this one takes neither: measured
/// 132 µs of CPU for a 14 KB admission, with this one 77, for 0.1 MiB more at rest (mimalloc: 70, for 12 MiB more).
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    // One provider for every TLS connection; fails only if another one was installed before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match Cli::parse().execute() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

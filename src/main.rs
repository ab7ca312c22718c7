//! Entry point: crypto provider, arguments, dispatch, exit code.

use std::process::ExitCode;

use agent_tracing::cli::Cli;
use clap::Parser;

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

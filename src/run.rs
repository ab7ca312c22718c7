//! x
/// x
#[derive(clap::Args)]
pub struct RunArgs {}
/// x
pub async fn run(_: RunArgs) -> anyhow::Result<()> { Ok(()) }

//! `autolock`: runs programs under the preloads, and reads what the profiler recorded.
//!
//! - [`launch`]: `autolock run` and `autolock profile`.
//! - [`report`]: `autolock report`.

mod launch;
mod report;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(
    name = "autolock",
    version,
    about = "Runs programs under the preloads, and reads what the profiler recorded"
)]
enum Cli {
    Run(launch::RunArgs),
    Profile(launch::ProfileArgs),
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse() {
        Cli::Run(args) => launch::run(&args),
        Cli::Profile(args) => launch::profile(&args),
    }
}

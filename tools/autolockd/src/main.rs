//! `autolockd`'s command line: options, logging, exit codes, and the order of the start.

mod log;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use autolock_oncpu::greeting;
use autolockd::requirements::{self, NotHere};
use autolockd::server::{self, Listener, Server};
use autolockd::{client, instance, kernel, privileges};
use clap::Parser;
use nix::unistd::{Gid, Group};
use tracing::info;

/// Keeps a table of the threads that are on a CPU, by eBPF, and hands it to programs that run on libautolock.so.
///
/// It never forks: run it as a systemd unit, or with --foreground in a terminal. SIGTERM, SIGINT and SIGHUP stop it. The
/// table stays, pinned below --bpffs, for the next autolockd and the programs that have it mapped; --remove removes it.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP)]
struct Options {
    /// Log for people: with times, in colours on a terminal. Without it the log is a service's (levels as `<6>` for the journal), and the
    /// service manager is told when the table is there.
    #[arg(long)]
    foreground: bool,
    /// Say whether an autolockd runs, since when, and what it sees.
    #[arg(long, conflicts_with_all = ["foreground", "remove"])]
    status: bool,
    /// Remove the pinned table of an autolockd that has stopped.
    #[arg(long, conflicts_with = "foreground")]
    remove: bool,
    /// Where programs connect. They look at the default place, or where AUTOLOCK_SOCKET says.
    #[arg(long, value_name = "PATH", default_value = greeting::SOCKET)]
    socket: PathBuf,
    /// Who may connect, in octal: writing to the socket is connecting.
    #[arg(long, value_name = "MODE", default_value = "0666", value_parser = octal)]
    mode: u32,
    /// Give the socket to this group (with --mode 0660: only its members connect).
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// A mounted BPF file system, where the table is pinned.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf")]
    bpffs: PathBuf,
}

const AFTER_HELP: &str = "\
Exit codes:
  0  stopped by a signal; --status: runs and is fresh; --remove: nothing is left
  1  failed; --status: does not run, or is stale
  2  wrong usage
  3  not permitted or not possible here: privileges, kernel, container, no BPF file system

RUST_LOG=debug logs every client.";

fn octal(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("an octal mode up to 0777".to_owned()),
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = if options.status {
        status(&options.socket)
    } else if options.remove {
        remove(&options.bpffs)
    } else {
        log::start(options.foreground);
        serve(&options)
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let refused = error.is::<NotHere>();
            if options.status || options.remove {
                eprintln!("autolockd: {}", line(&error));
            } else {
                tracing::error!("{}", line(&error));
            }
            ExitCode::from(if refused { 3 } else { 1 })
        }
    }
}

/// The error and its causes, without what a cause repeats.
fn line(error: &anyhow::Error) -> String {
    format!("{error:#}").replace('\n', " ")
}

/// Everything that can fail is done before anybody is let in; the capabilities go before the first client comes.
fn serve(options: &Options) -> Result<()> {
    let signals = server::stop_signals()?;
    requirements::check(&options.bpffs)?;
    let group = options.group.as_deref().map(group_id).transpose()?;
    let folder = kernel::own_folder(&options.bpffs)?;
    let _table_lock = instance::lock_table(&folder)?;
    server::make_folder(&options.socket)?;
    let _socket_lock = instance::lock_socket(&options.socket)?;
    privileges::raise_limits();

    let mut table = kernel::Keeper::new(&options.bpffs).map_err(requirements::explain)?;
    let program = table.attach().map_err(requirements::explain)?;
    let listener = Listener::new(&options.socket, options.mode, group)?;
    privileges::drop_unneeded(|| table.beat().is_ok())?;
    let server = Server::new(table, listener, signals)?;

    info!(program, socket = %options.socket.display(), table = %kernel::pin(&options.bpffs).display(), "ready");
    if !options.foreground {
        sd_notify::notify(&[sd_notify::NotifyState::Ready])
            .context("cannot tell the service manager")?;
    }
    // The server goes first (heartbeat 0, program detached, socket removed), then the locks.
    server.run()
}

fn group_id(name: &str) -> Result<Gid> {
    match Group::from_name(name)? {
        Some(group) => Ok(group.gid),
        None => bail!("there is no group {name}: groupadd --system {name}"),
    }
}

fn status(socket: &Path) -> Result<()> {
    let reply = client::ask(socket, Duration::from_secs(1))?;
    let table = reply.table()?;
    let now = autolockd::now_ns();
    // Relaxed: for people.
    let heartbeat = table.heartbeat.load(Relaxed);
    let started = table.started.load(Relaxed);
    if !table.is_fresh(now) {
        bail!(
            "process {} answers at {}, but the table is stale: systemctl restart autolockd",
            reply.daemon,
            socket.display()
        );
    }
    say(&format!(
        "autolockd runs: process {}, for {}\nheartbeat: {} ms ago\nthreads on a CPU now: {}\neBPF program: id {}",
        reply.daemon,
        duration(now.saturating_sub(started)),
        now.saturating_sub(heartbeat) / 1_000_000,
        client::running(&table),
        table.program.load(Relaxed)
    ));
    Ok(())
}

/// On standard output; that nobody reads on is no failure.
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

fn duration(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    match (seconds / 86_400, seconds / 3_600, seconds / 60) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {} min", minutes % 60),
        (days, hours, _) => format!("{days} d {} h", hours % 24),
    }
}

fn remove(bpffs: &Path) -> Result<()> {
    requirements::is_bpffs(bpffs)?;
    let pin = kernel::pin(bpffs);
    let removed = match pin.parent().filter(|folder| folder.exists()) {
        Some(folder) => {
            let _lock = instance::lock_table(folder)?;
            kernel::remove(bpffs)?
        }
        None => false,
    };
    if removed {
        say(&format!("removed {}", pin.display()));
    } else {
        say(&format!(
            "nothing to remove: {} is not there",
            pin.display()
        ));
    }
    Ok(())
}

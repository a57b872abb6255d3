//! What the daemon has, and gives up.
//!
//! `CAP_BPF` and `CAP_PERFMON` load the programs. Afterwards the daemon runs one of them to say that it is alive, which before Linux 5.19 needs
//! `CAP_BPF`; the rest is done by descriptors and by owning files. What is not needed goes, and none can come back.

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises what may be raised: locked memory, which Linux before 5.11 charges a map to, and descriptors, the number of which bounds how many
/// may be on their way to clients that do not read.
pub fn raise_limits() {
    for resource in [Resource::RLIMIT_MEMLOCK, Resource::RLIMIT_NOFILE] {
        if let Ok((_, hard)) = getrlimit(resource) {
            // What it is for may work without.
            let _ = setrlimit(resource, hard, hard);
        }
    }
}

/// Drops every capability, but `CAP_BPF` where `beats` says that the heartbeat does not go without.
///
/// # Errors
/// The kernel's: then the daemon must not go on.
pub fn drop_unneeded(beats: impl Fn() -> bool) -> Result<()> {
    nix::sys::prctl::set_no_new_privs().context("cannot set no_new_privs")?;
    // Without capabilities we would be any such process of our user to trace, who could take the writing programs' descriptors.
    nix::sys::prctl::set_dumpable(false).context("cannot forbid tracing")?;
    // Needs CAP_SETPCAP, which a unit does not give; no_new_privs bounds it as well.
    let _ = caps::clear(None, CapSet::Bounding);
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective] {
        caps::clear(None, set).with_context(|| format!("cannot drop capabilities ({set:?})"))?;
    }
    let mut needed = CapsHashSet::new();
    if !beats() {
        needed.insert(Capability::CAP_BPF);
    }
    for set in [CapSet::Permitted, CapSet::Effective] {
        caps::set(None, set, &needed)
            .with_context(|| format!("cannot drop capabilities ({set:?})"))?;
    }
    Ok(())
}

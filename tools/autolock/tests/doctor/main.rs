//! `autolock doctor` on machines that are made up, with a daemon that says what it is told: no root, no eBPF.
//!
//! - [`machine`]: what the kernel and the user have. [`daemon`]: what it answers, and to whom.
//! - [`programs`], [`processes`]: what they would get, and what they have.
//! - [`world`]: the made-up machine. [`fake`]: the daemon.

mod daemon;
mod fake;
mod machine;
mod processes;
mod programs;
mod world;

use serde_json::Value;
use world::{Said, World};

/// Changes one thing in a world where all is well.
type Spoil = fn(&World);

/// The checks that stand in the way of eBPF, in their order.
fn in_the_way(world: &World) -> Vec<String> {
    checks(&source(&world.doctor(&["--json"]).json(), "ebpf")["obstacles"])
}

fn source(json: &Value, name: &str) -> Value {
    let sources = json["sources"].as_array().expect("a list");
    let found = sources.iter().find(|source| source["name"] == name);
    found.expect("every source is there").clone()
}

fn checks(obstacles: &Value) -> Vec<String> {
    let obstacles = obstacles.as_array().expect("a list").iter();
    let checks = obstacles.map(|obstacle| obstacle["check"].as_str().expect("text").to_owned());
    checks.collect()
}

/// What is said of eBPF, in a line.
fn line(said: &Said) -> &str {
    let mut lines = said.out.lines();
    let found = lines.find(|line| line.starts_with("ebpf: "));
    found.unwrap_or_else(|| panic!("no line: {}{}", said.out, said.err))
}

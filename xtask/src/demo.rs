//! `demo`: from a fresh checkout to memcached on our mutex, in one command.

use std::process::Command;

use anyhow::Result;

use crate::project::Project;
use crate::{dist, packages, shell};

pub fn run(project: &Project, args: &[String]) -> Result<bool> {
    packages::require("memcached")?;
    dist::build(project)?;
    let mut example = Command::new(project.program("memcached-example"));
    example.arg("--lib").arg(project.preload()).args(args);
    Ok(shell::status(&mut example)?.success())
}

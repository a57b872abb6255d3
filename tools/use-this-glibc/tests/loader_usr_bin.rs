//! The model of the dynamic loader against the dynamic loader, over the machine's own programs.

mod loader_support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use loader_support::{SYSTEM, model, real};
use use_this_glibc::elf::{Image, Kind};
use use_this_glibc::loader::{Closure, Loader, Object, versions};
use use_this_glibc::trace;

/// Dynamic programs of /usr/bin that the system's loader starts, each file once; evenly chosen if they are many more than 200.
fn programs() -> Vec<PathBuf> {
    let all = all_programs();
    let step = (all.len() / 250).max(1);
    all.into_iter().step_by(step).collect()
}

fn all_programs() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/usr/bin").expect("read /usr/bin");
    let files: BTreeSet<PathBuf> = entries
        .filter_map(|entry| std::fs::canonicalize(entry.ok()?.path()).ok())
        .collect();
    files
        .into_iter()
        .filter(|path| {
            let Ok(bytes) = std::fs::read(path) else {
                return false;
            };
            let Ok(image) = Image::parse(&bytes) else {
                return false;
            };
            matches!(image.kind(), Kind::Program | Kind::PositionIndependent)
                && image.interpreter() == Some(SYSTEM.as_bytes())
        })
        .collect()
}

#[test]
fn the_model_loads_what_the_loader_loads_in_its_order() {
    let loader = Loader::open(Path::new(SYSTEM)).expect("the system's loader");
    let programs = programs();
    let mut wrong = Vec::new();
    for path in &programs {
        let trace = trace::list(&loader.path, path).expect("a trace");
        let closure = Closure::of(Object::read(path).expect("a program"), &loader);
        let closure = closure.expect("a closure");
        if model(&closure) != real(&trace) {
            wrong.push(format!(
                "{}:\nmodel {:#?}\nloader {:#?}",
                path.display(),
                model(&closure),
                real(&trace)
            ));
        }
    }
    println!("{} programs compared", programs.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    if programs.len() < 200 {
        println!(
            "SKIPPED: only {} dynamic programs in /usr/bin, 200 wanted",
            programs.len()
        );
        assert!(std::env::var_os("CI").is_none(), "too few programs");
    }
}

#[test]
fn a_system_that_works_lacks_no_version() {
    let loader = Loader::open(Path::new(SYSTEM)).expect("the system's loader");
    let mut wrong = Vec::new();
    let mut needs = 0;
    for path in programs().into_iter().step_by(5) {
        let trace = trace::list(&loader.path, &path).expect("a trace");
        if !trace.complaints.is_empty() {
            continue;
        }
        let closure = Closure::of(Object::read(&path).expect("a program"), &loader);
        let closure = closure.expect("a closure");
        let lacks = versions::check(&closure, |_| true).expect("versions");
        // Symbols may come from what the program opens itself; versions are what the loader compares.
        let lacks = lacks.iter().filter(|lack| {
            matches!(
                lack.kind,
                versions::Kind::Version | versions::Kind::NotNeeded
            )
        });
        wrong.extend(lacks.map(|lack| lack.line(&closure)));
        for &object in &closure.order {
            let image = closure.objects[object].image().expect("an image");
            needs += image.needed_versions().expect("needed versions").len();
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(needs > 0, "no version was compared");
}

//! What locks are called: symbols of the program and of libraries, first uses on the heap; the same in every run.

use profile_tests::{Finished, Mode, Profiled, compile, library};
use std::collections::BTreeMap;

fn run() -> Finished {
    let library = library("names_library").build();
    Profiled::new(compile("names").build(), Mode::Sampled)
        .args(&["all", &library.to_string_lossy()])
        .must_be_right()
}

/// Name and id of each lock, and where it was.
fn identities(finished: &Finished) -> BTreeMap<String, (String, u64)> {
    let truth = finished.truth.processes.values().next();
    let mut identities = BTreeMap::new();
    for lock in &truth.expect("a process spoke").locks {
        let found = finished
            .report()
            .locks()
            .iter()
            .find(|found| found["address"] == lock.address)
            .expect("the record was right");
        let id = found["id"].as_str().expect("an id").to_owned();
        identities.insert(lock.name.clone(), (id, lock.address));
    }
    identities
}

#[test]
fn locks_have_their_names() {
    run();
}

#[test]
fn two_runs_give_the_same_ids_at_other_addresses() {
    let (one, other) = (identities(&run()), identities(&run()));
    let mut seen = BTreeMap::new();
    for (name, (id, address)) in &one {
        assert_eq!(id.len(), 16, "{name}: {id}");
        assert_eq!(*id, other[name].0, "{name}");
        assert_ne!(
            *address, other[name].1,
            "{name}: no address is randomised here"
        );
        assert_eq!(seen.insert(id, name), None, "{name} has another lock's id");
    }
    assert!(one.len() >= 8);
}

//! The verifier against a small server that can be told to lie. A verifier that has never been seen
//! to find a fault proves nothing.

use super::*;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    None,
    /// One bit of a value is flipped.
    Corrupt,
    /// A value is cut short by a byte.
    Short,
    /// Another key's value is given.
    OtherKey,
    /// A set is confirmed and dropped.
    LostSet,
    /// An increment is confirmed and dropped.
    LostIncrement,
    /// A get finds nothing.
    Missing,
}

/// One answer in this many is a lie.
const ONE_IN: u64 = 50;

type Store = Arc<Mutex<(HashMap<String, Vec<u8>>, u64)>>;

/// Serves `lie` on a loopback port, a thread per connection, until the connections close.
fn serve(lie: Lie) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    let store = Store::default();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(1 + THREADS).map_while(Result::ok) {
            let store = Arc::clone(&store);
            std::thread::spawn(move || serve_one(stream, &store, lie));
        }
    });
    address
}

fn serve_one(stream: TcpStream, store: &Store, lie: Lie) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let key = words[1].to_string();
        let mut body = Vec::new();
        if words[0] == "set" {
            body.resize(words[4].parse::<usize>().ok()? + 2, 0);
            reader.read_exact(&mut body).ok()?;
            body.truncate(body.len() - 2);
        }
        let answer = answer(
            &mut store.lock().expect("the store"),
            words[0],
            key,
            body,
            lie,
        );
        reader.get_mut().write_all(&answer).ok()?;
    }
}

fn answer(
    store: &mut (HashMap<String, Vec<u8>>, u64),
    verb: &str,
    key: String,
    body: Vec<u8>,
    lie: Lie,
) -> Vec<u8> {
    let (values, count) = store;
    *count += 1;
    // The first requests fill the store: lies begin after them.
    let lying = *count > (KEYS + COUNTERS) as u64 && *count % ONE_IN == 0;
    match verb {
        "set" => {
            if !(lying && lie == Lie::LostSet) {
                values.insert(key, body);
            }
            b"STORED\r\n".to_vec()
        }
        "incr" => {
            let value = values.get_mut(&key).expect("the counter");
            let number: u64 = std::str::from_utf8(value)
                .expect("text")
                .parse()
                .expect("a number");
            if !(lying && lie == Lie::LostIncrement) {
                *value = (number + 1).to_string().into_bytes();
            }
            format!("{}\r\n", number + 1).into_bytes()
        }
        "get" => {
            let mut value = values.get(&key).expect("the key").clone();
            match lie {
                Lie::Corrupt if lying => *value.last_mut().expect("a byte") ^= 4,
                Lie::Short if lying => value.truncate(value.len() - 1),
                Lie::OtherKey if lying => value = values["verify-counter-0"].clone(),
                Lie::Missing if lying => return b"END\r\n".to_vec(),
                _ => {}
            }
            let mut answer = format!("VALUE {key} 0 {}\r\n", value.len()).into_bytes();
            answer.extend_from_slice(&value);
            answer.extend_from_slice(b"\r\nEND\r\n");
            answer
        }
        other => panic!("the verifier sent {other}"),
    }
}

/// Runs the verifier until it has sent enough requests to have met every kind of lie many times.
fn verify(lie: Lie) -> Verified {
    run(serve(lie), Pace::Unpaced, |control| {
        control.record(true);
        control.wait_for(3_000, Duration::from_secs(60))
    })
    .expect("the verifier reached the server")
}

#[test]
fn an_honest_server_has_no_wrong_value() {
    let verified = verify(Lie::None);
    assert_eq!((verified.wrong(0), verified.first_fault), (0, None));
    assert!(verified.requests > 100 && !verified.latencies.is_empty());
}

#[test]
fn every_kind_of_lie_is_found() {
    for lie in [
        Lie::Corrupt,
        Lie::Short,
        Lie::OtherKey,
        Lie::LostSet,
        Lie::LostIncrement,
        Lie::Missing,
    ] {
        let verified = verify(lie);
        assert!(
            verified.wrong(0) > 0,
            "{lie:?} went unnoticed in {} requests",
            verified.requests
        );
        assert!(verified.first_fault.is_some(), "{lie:?}");
    }
}

#[test]
fn a_missing_value_is_excused_only_by_an_eviction() {
    let verified = verify(Lie::Missing);
    assert!(verified.wrong(0) > 0);
    assert_eq!(verified.wrong(1), 0);
}

#[test]
fn a_server_that_closes_the_connection_is_an_error() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || drop(listener.accept()));
    assert!(run(address, Pace::Unpaced, |_| Ok(())).is_err());
}

#[test]
fn a_stall_counts_for_the_requests_it_held_up() {
    let mut latencies = latencies();
    record(&mut latencies, Duration::from_millis(10), MEASURING);
    assert_eq!(latencies.len(), 10);
    record(&mut latencies, Duration::from_millis(10), Pace::Unpaced);
    record(&mut latencies, Duration::from_secs(3_600), Pace::Unpaced);
    assert_eq!(latencies.len(), 12);
}

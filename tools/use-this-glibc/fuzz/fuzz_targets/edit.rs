//! Any change of any bytes gives what was asked for, or a refusal, and the original comes back.
#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (change, file) = checks::split(data);
    checks::edit(file, &change);
});

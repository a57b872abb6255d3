//! Which CPUs the bench runs on: sched_getaffinity(2) and sched_setaffinity(2).
//!
//! Up to 1024 CPUs, as many as glibc's `cpu_set_t` has.

use anyhow::{Context, Result, ensure};
use std::io;

/// The CPUs that the calling thread may run on, rising.
pub fn allowed() -> Result<Vec<usize>> {
    // SAFETY: all-zero bytes are an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer and the size are those of a live set; 0 is the calling thread.
    let rc = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    ensure!(
        rc == 0,
        "cannot ask for the CPUs: {}",
        io::Error::last_os_error()
    );
    let is_set = |&cpu: &usize| {
        // SAFETY: below CPU_SETSIZE.
        unsafe { libc::CPU_ISSET(cpu, &set) }
    };
    Ok((0..libc::CPU_SETSIZE as usize).filter(is_set).collect())
}

/// Lets the calling thread, and threads that it starts, run on `cpus` alone.
pub fn restrict(cpus: &[usize]) -> io::Result<()> {
    // SAFETY: all-zero bytes are an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus.iter().filter(|&&cpu| cpu < libc::CPU_SETSIZE as usize) {
        // SAFETY: below CPU_SETSIZE.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: the pointer and the size are those of a live set; 0 is the calling thread.
    match unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Of the allowed CPUs those that are asked for: `list`, or the first `first`, or all.
pub fn choose(
    allowed: &[usize],
    list: Option<&[usize]>,
    first: Option<usize>,
) -> Result<Vec<usize>> {
    let here = || format!("this process may run on {}", render(allowed));
    let from = list.unwrap_or(allowed);
    if let Some(missing) = from.iter().find(|cpu| !allowed.contains(cpu)) {
        anyhow::bail!("--cpus: no CPU {missing}: {}", here());
    }
    let first = first.unwrap_or(from.len());
    ensure!(
        first <= from.len(),
        "--num-cpus {first}: there are only {}: {}",
        from.len(),
        here()
    );
    Ok(from[..first].to_vec())
}

/// Keeps the process on the chosen CPUs from here on, and says which they are.
pub fn apply(list: Option<&[usize]>, first: Option<usize>) -> Result<Vec<usize>> {
    let chosen = choose(&allowed()?, list, first)?;
    if list.is_some() || first.is_some() {
        restrict(&chosen).with_context(|| format!("cannot run on CPUs {}", render(&chosen)))?;
    }
    Ok(chosen)
}

/// As the kernel writes it: `0-3,8`.
pub fn render(cpus: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let texts: Vec<_> = ranges
        .iter()
        .map(|&(first, last)| match last - first {
            0 => first.to_string(),
            _ => format!("{first}-{last}"),
        })
        .collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_written_as_the_kernel_does() {
        assert_eq!(render(&[0]), "0");
        assert_eq!(render(&[0, 1, 2, 8, 10, 11]), "0-2,8,10-11");
        assert_eq!(render(&[]), "");
    }

    #[test]
    fn the_choice_is_within_what_is_allowed() {
        let choose = |list: Option<&[usize]>, first| choose(&[0, 1, 4], list, first).ok();
        assert_eq!(choose(None, None), Some(vec![0, 1, 4]));
        assert_eq!(choose(None, Some(2)), Some(vec![0, 1]));
        assert_eq!(choose(Some(&[1, 4]), None), Some(vec![1, 4]));
        assert_eq!(choose(Some(&[1, 4]), Some(1)), Some(vec![1]));
        assert_eq!(choose(Some(&[2]), None), None);
        assert_eq!(choose(None, Some(4)), None);
    }

    #[test]
    fn a_thread_stays_where_it_is_put_and_its_children_too() {
        let all = allowed().expect("affinity");
        let last = all[all.len() - 1];
        let (mine, childs) = std::thread::spawn(move || {
            restrict(&[last]).expect("allowed");
            let child = std::thread::spawn(|| allowed().expect("affinity"));
            (allowed().expect("affinity"), child.join().expect("child"))
        })
        .join()
        .expect("thread");
        assert_eq!((mine, childs), (vec![last], vec![last]));
        assert_eq!(allowed().expect("affinity"), all);
    }
}

//! What the kernel complained about: its reports, found in the console's log.

/// How the first line of a report begins, after the time stamp.
const BEGINNINGS: &[&str] = &[
    // Oopses and panics.
    "BUG:",
    "kernel BUG at",
    "Kernel panic",
    "Oops",
    "general protection fault",
    "stack segment:",
    "double fault",
    "traps: PANIC:",
    "PANIC:",
    "unchecked MSR access",
    // WARN_ON, lockdep, RCU.
    "WARNING:",
    "INFO: trying to register non-static key",
    "INFO: lockdep is turned off",
    "DEBUG_LOCKS_WARN_ON",
    "INFO: rcu",
    "rcu: INFO:",
    "rcu_tasks: INFO:",
    "INFO: task ",
    "watchdog: BUG",
    "watchdog: Watchdog detected",
    // Checkers of objects and memory; slub's is "BUG kmalloc-64 (Not tainted): ...".
    "ODEBUG:",
    "UBSAN:",
    "BUG ",
    "refcount_t:",
    "list_add corruption",
    "list_del corruption",
    "page dumped because",
];

/// Lines of one report that are kept.
const KEPT: usize = 60;

/// Its first line and what follows, without time stamps.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    pub lines: Vec<String>,
}

/// QEMU without KVM, each virtual CPU by a thread, now and then runs a breakpoint that the kernel has already taken away again
/// while it switched a static branch: not the kernel's error.
pub fn is_emulators(report: &Report) -> bool {
    let first = report.lines.first();
    first.is_some_and(|line| line.starts_with("Oops: int3"))
}

/// All reports of the log, in order. What comes after a first line belongs to it until there is a rule, or the next first line.
pub fn find(console: &[u8]) -> Vec<Report> {
    let text = String::from_utf8_lossy(console);
    let mut reports: Vec<Report> = Vec::new();
    let mut open = false;
    for line in text.lines().map(|it| message(it.trim_end())) {
        if BEGINNINGS.iter().any(|it| line.starts_with(it)) {
            reports.push(Report { lines: Vec::new() });
            open = true;
        } else if is_rule(line) {
            open = false;
        }
        if open
            && let Some(report) = reports.last_mut()
            && report.lines.len() < KEPT
        {
            report.lines.push(line.to_owned());
        }
    }
    reports
}

/// Above and below a report.
fn is_rule(line: &str) -> bool {
    line.starts_with("---[ end ")
        || line.starts_with("------------[ cut here")
        || (line.len() > 20 && line.chars().all(|c| c == '='))
}

/// Without `[   12.345678]`, and the caller's `[    T1]` that may follow.
fn message(line: &str) -> &str {
    let mut rest = line;
    for _ in 0..2 {
        let stamp = rest.strip_prefix('[').and_then(|it| it.split_once(']'));
        if let Some((stamp, after)) = stamp
            && stamp
                .trim()
                .trim_start_matches(['T', 'C'])
                .chars()
                .all(|c| c.is_ascii_digit() || c == '.')
        {
            rest = after.strip_prefix(' ').unwrap_or(after);
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn firsts(log: &str) -> Vec<String> {
        let reports = find(log.as_bytes()).into_iter();
        reports.map(|it| it.lines[0].clone()).collect()
    }

    #[test]
    fn reports_of_every_checker_are_found_with_and_without_stamps() {
        let log = "\
[    3.210000] ------------[ cut here ]------------\r
[    3.210001] WARNING: CPU: 1 PID: 77 at kernel/x.c:12 f+0x1/0x2\r
[    3.210002] ---[ end trace 0000000000000000 ]---\r
[    4.000000][   T12] WARNING: possible circular locking dependency detected\r
BUG: KASAN: slab-use-after-free in f+0x1/0x2\r
[    5.0] BUG: KCSAN: data-race in f / g\r
[    6.0] BUG: sleeping function called from invalid context at x.c:1\r
[    7.0] rcu: INFO: rcu_preempt self-detected stall on CPU\r
[    8.0] Oops: general protection fault, probably for non-canonical address: 0000 [#1] SMP\r
[    9.0] Kernel panic - not syncing: sysrq triggered crash\r
";
        assert_eq!(firsts(log).len(), 8, "{:?}", firsts(log));
    }

    #[test]
    fn what_a_program_did_wrong_and_ordinary_lines_are_no_report() {
        let log = "\
[    1.0] traps: a[12] general protection fault ip:1 sp:2 error:0 in a[1,2]\r
[    1.1] a[13]: segfault at 0 ip 1 sp 2 error 4 in a[1,2] likely on CPU 0\r
[    1.2] Out of memory: Killed process 14 (a)\r
[    1.3] clocksource: Marking clocksource 'tsc' as unstable\r
[drm] WARNING\r
";
        assert_eq!(firsts(log), Vec::<String>::new());
    }

    #[test]
    fn a_breakpoint_left_over_is_the_emulators_and_other_reports_are_not() {
        let log = "Oops: int3: 0000 [#1] PREEMPT SMP\nOops: general protection fault, maybe\nBUG: KASAN: x in int3\n";
        let reports = find(log.as_bytes());
        let its: Vec<bool> = reports.iter().map(is_emulators).collect();
        assert_eq!(its, [true, false, false]);
    }

    #[test]
    fn a_report_has_its_lines_and_no_others() {
        let log = "\
==================================================================\n\
[    1.0] BUG: KASAN: x in f\n\
[    1.0]\n\
[    1.0] Call Trace:\n\
[    1.0] ==================================================================\n\
[    1.1] afterwards\n";
        let reports = find(log.as_bytes());
        assert_eq!(reports.len(), 1);
        assert_eq!(reports[0].lines, ["BUG: KASAN: x in f", "", "Call Trace:"]);
    }
}

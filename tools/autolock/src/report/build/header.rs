//! What the header says: the process, what is missing, what it cost.

use autolock_capture::layout::{self, Header, ending, mode};

use super::super::bytes::{Item, get, part};
use super::super::model::{Cost, Dropped, Ending, Mode, Process};
use super::super::symbols::clean;
use super::{Builder, LARGEST};

impl Builder<'_> {
    pub(super) fn process(&self, header: Item<'_, Header>, end: u64) -> Process {
        let executable = get!(header, Header, executable);
        let executable = executable
            .split(|&byte| byte == 0)
            .next()
            .unwrap_or_default();
        let command = get!(header, Header, command);
        let length = get!(header, Header, command_length) as usize;
        let command = &command[..command.len().min(length)];
        let command = command.strip_suffix(&[0]).unwrap_or(command);
        let next = self.module_of.get(&get!(header, Header, next_module));
        Process {
            executable: clean(&String::from_utf8_lossy(executable)),
            command: command
                .split(|&byte| byte == 0)
                .filter(|_| !command.is_empty())
                .map(|argument| clean(&String::from_utf8_lossy(argument)))
                .collect(),
            pid: get!(header, Header, pid),
            parent: get!(header, Header, parent),
            started_ns: get!(header, Header, started_realtime_ns),
            duration_ns: end
                .saturating_sub(get!(header, Header, started_ns))
                .min(LARGEST),
            ending: ending_of(
                get!(header, Header, ending),
                get!(header, Header, ending_detail),
            ),
            mode: match get!(header, Header, mode) {
                mode::FULL => Mode::Full,
                _ => Mode::Sampled,
            },
            next: next.map(|&module| self.modules[module].path.clone()),
            threads: 0,
        }
    }
}

fn ending_of(how: u32, detail: u32) -> Ending {
    match how {
        ending::EXIT => Ending::Exit,
        ending::UNDERSCORE_EXIT => Ending::UnderscoreExit(detail),
        ending::QUICK_EXIT => Ending::QuickExit,
        ending::SIGNAL => Ending::Signal(detail),
        _ => Ending::None,
    }
}

pub(super) fn dropped(header: Item<'_, Header>) -> Dropped {
    let dropped = part!(header, Header, dropped);
    Dropped {
        operations: get!(dropped, layout::Dropped, operations),
        threads: get!(dropped, layout::Dropped, threads),
        stacks: get!(dropped, layout::Dropped, stacks),
        sites: get!(dropped, layout::Dropped, sites),
        values: get!(dropped, layout::Dropped, values),
        holds: get!(dropped, layout::Dropped, holds),
    }
}

pub(super) fn cost(header: Item<'_, Header>) -> Cost {
    let cost = part!(header, Header, cost);
    let ns = |picoseconds: u64| picoseconds as f64 / 1000.0;
    Cost {
        native_ns: ns(get!(cost, layout::Cost, native_ps)),
        counted_ns: ns(get!(cost, layout::Cost, counted_ps)),
        timed_ns: ns(get!(cost, layout::Cost, timed_ps)),
    }
}

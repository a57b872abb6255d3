//! Profiles that `pprof` reads: gzipped protocol buffers after `profile.proto` of github.com/google/pprof, whose field numbers these are.
//!
//! Three files, since a profile has one stack a sample: `contention` charges waits to the waiter, as Go's block profile does, `blame` to the
//! holder's acquisition, and `hold` is about holds. What is not in the stack is a label: `lock`, `lock_id`, `kind`, and `holder` or `waiter`,
//! the function that the other stack is known by.

use std::collections::HashMap;
use std::io::Write as _;

use anyhow::Result;
use flate2::{Compression, GzBuilder};
use prost::Message;

use super::{View, names};
use crate::report::identity::kind_name;
use crate::report::model::{self, Report};
use crate::report::rows;

/// What readers leave out of stacks, with what it calls: the layers between a caller and the lock function. Only names that call nothing else.
const DROPPED: &str = concat!(
    r"__gthread_(recursive_)?mutex_(lock|trylock|timedlock)(\(.*\))?",
    r"|__glibcxx_rwlock_(rd|wr|tryrd|trywr|timedrd|timedwr)lock(\(.*\))?",
    r"|std::(\w+::)*\w*mutex\w*::(try_)?lock\w*(\(.*\))?",
    r"|std::(\w+::)*(lock_guard|unique_lock|scoped_lock|shared_lock)<.*>::~?(\w+_lock\w*|lock\w*|try_lock\w*|lock_guard)(\(.*\))?",
);

/// The root message.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Profile {
    #[prost(message, repeated, tag = "1")]
    pub sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    pub sample: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    pub mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    pub location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    pub function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    pub string_table: Vec<String>,
    #[prost(int64, tag = "7")]
    pub drop_frames: i64,
    #[prost(int64, tag = "9")]
    pub time_nanos: i64,
    #[prost(int64, tag = "10")]
    pub duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    pub period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    pub period: i64,
    #[prost(int64, repeated, tag = "13")]
    pub comment: Vec<i64>,
    #[prost(int64, tag = "14")]
    pub default_sample_type: i64,
}

/// What a value is; numbers are indices in the string table, here and below.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct ValueType {
    #[prost(int64, tag = "1")]
    pub r#type: i64,
    #[prost(int64, tag = "2")]
    pub unit: i64,
}

/// Values of a stack, the innermost location first.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    pub location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    pub value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    pub label: Vec<Label>,
}

/// A string beside a sample.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Label {
    #[prost(int64, tag = "1")]
    pub key: i64,
    #[prost(int64, tag = "2")]
    pub str: i64,
}

/// A program or library.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Mapping {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(uint64, tag = "2")]
    pub memory_start: u64,
    #[prost(uint64, tag = "3")]
    pub memory_limit: u64,
    #[prost(uint64, tag = "4")]
    pub file_offset: u64,
    #[prost(int64, tag = "5")]
    pub filename: i64,
    #[prost(int64, tag = "6")]
    pub build_id: i64,
    #[prost(bool, tag = "7")]
    pub has_functions: bool,
    #[prost(bool, tag = "8")]
    pub has_filenames: bool,
    #[prost(bool, tag = "9")]
    pub has_line_numbers: bool,
    #[prost(bool, tag = "10")]
    pub has_inline_frames: bool,
}

/// A code address, and the functions there, the innermost inlined one first.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Location {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(uint64, tag = "2")]
    pub mapping_id: u64,
    #[prost(uint64, tag = "3")]
    pub address: u64,
    #[prost(message, repeated, tag = "4")]
    pub line: Vec<Line>,
}

/// A line of a function.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Line {
    #[prost(uint64, tag = "1")]
    pub function_id: u64,
    #[prost(int64, tag = "2")]
    pub line: i64,
}

/// A function.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Function {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(int64, tag = "2")]
    pub name: i64,
    #[prost(int64, tag = "3")]
    pub system_name: i64,
    #[prost(int64, tag = "4")]
    pub filename: i64,
}

/// The file's bytes.
pub(crate) fn profile(report: &Report, view: View) -> Result<Vec<u8>> {
    let message = Builder::new(report).build(view).encode_to_vec();
    // No time in it: equal reports give equal bytes.
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::default());
    gzip.write_all(&message)?;
    Ok(gzip.finish()?)
}

/// Items that have got their ids.
struct Builder<'a> {
    report: &'a Report,
    profile: Profile,
    strings: HashMap<String, i64>,
    functions: HashMap<&'a model::Function, u64>,
    locations: HashMap<(Option<usize>, u64), u64>,
    /// Of each module.
    mappings: Vec<u64>,
    /// The location of stacks that are not known; 0 until needed.
    unknown: u64,
}

impl<'a> Builder<'a> {
    fn new(report: &'a Report) -> Self {
        let mut builder = Self {
            report,
            profile: Profile::default(),
            strings: HashMap::new(),
            functions: HashMap::new(),
            locations: HashMap::new(),
            mappings: vec![0; report.modules.len()],
            unknown: 0,
        };
        // The first string is the empty one.
        builder.string("");
        builder.modules();
        builder
    }

    fn string(&mut self, text: &str) -> i64 {
        if let Some(&index) = self.strings.get(text) {
            return index;
        }
        let index = self.profile.string_table.len() as i64;
        self.profile.string_table.push(text.to_owned());
        self.strings.insert(text.to_owned(), index);
        index
    }

    /// The executable is the first mapping.
    fn modules(&mut self) {
        let path = &self.report.process.executable;
        let modules = &self.report.modules;
        let main = modules.iter().position(|module| module.path == *path);
        if main.is_none() {
            let filename = self.string(path);
            self.profile.mapping.push(Mapping {
                id: 1,
                filename,
                ..Mapping::default()
            });
        }
        let others = (0..modules.len()).filter(|&index| Some(index) != main);
        for index in main.into_iter().chain(others) {
            let module = &modules[index];
            let mapping = Mapping {
                id: self.profile.mapping.len() as u64 + 1,
                memory_start: module.start,
                memory_limit: module.end,
                filename: self.string(&module.path),
                build_id: self.string(&module.build_id),
                // What has no name here has none that a reader could find.
                has_functions: true,
                ..Mapping::default()
            };
            self.mappings[index] = mapping.id;
            self.profile.mapping.push(mapping);
        }
    }

    fn function(&mut self, function: &'a model::Function) -> u64 {
        if let Some(&id) = self.functions.get(function) {
            return id;
        }
        let name = self.string(&function.name);
        let filename = self.string(function.file.as_deref().unwrap_or_default());
        let id = self.profile.function.len() as u64 + 1;
        self.profile.function.push(Function {
            id,
            name,
            system_name: name,
            filename,
        });
        self.functions.insert(function, id);
        id
    }

    fn location(&mut self, frame: &'a model::Frame) -> u64 {
        let key = (frame.module, frame.address);
        if let Some(&id) = self.locations.get(&key) {
            return id;
        }
        let line = frame
            .functions
            .iter()
            .map(|function| Line {
                function_id: self.function(function),
                line: function.line.map_or(0, i64::from),
            })
            .collect();
        let module = frame
            .module
            .and_then(|index| self.report.modules.get(index));
        let mapping_id = frame
            .module
            .and_then(|index| self.mappings.get(index).copied())
            .unwrap_or(0);
        if let Some(mapping) = mapping_id
            .checked_sub(1)
            .and_then(|index| self.profile.mapping.get_mut(index as usize))
        {
            mapping.has_filenames |= frame.functions.iter().any(|f| f.file.is_some());
            mapping.has_line_numbers |= frame.functions.iter().any(|f| f.line.is_some());
            mapping.has_inline_frames |= frame.functions.len() > 1;
        }
        let id = self.profile.location.len() as u64 + 1;
        self.profile.location.push(Location {
            id,
            mapping_id,
            address: module.map_or(0, |m| m.base).wrapping_add(frame.address),
            line,
        });
        self.locations.insert(key, id);
        id
    }

    fn stack(&mut self, stack: Option<usize>) -> Vec<u64> {
        let frames = stack
            .and_then(|index| self.report.stacks.get(index))
            .map_or(&[][..], |stack| &stack.frames);
        if frames.is_empty() {
            return vec![self.unknown()];
        }
        frames.iter().map(|frame| self.location(frame)).collect()
    }

    /// A sample without a location would not be shown.
    fn unknown(&mut self) -> u64 {
        if self.unknown == 0 {
            let name = self.string("[unknown]");
            let function_id = self.profile.function.len() as u64 + 1;
            self.profile.function.push(Function {
                id: function_id,
                name,
                system_name: name,
                filename: 0,
            });
            self.unknown = self.profile.location.len() as u64 + 1;
            self.profile.location.push(Location {
                id: self.unknown,
                line: vec![Line {
                    function_id,
                    line: 0,
                }],
                ..Location::default()
            });
        }
        self.unknown
    }

    fn label(&mut self, key: &str, value: &str) -> Label {
        Label {
            key: self.string(key),
            str: self.string(value),
        }
    }

    fn build(mut self, view: View) -> Profile {
        let (count, time) = match view {
            View::Wait | View::Blame => ("contentions", "delay"),
            View::Hold => ("holds", "hold"),
        };
        let count = ValueType {
            r#type: self.string(count),
            unit: self.string("count"),
        };
        let time = ValueType {
            r#type: self.string(time),
            unit: self.string("nanoseconds"),
        };
        for site in view.sites(self.report) {
            let (stack, other) = view.stacks(site);
            let mut label = Vec::new();
            if let Some(lock) = self.report.locks.get(site.lock) {
                label.push(self.label("lock", &rows::name(lock)));
                label.push(self.label("lock_id", &lock.id));
                label.push(self.label("kind", kind_name(lock.kind)));
            }
            let other = other.and_then(|index| self.report.stacks.get(index));
            if let Some(name) = names::leaf(other) {
                let key = if view == View::Blame {
                    "waiter"
                } else {
                    "holder"
                };
                label.push(self.label(key, name));
            }
            let sample = Sample {
                location_id: self.stack(stack),
                value: vec![signed(site.count), signed(site.total_ns)],
                label,
            };
            self.profile.sample.push(sample);
        }
        let process = &self.report.process;
        let comment = format!("process {}: {}", process.pid, process.command.join(" "));
        self.profile.comment = vec![self.string(&comment)];
        self.profile.drop_frames = self.string(DROPPED);
        self.profile.time_nanos = process.started_ns;
        self.profile.duration_nanos = signed(process.duration_ns);
        self.profile.sample_type = vec![count, time];
        self.profile.default_sample_type = time.r#type;
        self.profile.period_type = Some(count);
        self.profile.period = 1;
        self.profile
    }
}

/// Values are signed.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

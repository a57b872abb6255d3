//! Inputs that the machine may not have: one program, linked in every way, edited in many, some beyond what can be rewritten.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// What has to become of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Runs as before.
    Works,
    /// Runs as before, or is refused.
    Either,
    /// Must be refused: the line says why.
    Refused,
}

pub struct Input {
    pub name: String,
    pub expect: Expect,
    compiler: &'static str,
    source: &'static str,
    /// After the source on the compiler's command line.
    flags: Vec<String>,
    edit: Edit,
    /// gdb looks at the changed program too.
    pub debug: bool,
}

/// What is done after linking.
#[derive(Clone, Copy)]
enum Edit {
    None,
    /// Commands; `{}` is the file.
    Run(&'static [&'static [&'static str]]),
    Bytes(fn(&mut Vec<u8>)),
    Mode(u32),
}

const PROBE: &str = "probe.c";
const THROWS: &str = "throws.cc";
const BARE: &str = "bare.c";

const USES: &str = "uses.c";

/// The sources, to be written beside the results.
const SOURCES: &[(&str, &str)] = &[
    (PROBE, include_str!("probe.c")),
    (
        THROWS,
        "#include <iostream>\n#include <stdexcept>\n#include <thread>\nstruct Noisy { ~Noisy() { std::cout << \"gone\\n\"; } };\n\
         static void deep(int n) { Noisy it; if (n == 0) throw std::runtime_error(\"thrown\"); deep(n - 1); }\n\
         int main() { try { deep(3); } catch (const std::exception &e) { std::cout << e.what() << std::endl; }\n\
         std::thread([] { try { deep(1); } catch (...) { std::cout << \"in a thread\\n\"; } }).join(); return 3; }\n",
    ),
    (
        USES,
        "extern int outer(void);\n#include <stdio.h>\nint main(void) { printf(\"%d\\n\", outer()); return 3; }\n",
    ),
    (
        "outer.c",
        "extern int inner(void);\nint outer(void) { return inner() + 1; }\n",
    ),
    (
        "inner.c",
        "extern unsigned long crc32(unsigned long, const char *, unsigned);\nint inner(void) { return crc32(0, \"a\", 1) & 0xff; }\n",
    ),
    (
        BARE,
        "#include <unistd.h>\nint main(void) { return write(1, \"bare\\n\", 5) == 5 ? 9 : 1; }\n",
    ),
];

/// How the sources' programs end when all is well.
pub const ENDS: &[i32] = &[7, 3, 9];

/// Makes the file and returns its path; its folder holds nothing else of importance.
pub fn make(input: &Input, folder: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    for (name, text) in SOURCES {
        std::fs::write(folder.join(name), text)?;
    }
    let file = folder.join("program");
    let mut compiler = Command::new(input.compiler);
    compiler
        .current_dir(folder)
        .args(["-O1", "-w", input.source, "-o"])
        .arg(&file)
        .args(&input.flags);
    if input.source == PROBE {
        compiler.args(["-rdynamic", "-lm"]);
    }
    shell::output(&mut compiler)?;
    match input.edit {
        Edit::None => {}
        Edit::Run(commands) => {
            for words in commands {
                let path = file.to_str().context("a path that is no text")?;
                let mut words = words
                    .iter()
                    .map(|word| if *word == "{}" { path } else { word });
                shell::output(
                    Command::new(words.next().context("no command")?)
                        .current_dir(folder)
                        .args(words),
                )?;
            }
        }
        Edit::Bytes(edit) => {
            let mut bytes = std::fs::read(&file)?;
            edit(&mut bytes);
            std::fs::write(&file, bytes)?;
        }
        Edit::Mode(mode) => {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode))?;
        }
    }
    Ok(file)
}

/// All of them, or a few of each sort.
pub fn all(short: bool) -> Vec<Input> {
    let mut inputs = Vec::new();
    for linker in ["bfd", "gold", "lld", "mold"] {
        let with = format!("-fuse-ld={linker}");
        let linked = |what: &str, expect, flags: &[&str]| {
            let flags = std::iter::once(with.as_str()).chain(flags.iter().copied());
            input(&format!("{linker}: {what}"), expect, flags)
        };
        inputs.push(linked("PIE", Expect::Works, &["-pie"]).debugged());
        inputs.push(linked("fixed address", Expect::Works, &["-no-pie"]).debugged());
        inputs.push(linked("PIE, stripped", Expect::Works, &["-pie", "-s"]));
        inputs.push(linked(
            "PIE, all relocations first",
            Expect::Works,
            &["-pie", "-Wl,-z,relro,-z,now"],
        ));
        inputs.push(linked(
            "fixed address, lazy, no RELRO",
            Expect::Works,
            &["-no-pie", "-Wl,-z,norelro,-z,lazy"],
        ));
        inputs.push(linked(
            "PIE, DT_HASH",
            Expect::Works,
            &["-pie", "-Wl,--hash-style=sysv"],
        ));
        inputs.push(linked(
            "PIE, 300 MB of .bss",
            Expect::Works,
            &["-pie", "-DBSS=300000000"],
        ));
        inputs.push(linked(
            "fixed address, 300 MB of .bss",
            Expect::Works,
            &["-no-pie", "-DBSS=300000000"],
        ));
        inputs.push(linked(
            "PIE, DT_RUNPATH there",
            Expect::Works,
            &[
                "-pie",
                "-Wl,--enable-new-dtags,-rpath,$ORIGIN/x:/nonexistent",
            ],
        ));
        inputs.push(linked(
            "PIE, DT_RPATH there",
            Expect::Works,
            &[
                "-pie",
                "-Wl,--disable-new-dtags,-rpath,$ORIGIN/x:/nonexistent",
            ],
        ));
        inputs.push(linked("C++, PIE", Expect::Works, &["-pie"]).of("g++", THROWS));
        inputs.push(
            linked(
                "C++, fixed address, stripped",
                Expect::Works,
                &["-no-pie", "-s"],
            )
            .of("g++", THROWS),
        );
        inputs.push(
            linked(
                "bare, no build id",
                Expect::Works,
                &["-pie", "-Wl,--build-id=none"],
            )
            .of("gcc", BARE),
        );
        inputs.push(
            linked("no section headers", Expect::Works, &["-pie"])
                .then(Edit::Bytes(cut_to_segments)),
        );
        inputs.push(
            linked(
                "fixed address, no section headers",
                Expect::Works,
                &["-no-pie"],
            )
            .then(Edit::Bytes(cut_to_segments)),
        );
        inputs.push(
            linked(
                "section headers zeroed, sections still there",
                Expect::Either,
                &["-pie"],
            )
            .then(Edit::Bytes(|bytes| without_sections(bytes))),
        );
        inputs.push(
            linked("section headers beyond the end", Expect::Either, &["-pie"])
                .then(Edit::Bytes(|bytes| sections_beyond_the_end(bytes))),
        );
        inputs.push(
            linked("edited by patchelf before", Expect::Works, &["-pie"])
                .then(Edit::Run(PATCHELF_RUN_PATH)),
        );
        inputs.push(
            linked(
                "fixed address, edited by patchelf before",
                Expect::Works,
                &["-no-pie"],
            )
            .then(Edit::Run(PATCHELF_RUN_PATH)),
        );
        inputs.push(
            linked(
                "interpreter and needed library by patchelf before",
                Expect::Works,
                &["-pie"],
            )
            .then(Edit::Run(PATCHELF_TWICE)),
        );
        inputs.push(linked("static", Expect::Refused, &["-static", "-no-pie"]).of("gcc", BARE));
        inputs.push(
            linked("appended payload", Expect::Refused, &["-pie"]).then(Edit::Bytes(payload)),
        );
    }
    let pie = |what: &str, expect, flags: &[&str]| {
        input(
            what,
            expect,
            std::iter::once("-pie").chain(flags.iter().copied()),
        )
    };
    let fixed = |what: &str, expect, flags: &[&str]| {
        input(
            what,
            expect,
            std::iter::once("-no-pie").chain(flags.iter().copied()),
        )
    };
    inputs.extend([
        pie(
            "bfd: one page of everything (noseparate-code)",
            Expect::Works,
            &["-fuse-ld=bfd", "-Wl,-z,noseparate-code"],
        ),
        pie(
            "bfd: 2 MB pages",
            Expect::Works,
            &["-fuse-ld=bfd", "-Wl,-z,max-page-size=0x200000"],
        ),
        pie(
            "lld: 64 KB pages",
            Expect::Works,
            &["-fuse-ld=lld", "-Wl,-z,max-page-size=65536"],
        ),
        pie(
            "lld: 2 MB pages, separate loadable segments",
            Expect::Works,
            &[
                "-fuse-ld=lld",
                "-Wl,-z,max-page-size=0x200000,-z,separate-loadable-segments",
            ],
        ),
        fixed(
            "lld: read-only dynamic section",
            Expect::Works,
            &["-fuse-ld=lld", "-Wl,-z,rodynamic"],
        ),
        pie(
            "lld: no RELRO, one segment for code and data to read",
            Expect::Works,
            &["-fuse-ld=lld", "-Wl,-z,norelro,--no-rosegment"],
        ),
        pie(
            "bfd: packed relocations",
            Expect::Works,
            &["-fuse-ld=bfd", "-Wl,-z,pack-relative-relocs"],
        ),
        fixed(
            "bfd: at the lowest address",
            Expect::Works,
            &["-fuse-ld=bfd", "-Wl,-Ttext-segment=0x10000"],
        ),
        pie(
            "bfd: a library's library is found by its own run path alone",
            Expect::Works,
            &["-fuse-ld=bfd"],
        )
        .then(Edit::Run(LIBRARIES)),
        pie(
            "bfd: the run path ends as a symbol's name does",
            Expect::Works,
            &["-fuse-ld=bfd", "-Wl,-rpath,/nonexistent/exported"],
        ),
        pie(
            "bfd: at 64 GB, and anywhere",
            Expect::Works,
            &["-fuse-ld=bfd", "-Wl,-Ttext-segment=0x1000000000"],
        ),
        pie(
            "bfd: near the end of the address space, and anywhere",
            Expect::Either,
            &["-fuse-ld=bfd", "-Wl,-Ttext-segment=0x7ffff0000000"],
        ),
        pie(
            "bfd: executable stack",
            Expect::Works,
            &["-fuse-ld=bfd", "-z", "execstack"],
        ),
        pie(
            "bfd: relocations kept, compressed debug information",
            Expect::Works,
            &["-fuse-ld=bfd", "-Wl,--emit-relocs", "-g", "-gz"],
        ),
        pie(
            "bfd: data aligned to 2 MB",
            Expect::Works,
            &["-fuse-ld=bfd", "-DALIGNED=0x200000"],
        ),
        fixed(
            "lld: data aligned to 2 MB",
            Expect::Works,
            &["-fuse-ld=lld", "-DALIGNED=0x200000"],
        ),
        pie(
            "bfd: sections removed by objcopy",
            Expect::Works,
            &["-fuse-ld=bfd"],
        )
        .then(Edit::Run(&[&[
            "objcopy",
            "-R",
            ".comment",
            "-R",
            ".note.ABI-tag",
            "{}",
        ]])),
        pie(
            "bfd: debug information split off",
            Expect::Works,
            &["-fuse-ld=bfd", "-g"],
        )
        .then(Edit::Run(&[
            &["objcopy", "--only-keep-debug", "{}", "program.debug"],
            &["strip", "{}"],
            &["objcopy", "--add-gnu-debuglink=program.debug", "{}"],
        ])),
        pie(
            "bfd: stripped of everything by strip",
            Expect::Works,
            &["-fuse-ld=bfd"],
        )
        .then(Edit::Run(&[&[
            "strip",
            "--strip-unneeded",
            "-R",
            ".symtab",
            "{}",
        ]])),
        pie(
            "lld: stripped of section headers by llvm-strip",
            Expect::Works,
            &["-fuse-ld=lld"],
        )
        .then(Edit::Run(&[&["llvm-strip", "--strip-sections", "{}"]])),
        pie(
            "bfd: static PIE",
            Expect::Refused,
            &["-fuse-ld=bfd", "-static-pie"],
        )
        .of("gcc", BARE),
        pie("setuid", Expect::Refused, &["-fuse-ld=bfd"]).then(Edit::Mode(0o4755)),
        pie("setgid", Expect::Refused, &["-fuse-ld=bfd"]).then(Edit::Mode(0o2755)),
        pie("read-only", Expect::Works, &["-fuse-ld=bfd"]).then(Edit::Mode(0o555)),
        pie("a capability", Expect::Either, &["-fuse-ld=bfd"])
            .of("gcc", BARE)
            .then(Edit::Run(&[&["setcap", "cap_net_raw=ep", "{}"]])),
        pie("for AArch64", Expect::Refused, &["-fuse-ld=bfd"])
            .then(Edit::Bytes(|bytes| bytes[18] = 183)),
        pie("big-endian", Expect::Refused, &["-fuse-ld=bfd"])
            .then(Edit::Bytes(|bytes| bytes[5] = 2)),
        pie("32-bit", Expect::Refused, &["-fuse-ld=bfd"]).then(Edit::Bytes(|bytes| bytes[4] = 1)),
        pie("empty", Expect::Refused, &["-fuse-ld=bfd"]).then(Edit::Bytes(Vec::clear)),
        pie("a script", Expect::Refused, &["-fuse-ld=bfd"]).then(Edit::Bytes(|bytes| {
            *bytes = b"#!/bin/sh\nexit 3\n".to_vec()
        })),
        pie("a relocatable object", Expect::Refused, &["-fuse-ld=bfd"])
            .then(Edit::Bytes(|bytes| bytes[16] = 1)),
        pie("half of it", Expect::Refused, &["-fuse-ld=bfd"])
            .then(Edit::Bytes(|bytes| bytes.truncate(bytes.len() / 2))),
        pie(
            "payload after cut-off sections",
            Expect::Refused,
            &["-fuse-ld=bfd"],
        )
        .then(Edit::Bytes(|bytes| {
            without_sections(bytes);
            payload(bytes);
        })),
        pie("a core file", Expect::Refused, &["-fuse-ld=bfd"])
            .then(Edit::Bytes(|bytes| bytes[16] = 4)),
    ]);
    if short {
        inputs.retain(|input| !input.name.starts_with("gold") || input.name.ends_with("PIE"));
    }
    inputs
}

const PATCHELF_RUN_PATH: &[&[&str]] = &[&[
    "patchelf",
    "--set-rpath",
    "/nonexistent/so/long/that/it/does/not/fit/in/what/was/there:$ORIGIN",
    "{}",
]];

const PATCHELF_TWICE: &[&[&str]] = &[
    &[
        "patchelf",
        "--set-interpreter",
        "/lib/x86_64-linux-gnu/../x86_64-linux-gnu/ld-linux-x86-64.so.2",
        "{}",
    ],
    &["patchelf", "--set-rpath", "/nonexistent", "{}"],
    &["patchelf", "--add-needed", "libz.so.1", "{}"],
];

/// `libouter.so` has a DT_RUNPATH, for which the program's run path does not count when its own libraries are looked for;
/// `libinner.so` needs one of the system's, and has no run path.
const LIBRARIES: &[&[&str]] = &[
    &["mkdir", "parts", "inner"],
    &[
        "gcc",
        "-shared",
        "-fPIC",
        "inner.c",
        "-o",
        "inner/libinner.so",
        "-l:libz.so.1",
    ],
    &[
        "gcc",
        "-shared",
        "-fPIC",
        "outer.c",
        "-o",
        "parts/libouter.so",
        "-Linner",
        "-linner",
        "-Wl,--enable-new-dtags,-rpath,$ORIGIN/../inner",
        "-l:libz.so.1",
    ],
    &[
        "gcc",
        "-pie",
        "uses.c",
        "-o",
        "{}",
        "-Lparts",
        "-louter",
        "-Wl,--enable-new-dtags,-rpath,$ORIGIN/parts",
        "-Wl,-rpath-link,inner",
    ],
];

fn input<'a>(name: &str, expect: Expect, flags: impl Iterator<Item = &'a str>) -> Input {
    Input {
        name: name.to_owned(),
        expect,
        compiler: "gcc",
        source: PROBE,
        flags: flags.map(str::to_owned).collect(),
        edit: Edit::None,
        debug: false,
    }
}

impl Input {
    fn of(mut self, compiler: &'static str, source: &'static str) -> Self {
        (self.compiler, self.source) = (compiler, source);
        self
    }

    fn debugged(mut self) -> Self {
        self.debug = true;
        self.flags.push("-g".to_owned());
        self
    }

    fn then(mut self, edit: Edit) -> Self {
        self.edit = edit;
        self
    }
}

/// As sstrip leaves it: no section headers, and nothing that no segment needs.
fn cut_to_segments(bytes: &mut Vec<u8>) {
    let number = |at: usize, size: usize| {
        bytes[at..at + size]
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    };
    let table = number(0x20, 8);
    let headers = (0..number(0x38, 2)).map(|index| table + index * 56);
    let end = headers
        .map(|at| number(at + 8, 8) + number(at + 32, 8))
        .max();
    without_sections(bytes);
    bytes.truncate(end.unwrap_or(0));
}

/// `e_shoff`, `e_shnum` and `e_shstrndx` zeroed; what they described is still there.
fn without_sections(bytes: &mut [u8]) {
    bytes[0x28..0x30].fill(0);
    bytes[0x3c..0x40].fill(0);
}

fn sections_beyond_the_end(bytes: &mut [u8]) {
    let beyond = (bytes.len() as u64 + 4096).to_le_bytes();
    bytes[0x28..0x30].copy_from_slice(&beyond);
}

fn payload(bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(
        b"PK\x03\x04 what a self-extracting program carries"
            .repeat(99)
            .as_slice(),
    );
}

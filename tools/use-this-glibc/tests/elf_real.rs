//! The change, on programs that run: three linkers, their layouts, stripped, without section headers, changed by patchelf before.
//!
//! Each program is changed to a copy of the system's loader, to a run path whose library has another answer, and to one more
//! library; what it prints says which loader, which libraries, in which order.

mod elf_support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use elf_support::checks;
use use_this_glibc::elf::{Change, Image, Kind, RunPath, apply, undo};

const PROGRAM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

int answer(void);
#ifdef BSS
static char large[BSS];
#endif
static char small[5000];
static _Thread_local int local = 7;
static int constructed;
__attribute__((constructor)) static void construct(void) { constructed = 1; }

__attribute__((noinline)) void marker(void) { __asm__ volatile(""); }

static void *thread(void *argument) {
    local += *(int *)argument;
    printf("thread %d\n", local);
    fflush(stdout);
    pthread_exit(NULL); /* unwinds, by the program headers */
}

static int each(struct dl_phdr_info *info, size_t size, void *first) {
    const char *name = strrchr(info->dlpi_name, '/');
    name = name ? name + 1 : info->dlpi_name;
    if (*(int *)first) {
        *(int *)first = 0;
        if ((const void *)info->dlpi_phdr != (const void *)getauxval(AT_PHDR) || info->dlpi_phnum != getauxval(AT_PHNUM))
            puts("the loader's and the kernel's program headers differ");
        for (int i = 0; i < info->dlpi_phnum; i++)
            if (info->dlpi_phdr[i].p_type == PT_INTERP)
                printf("interpreter %s\n", (const char *)info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    } else if (*name && !strstr(name, "vdso") && !strstr(name, "ld-linux"))
        printf("library %s\n", name);
    return 0;
}

static void print_loader(void) {
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[4096];
    unsigned long base = getauxval(AT_BASE), start;
    while (fgets(line, sizeof line, maps))
        if (sscanf(line, "%lx-", &start) == 1 && start == base)
            printf("loader %s", strchr(line, '/'));
    fclose(maps);
}

int main(int argc, char **argv) {
    for (size_t i = 0; i < sizeof small; i++)
        if (small[i]) return 99;
    memset(small, 1, sizeof small);
#ifdef BSS
    for (size_t i = 0; i < sizeof large; i += 1 << 16)
        if (large[i]) return 98;
    large[0] = large[sizeof large - 1] = 1;
#endif
    void *heap[100];
    for (int i = 0; i < 100; i++) memset(heap[i] = malloc(3000), 2, 3000);
    for (int i = 0; i < 100; i++) free(heap[i]);
    struct link_map *map = dlopen(NULL, RTLD_NOW);
    for (ElfW(Dyn) *d = map->l_ld; d->d_tag; d++)
        if (d->d_tag == DT_DEBUG)
            printf("a debugger finds the libraries: %d\n", ((struct r_debug *)d->d_un.d_ptr)->r_map == map);
    printf("constructed %d, answer %d, %d arguments\n", constructed, answer(), argc);
    print_loader();
    int first = 1;
    dl_iterate_phdr(each, &first);
    fflush(stdout);
    pthread_t id;
    if (pthread_create(&id, NULL, thread, &argc) || pthread_join(id, NULL)) return 97;
    marker();
    return 0;
}
"#;

/// A folder with two answers, one more library and a copy of the loader.
struct Workshop {
    folder: tempfile::TempDir,
}

impl Workshop {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let workshop = Self { folder };
        for name in ["old", "new", "ld"] {
            fs::create_dir(workshop.path(name)).expect("a folder");
        }
        fs::write(workshop.path("program.c"), PROGRAM).expect("written");
        fs::write(
            workshop.path("answer.c"),
            "int answer(void) { return ANSWER; }",
        )
        .expect("written");
        fs::write(
            workshop.path("more.c"),
            "#include <stdio.h>\n__attribute__((constructor)) static void more(void) { puts(\"one more\"); }",
        )
        .expect("written");
        let library = |output: &str, source: &str, define: &str| {
            let output = workshop.path(output);
            workshop.compile(&output, source, &["-shared", "-fPIC", define]);
        };
        library("old/libanswer.so", "answer.c", "-DANSWER=1");
        library("new/libanswer.so", "answer.c", "-DANSWER=2");
        library("new/libmore.so", "more.c", "-DMORE");
        fs::copy("/lib64/ld-linux-x86-64.so.2", workshop.loader()).expect("the system's loader");
        workshop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn loader(&self) -> PathBuf {
        self.path("ld/ld-linux-x86-64.so.2")
    }

    fn compile(&self, output: &Path, source: &str, flags: &[&str]) {
        let result = Command::new("gcc")
            .current_dir(self.folder.path())
            .args(["-O1", "-g", "-o"])
            .arg(output)
            .arg(source)
            .args(flags)
            .output()
            .expect("gcc runs");
        assert!(
            result.status.success(),
            "{flags:?}: {}",
            String::from_utf8_lossy(&result.stderr)
        );
    }

    /// The program, with the old run path.
    fn program(&self, flags: &[&str]) -> Vec<u8> {
        let output = self.path("program");
        let run_path = format!("-Wl,-rpath,{}", self.path("old").display());
        let mut all = vec!["-Lold", "-lanswer", "-pthread", &run_path];
        all.extend(flags);
        self.compile(&output, "program.c", &all);
        fs::read(output).expect("compiled")
    }

    fn change(&self) -> Change {
        Change {
            interpreter: Some(self.loader().into_os_string().into_encoded_bytes()),
            run_path: Some((
                RunPath::Rpath,
                self.path("new").into_os_string().into_encoded_bytes(),
            )),
            add_needed: vec![b"libmore.so".to_vec()],
        }
    }

    /// Writes the file as a program and gives its path.
    fn install(&self, name: &str, file: &[u8]) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path(name);
        fs::write(&path, file).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
        path
    }

    fn run(&self, file: &[u8]) -> String {
        let path = self.install("run", file);
        // Another test's fork may hold the file open for writing until its exec.
        let result = loop {
            match Command::new(&path).arg("x").output() {
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {}
                result => break result.expect("starts"),
            }
        };
        let text = String::from_utf8_lossy(&result.stdout).into_owned();
        assert!(
            result.status.success(),
            "{:?}\n{text}{}",
            result.status,
            String::from_utf8_lossy(&result.stderr)
        );
        text
    }

    /// The original runs as ever, the changed one by the new loader and libraries, and the original comes back.
    fn prove(&self, what: &str, original: &[u8]) {
        let before = self.run(original);
        assert!(before.contains("answer 1,"), "{what}: {before}");
        let change = self.change();
        assert!(
            checks::edit(original, &change),
            "{what}: {:?}",
            apply(original, &change).err()
        );
        let changed = apply(original, &change).expect("as above");
        let after = self.run(&changed);
        let loader = self.loader();
        let loader = loader.display();
        // Everything but what was asked for is the same: as many libraries, in the same order, and one more.
        let mut expected = String::from("one more\n");
        for line in before.lines() {
            let line = match line.split_once(' ') {
                Some((word @ ("loader" | "interpreter"), _)) => format!("{word} {loader}"),
                // After the libraries.
                Some(("thread", _)) => format!("library libmore.so\n{line}"),
                _ => line.replace("answer 1,", "answer 2,"),
            };
            expected += &line;
            expected.push('\n');
        }
        assert_eq!(after, expected, "{what}");
        assert_eq!(
            undo::original(&changed),
            Ok(Some(original.to_vec())),
            "{what}"
        );
    }
}

/// Says that a tool is missing; in CI that is an error.
fn missing(tool: &str, package: &str) -> bool {
    if Command::new(tool).arg("--version").output().is_ok() {
        return false;
    }
    println!("SKIPPED: {tool} is not installed: apt install {package}");
    assert!(
        std::env::var_os("CI").is_none(),
        "{tool} is missing: apt install {package}"
    );
    true
}

fn with_linker(name: &str, package: &str, layouts: &[&[&str]]) {
    if missing(&format!("ld.{name}"), package) {
        return;
    }
    let workshop = Workshop::new();
    let linker = format!("-fuse-ld={name}");
    for position in ["-pie", "-no-pie"] {
        for layout in layouts {
            let code = if position == "-pie" {
                "-fPIE"
            } else {
                "-fno-pie"
            };
            let flags = [&[linker.as_str(), position, code], *layout].concat();
            let program = workshop.program(&flags);
            workshop.prove(&format!("{flags:?}"), &program);
        }
    }
}

const COMMON: &[&[&str]] = &[
    &[],
    &["-s"],
    &["-Wl,-z,relro,-z,now"],
    &["-Wl,-z,norelro"],
    &["-Wl,-z,max-page-size=0x200000"],
    &["-Wl,--enable-new-dtags"],
    &["-Wl,--disable-new-dtags"],
    &["-Wl,--hash-style=sysv"],
    &["-DBSS=(40<<20)"],
    &["-DBSS=(1<<30)"],
];

#[test]
fn linked_by_bfd() {
    let own: &[&[&str]] = &[
        &["-Wl,-z,noseparate-code"],
        &["-Wl,-z,separate-code"],
        &["-Wl,-z,noseparate-code,-z,max-page-size=0x200000"],
        &["-Wl,--spare-dynamic-tags=0"],
    ];
    with_linker("bfd", "binutils", &[COMMON, own].concat());
}

#[test]
fn linked_by_gold() {
    let own: &[&[&str]] = &[&["-Wl,--rosegment"], &["-Wl,--spare-dynamic-tags=0"]];
    with_linker("gold", "binutils", &[COMMON, own].concat());
}

#[test]
fn linked_by_lld() {
    let own: &[&[&str]] = &[
        &["-Wl,--no-rosegment"],
        &["-Wl,-z,separate-code"],
        &["-Wl,-z,separate-loadable-segments"],
        &["-Wl,-z,rodynamic"],
    ];
    with_linker("lld", "lld", &[COMMON, own].concat());
}

#[test]
fn without_section_headers() {
    let workshop = Workshop::new();
    for position in ["-pie", "-no-pie"] {
        let mut program = workshop.program(&[position, "-s"]);
        let end = segments_end(&program);
        program.truncate(end);
        for at in [40..48, 58..64] {
            program[at].fill(0);
        }
        workshop.prove("section headers cut off", &program);
    }
    if missing("llvm-strip", "llvm") {
        return;
    }
    workshop.program(&[]);
    let path = workshop.path("program");
    let status = Command::new("llvm-strip")
        .arg("--strip-sections")
        .arg(&path)
        .status();
    assert!(status.expect("runs").success());
    workshop.prove(
        "llvm-strip --strip-sections",
        &fs::read(&path).expect("there"),
    );
}

fn segments_end(file: &[u8]) -> usize {
    let number =
        |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().expect("eight bytes")) as usize;
    let table = number(32);
    let ends = (0..usize::from(file[56]))
        .map(|index| table + index * 56)
        .map(|at| number(at + 8) + number(at + 32));
    ends.max().expect("segments")
}

#[test]
fn changed_by_patchelf_before() {
    if missing("patchelf", "patchelf") {
        return;
    }
    let workshop = Workshop::new();
    for position in ["-pie", "-no-pie"] {
        for arguments in [
            &[
                "--set-rpath",
                &format!("{}:/{}", workshop.path("old").display(), "x".repeat(5000)),
            ][..],
            &[
                "--add-needed",
                "libm.so.6",
                "--set-interpreter",
                "/lib/../lib/../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
            ],
            &[
                "--force-rpath",
                "--set-rpath",
                &workshop.path("old").display().to_string(),
            ],
        ] {
            workshop.program(&[position]);
            let path = workshop.path("program");
            let status = Command::new("patchelf").args(arguments).arg(&path).status();
            assert!(status.expect("runs").success());
            workshop.prove("patchelf", &fs::read(&path).expect("there"));
        }
    }
}

#[test]
fn a_second_change_after_taking_back_the_first_is_as_if_it_were_the_only_one() {
    let workshop = Workshop::new();
    let program = workshop.program(&[]);
    let other = Change {
        run_path: Some((RunPath::Runpath, b"/somewhere/else".to_vec())),
        ..workshop.change()
    };
    let first = apply(&program, &other).expect("changed");
    let back = undo::original(&first)
        .expect("our record")
        .expect("our record");
    assert_eq!(
        apply(&back, &workshop.change()),
        apply(&program, &workshop.change())
    );
}

#[test]
fn static_programs_are_told_and_refused() {
    let workshop = Workshop::new();
    fs::write(workshop.path("static.c"), "int main(void) { return 0; }").expect("written");
    for how in ["-static", "-static-pie"] {
        let output = workshop.path("static");
        workshop.compile(&output, "static.c", &[how]);
        let file = fs::read(output).expect("compiled");
        assert_eq!(
            Image::parse(&file).expect("whole").kind(),
            Kind::Static,
            "{how}"
        );
        assert!(!checks::edit(&file, &workshop.change()), "{how}");
    }
}

#[test]
fn a_truncated_program_is_refused_at_every_length() {
    let workshop = Workshop::new();
    let program = workshop.program(&["-s"]);
    let end = segments_end(&program);
    for length in (0..end).step_by(61) {
        assert!(
            apply(&program[..length], &workshop.change()).is_err(),
            "{length}"
        );
    }
}

#[test]
fn libraries_of_the_system_are_read_as_readelf_reads_them() {
    if missing("readelf", "binutils") {
        return;
    }
    let workshop = Workshop::new();
    let mut files = vec![
        PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"),
        PathBuf::from("/lib/x86_64-linux-gnu/libm.so.6"),
    ];
    for linker in ["bfd", "gold", "lld"] {
        for hash in ["gnu", "sysv", "both"] {
            if !missing(&format!("ld.{linker}"), "binutils lld") {
                let program = workshop.program(&[
                    &format!("-fuse-ld={linker}"),
                    &format!("-Wl,--hash-style={hash}"),
                ]);
                files.push(workshop.install(&format!("{linker}-{hash}"), &program));
            }
        }
    }
    for path in files {
        let file = fs::read(&path).expect("there");
        let image = Image::parse(&file).expect("whole");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut ours: Vec<String> = Vec::new();
        for symbol in image.symbols().expect("whole") {
            // readelf shows a version's own symbol without it.
            let version = symbol
                .version
                .filter(|&version| version != symbol.name)
                .map(|version| format!("@{}", text(version)))
                .unwrap_or_default();
            let bind = if symbol.weak { "WEAK" } else { "GLOBAL" };
            ours.push(format!(
                "{bind} {} {}{version}",
                if symbol.defined { "defined" } else { "UND" },
                text(symbol.name)
            ));
        }
        let mut theirs = readelf_symbols(&path);
        ours.sort();
        theirs.sort();
        assert!(!ours.is_empty());
        let unlike: Vec<_> = ours.iter().filter(|one| !theirs.contains(one)).collect();
        assert!(unlike.is_empty(), "{}: {unlike:?}", path.display());
        assert_eq!(ours.len(), theirs.len(), "{}", path.display());
        let needed: Vec<String> = image.needed().iter().map(|name| text(name)).collect();
        assert_eq!(needed, readelf_needed(&path), "{}", path.display());
    }
}

fn readelf(path: &Path, what: &str) -> String {
    let output = Command::new("readelf")
        .args(["-W", what])
        .arg(path)
        .output()
        .expect("runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Bind, whether defined, name and version, of symbols that are not local.
fn readelf_symbols(path: &Path) -> Vec<String> {
    let text = readelf(path, "--dyn-syms");
    let symbol = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &[_, _, _, _, bind, _, section, name, ..] = fields.as_slice() else {
            return None;
        };
        if !["GLOBAL", "WEAK", "UNIQUE"].contains(&bind) {
            return None;
        }
        let bind = if bind == "WEAK" { bind } else { "GLOBAL" };
        let section = if section == "UND" { section } else { "defined" };
        Some(format!("{bind} {section} {}", name.replace("@@", "@")))
    };
    text.lines().filter_map(symbol).collect()
}

fn readelf_needed(path: &Path) -> Vec<String> {
    let text = readelf(path, "-d");
    let name = |line: &str| {
        let (_, name) = line.split_once("(NEEDED)")?;
        Some(
            name.split_once('[')?
                .1
                .trim_end()
                .trim_end_matches(']')
                .to_owned(),
        )
    };
    text.lines().filter_map(name).collect()
}

#[test]
fn a_debugger_sees_the_libraries_of_a_changed_program() {
    if missing("gdb", "gdb") {
        return;
    }
    let workshop = Workshop::new();
    // With room for the new entries, and without: the dynamic section moves then.
    for flags in [
        &["-pie"][..],
        &["-no-pie"],
        &["-pie", "-Wl,--spare-dynamic-tags=0"],
        &["-no-pie", "-Wl,--spare-dynamic-tags=0"],
    ] {
        let program = workshop.program(flags);
        let changed = apply(&program, &workshop.change()).expect("changed");
        let path = workshop.install("debugged", &changed);
        let output = Command::new("gdb")
            .args([
                "-nx",
                "-batch",
                "-ex",
                "set debuginfod enabled off",
                "-ex",
                "break marker",
                "-ex",
                "run",
            ])
            .args(["-ex", "backtrace", "-ex", "info sharedlibrary"])
            .arg(&path)
            .output()
            .expect("runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        for seen in [
            "Breakpoint 1, marker",
            "in main (",
            "new/libanswer.so",
            "new/libmore.so",
            "libc.so.6",
            "ld/ld-linux-x86-64.so.2",
        ] {
            assert!(
                text.contains(seen),
                "{flags:?}: {seen} is missing in\n{text}{errors}"
            );
        }
    }
}

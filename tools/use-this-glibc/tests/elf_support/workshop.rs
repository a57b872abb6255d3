//! Programs that run, and what they say before and after the change.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use use_this_glibc::elf::{Change, RunPath, apply, undo};

use super::checks;

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
pub struct Workshop {
    folder: tempfile::TempDir,
}

impl Workshop {
    pub fn new() -> Self {
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

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn loader(&self) -> PathBuf {
        self.path("ld/ld-linux-x86-64.so.2")
    }

    pub fn compile(&self, output: &Path, source: &str, flags: &[&str]) {
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
    pub fn program(&self, flags: &[&str]) -> Vec<u8> {
        let output = self.path("program");
        let run_path = format!("-Wl,-rpath,{}", self.path("old").display());
        let mut all = vec!["-Lold", "-lanswer", "-pthread", &run_path];
        all.extend(flags);
        self.compile(&output, "program.c", &all);
        fs::read(output).expect("compiled")
    }

    pub fn change(&self) -> Change {
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
    pub fn install(&self, name: &str, file: &[u8]) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path(name);
        fs::write(&path, file).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
        path
    }

    pub fn run(&self, file: &[u8]) -> String {
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
    pub fn prove(&self, what: &str, original: &[u8]) {
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
pub fn missing(tool: &str, package: &str) -> bool {
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

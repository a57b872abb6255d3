//! The command line as a user meets it: each refusal with its one line and exit status, and what is printed.

mod cli;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use cli::{Scene, identity, skip};
use serde_json::Value;

#[test]
fn wrong_usage_is_one_line_and_2() {
    let scene = Scene::new();
    let before = scene.names();
    let cases: &[(&[&str], &str)] = &[
        (&[], "give a PREFIX and a program"),
        (&["-i"], "give a PREFIX and a program"),
        (&["-i", "prefix"], "name at least one program"),
        (&["--restore"], "--restore which program?"),
        (&["prefix", "exe"], "--output FILE or --in-place"),
        (
            &["-o", "x", "prefix", "exe", "exe"],
            "--output is for one program",
        ),
        (&["-o", "x", "-i", "prefix", "exe"], "cannot be used with"),
        (&["-i", "--check", "prefix", "exe"], "cannot be used with"),
        (&["--check", "-n", "prefix", "exe"], "cannot be used with"),
        (&["--restore", "--check", "exe"], "cannot be used with"),
        (&["--restore", "--runpath", "exe"], "cannot be used with"),
        (
            &[
                "-i",
                "--no-backup",
                "--backup-suffix",
                ".x",
                "prefix",
                "exe",
            ],
            "cannot be used with",
        ),
        (
            &["-i", "--backup-suffix", "", "prefix", "exe"],
            "--backup-suffix",
        ),
        (
            &["-i", "--backup-suffix", "/x", "prefix", "exe"],
            "--backup-suffix",
        ),
        (
            &["-i", "--add-needed", "", "prefix", "exe"],
            "--add-needed is empty",
        ),
        (&["--print-env"], "one PREFIX"),
        (&["--print-env", "prefix", "exe"], "one PREFIX"),
        (&["--no-such-option"], "--no-such-option"),
        (&["-i", "no-such-folder", "exe"], "no-such-folder"),
        (&["-o", "exe", "prefix", "exe"], "is the program itself"),
        (&["-o", "prefix", "prefix", "exe"], "is a folder"),
        (&["-o", "..", "prefix", "exe"], "names no file"),
    ];
    for (arguments, what) in cases {
        let done = scene.tool(arguments).fails(2, what);
        assert_eq!(done.out, "", "{arguments:?}");
    }
    assert_eq!(scene.names(), before);
}

#[test]
fn help_and_version_go_to_stdout() {
    let scene = Scene::new();
    let help = scene.tool(&["--help"]).fine().out;
    for word in [
        "--in-place",
        "--restore",
        "Exit status: 0 done, 1",
        "PREFIX EXE...",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
    assert!(!help.contains('\u{1b}'));
    let version = scene.tool(&["--version"]).fine().out;
    assert_eq!(
        version,
        format!("use-this-glibc {}\n", env!("CARGO_PKG_VERSION"))
    );
}

/// The same file with some bytes of its header replaced.
fn with_header(bytes: &[u8], at: usize, value: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + value.len()].copy_from_slice(value);
    bytes
}

#[test]
fn what_is_not_ours_is_refused_with_a_line_and_3() {
    let scene = Scene::new();
    let exe = scene.read("exe");
    let class = 4;
    let order = 5;
    let kind = 16;
    let machine = 18;
    scene.write("32-bit", with_header(&exe, class, &[1]));
    scene.write("big-endian", with_header(&exe, order, &[2]));
    scene.write("aarch64", with_header(&exe, machine, &183u16.to_le_bytes()));
    scene.write("core", with_header(&exe, kind, &4u16.to_le_bytes()));
    scene.write("cut", &exe[..exe.len() / 3]);
    scene.write("stub", &exe[..10]);
    scene.write("empty", "");
    scene.write("text", "no program\n");
    scene.write("script", "#!/usr/bin/env sh\nexit 1\n");
    scene.write(
        "payload",
        [exe.as_slice(), b"PK\x03\x04 and so on"].concat(),
    );
    scene.write("setuid", &exe);
    scene.write("setgid", &exe);
    fs::create_dir(scene.path("folder")).expect("a folder");
    nix::unistd::mkfifo(&scene.path("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    for (name, mode) in [("setuid", 0o4755), ("setgid", 0o2755)] {
        fs::set_permissions(scene.path(name), fs::Permissions::from_mode(mode)).expect("chmod");
    }
    assert!(scene.compile("library", &["-shared", "-fPIC"]));
    assert!(scene.compile("object", &["-c"]));
    let mut cases = vec![
        ("32-bit", "32-bit"),
        ("big-endian", "big-endian"),
        ("aarch64", "x86-64"),
        ("core", "core"),
        ("cut", "cut"),
        ("stub", "stub"),
        ("empty", "empty"),
        ("text", "ELF"),
        ("script", "script: rewrite its interpreter /"),
        ("payload", "appended"),
        ("setuid", "setuid"),
        ("setgid", "setgid"),
        ("folder", "a folder"),
        ("pipe", "a device, pipe or socket"),
        ("/dev/null", "a device, pipe or socket"),
        ("library", "library"),
        ("object", "object"),
    ];
    if scene.compile("static", &["-static"]) && scene.compile("static-pie", &["-static-pie"]) {
        cases.extend([("static", "static"), ("static-pie", "static")]);
    } else {
        skip("no libc.a to link statically");
    }
    let before = scene.names();
    for (name, what) in cases {
        let file = scene.path(name);
        let was = (!name.contains("pipe") && !name.starts_with('/')).then(|| identity(&file));
        for verb in ["-i", "-n", "--check"] {
            let done = scene.tool(&[verb, "prefix", name]).fails(3, what);
            assert!(done.err.contains(name), "{done:?}");
            assert_eq!(done.out, "");
        }
        scene.tool(&["-o", "new", "prefix", name]).fails(3, what);
        if let Some(was) = was {
            assert!(identity(&file) == was, "{name} was touched");
        }
    }
    assert_eq!(scene.names(), before);
}

#[test]
fn what_is_not_there_is_4() {
    let scene = Scene::new();
    scene
        .tool(&["-i", "prefix", "missing"])
        .fails(4, "cannot read missing: No such file");
    std::os::unix::fs::symlink("nowhere", scene.path("dangling")).expect("a link");
    scene
        .tool(&["-i", "prefix", "dangling"])
        .fails(4, "cannot read dangling");
    scene
        .tool(&["-o", "no-folder/x", "prefix", "exe"])
        .fails(4, "no-folder");
}

#[test]
fn a_library_that_is_not_found_is_1_and_nothing_written() {
    let scene = Scene::new();
    assert!(scene.compile_text(
        "libgone.so",
        "int gone(void) { return 1; }",
        &["-shared", "-fPIC"]
    ));
    let main = "int gone(void); int main(void) { return gone(); }";
    assert!(scene.compile_text("exe", main, &["-L.", "-lgone"]));
    fs::remove_file(scene.path("libgone.so")).expect("the library");
    let was = identity(&scene.path("exe"));
    for arguments in [
        ["-i", "prefix", "exe"],
        ["-n", "prefix", "exe"],
        ["--check", "prefix", "exe"],
    ] {
        scene.tool(&arguments).fails(1, "libgone.so");
    }
    scene
        .tool(&["-o", "new", "prefix", "exe"])
        .fails(1, "libgone.so");
    assert!(identity(&scene.path("exe")) == was);
    assert_eq!(scene.names(), ["exe"]);
}

#[test]
fn dry_run_and_check_write_nothing() {
    let scene = Scene::new();
    let was = identity(&scene.path("exe"));
    let plain = scene.tool(&["-n", "prefix", "exe"]).fine().out;
    assert!(plain.starts_with("exe: would be changed\n"), "{plain}");
    assert!(
        plain.contains("PT_INTERP") && plain.contains("DT_RPATH"),
        "{plain}"
    );
    assert_eq!(scene.tool(&["-n", "-i", "prefix", "exe"]).fine().out, plain);
    let output = scene.tool(&["-n", "-o", "new", "prefix", "exe"]).fine().out;
    assert!(
        output.contains("written to") && output.contains("/new"),
        "{output}"
    );
    scene
        .tool(&["--check", "prefix", "exe"])
        .fails(1, "exe is not as it would be made: PT_INTERP /");
    assert!(identity(&scene.path("exe")) == was);
    assert_eq!(scene.names(), ["exe"]);

    scene.tool(&["-i", "--no-backup", "prefix", "exe"]).fine();
    let was = identity(&scene.path("exe"));
    let said = scene.tool(&["--check", "prefix", "exe"]).fine().out;
    assert_eq!(said, "exe: already so, nothing to do\n");
    scene.tool(&["-n", "prefix", "exe"]).fine();
    // Another wish is another result.
    scene
        .tool(&["--check", "--runpath", "prefix", "exe"])
        .fails(1, "DT_RUNPATH");
    let said = scene.tool(&["--restore", "-n", "exe"]).fine().out;
    assert!(said.starts_with("exe: would be restored\n"), "{said}");
    assert!(identity(&scene.path("exe")) == was);
    assert_eq!(scene.names(), ["exe"]);
}

/// `--check` asks the loader: a prefix that lost its libc is noticed.
#[test]
fn check_sees_a_broken_prefix() {
    let scene = Scene::new();
    scene.tool(&["-i", "prefix", "exe"]).fine();
    fs::remove_file(scene.libc_of_prefix("prefix")).expect("libc");
    let done = scene.tool(&["--check", "prefix", "exe"]);
    assert!(matches!(done.code, Some(1 | 2)), "{done:?}");
    assert!(done.err.contains("libc.so.6"), "{done:?}");
}

#[test]
fn each_program_is_handled_and_the_greatest_status_counts() {
    let scene = Scene::new();
    scene.compile("second", &[]);
    scene.write("text", "no program\n");
    let done = scene.tool(&["-i", "prefix", "text", "exe", "missing", "second"]);
    assert_eq!(done.code, Some(4), "{done:?}");
    assert_eq!(done.err.lines().count(), 2, "{done:?}");
    for name in ["exe", "second"] {
        assert_eq!(scene.libc_of(name), scene.libc_of_prefix("prefix"));
    }
    let done = scene.tool(&["-i", "prefix", "text", "exe"]);
    assert_eq!(done.code, Some(3), "{done:?}");
}

#[test]
fn json_is_one_object_a_program() {
    let scene = Scene::new();
    let done = scene.tool(&[
        "-i",
        "--json",
        "--add-needed",
        "libm.so.6",
        "prefix",
        "exe",
        "missing",
    ]);
    assert_eq!(done.code, Some(4));
    let objects: Vec<Value> = done
        .out
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let [first, second] = objects.as_slice() else {
        panic!("{done:?}")
    };
    let path = |name: &str| scene.path(name).to_str().expect("UTF-8").to_string();
    assert_eq!(first["program"], "exe");
    assert_eq!(first["path"], path("exe"));
    assert_eq!(first["outcome"], "changed");
    assert_eq!(first["status"], 0);
    assert_eq!(first["backup"], path("exe.orig"));
    assert_eq!(first["warnings"], Value::Array(vec![]));
    assert_eq!(first["before"]["needed"], serde_json::json!(["libc.so.6"]));
    assert_eq!(first["before"]["size"], scene.read("exe.orig").len());
    assert_eq!(first["before"]["rpath"], Value::Null);
    let after = &first["after"];
    assert_eq!(
        after["interpreter"],
        path("prefix/lib/ld-linux-x86-64.so.2")
    );
    let rpath = after["rpath"].as_str().expect("a run path");
    assert!(
        rpath.starts_with(&format!("{}:", path("prefix/lib"))),
        "{rpath}"
    );
    assert_eq!(after["runpath"], Value::Null);
    assert_eq!(
        after["needed"],
        serde_json::json!(["libc.so.6", "libm.so.6"])
    );
    assert_eq!(after["size"], scene.read("exe").len());
    assert_eq!(second["outcome"], "failed");
    assert_eq!(second["status"], 4);
    let error = second["error"].as_str().expect("an error");
    assert_eq!(done.err, format!("use-this-glibc: {error}\n"));

    let check = scene.tool(&["--check", "--json", "prefix", "exe"]);
    let check: Value = serde_json::from_str(&check.out).expect("JSON");
    assert_eq!(check["outcome"], "differs");
    assert_eq!(check["status"], 1);
}

#[test]
fn quiet_leaves_errors_only() {
    let scene = Scene::new();
    let done = scene.tool(&["-q", "-i", "prefix", "exe"]).fine();
    assert_eq!(done.out, "");
    let done = scene
        .tool(&["-q", "-i", "prefix", "missing"])
        .fails(4, "missing");
    assert_eq!(done.out, "");
}

/// The copied libc has the system's paths in it and lacks nothing; with other paths in it, it does.
#[test]
fn print_env_names_what_the_prefix_lacks() {
    let scene = Scene::new();
    let own = scene.tool(&["--print-env", "prefix"]).fine().out;
    for name in ["LOCPATH", "GCONV_PATH", "TZDIR"] {
        let there = match name {
            "TZDIR" => "/usr/share/zoneinfo",
            "LOCPATH" => "/usr/lib/locale",
            _ => continue,
        };
        if fs::exists(there).unwrap_or(false) {
            assert!(!own.contains(name), "{own}");
        }
    }
    let zones = b"/usr/share/zoneinfo\0";
    let mut libc = fs::read(scene.libc_of_prefix("prefix")).expect("libc");
    let at = libc.windows(zones.len()).position(|text| text == zones);
    let at = at.expect("glibc's folder of time zones");
    libc[at..at + 4].copy_from_slice(b"/not");
    fs::write(scene.libc_of_prefix("prefix"), libc).expect("libc");
    if !fs::exists("/usr/share/zoneinfo").unwrap_or(false) {
        skip("no time zones (package tzdata)");
        return;
    }
    let lacking = scene.tool(&["--print-env", "prefix"]);
    assert_eq!(lacking.code, Some(0));
    assert!(
        lacking.out.contains("TZDIR=/usr/share/zoneinfo\n"),
        "{lacking:?}"
    );
    let json = scene.tool(&["--print-env", "--json", "prefix"]).out;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["TZDIR"], "/usr/share/zoneinfo");
}

#[test]
fn a_bss_too_large_for_old_kernels_is_told_and_another_is_not() {
    let scene = Scene::new();
    for (size, told) in [("1 << 20", false), ("300 << 20", true)] {
        let text = format!("char room[{size}]; int main(void) {{ return room[0]; }}");
        assert!(scene.compile_text("p", &text, &[]));
        let done = scene.tool(&["-n", "prefix", "p"]);
        assert_eq!(done.code, Some(0), "{done:?}");
        assert_eq!(
            done.err.contains("Linux 5.18"),
            told,
            "{size}: {}",
            done.err
        );
    }
}

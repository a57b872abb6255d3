//! Where the result goes: attributes, backups, links, what stands in the way, and back again.

mod cli;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use cli::{Done, Scene, TOOL, attributes, identity, root, skip};

#[test]
fn a_changed_program_runs_on_the_prefix() {
    for options in [&[][..], &["-no-pie"]] {
        let scene = Scene::new();
        assert!(scene.compile("exe", options));
        let system = scene.libc_of("exe");
        assert_ne!(system, scene.libc_of_prefix("prefix"));
        scene.tool(&["-o", "new", "prefix", "exe"]).fine();
        scene.tool(&["-i", "prefix", "exe"]).fine();
        assert_eq!(scene.libc_of("new"), scene.libc_of_prefix("prefix"));
        assert_eq!(scene.libc_of("exe"), scene.libc_of_prefix("prefix"));
        assert_eq!(scene.libc_of("exe.orig"), system);
        assert!(
            scene.read("new") == scene.read("exe"),
            "the same input, the same output"
        );
    }
}

/// As many attributes as this user and file system allow. False: fewer than hoped for.
fn decorate(path: &Path) -> bool {
    fs::set_permissions(path, fs::Permissions::from_mode(0o1751)).expect("chmod");
    let mut all = xattr::set(path, "user.note", b"kept\0").is_ok();
    all &= xattr::set(path, "user.empty", b"").is_ok();
    if !root() {
        return all;
    }
    chown(path, Some(1234), Some(4321)).expect("chown");
    fs::set_permissions(path, fs::Permissions::from_mode(0o1751)).expect("chmod");
    all &= xattr::set(path, "trusted.note", b"kept").is_ok();
    // cap_net_raw, permitted, version 2 (capability.h).
    let mut capability = [0u8; 20];
    capability[3] = 2;
    capability[5] = 1 << (13 - 8);
    all &= xattr::set(path, "security.capability", &capability).is_ok();
    // An ACL with a named user (posix_acl_xattr.h): version, then tag, permissions and id of each entry.
    let mut acl = 2u32.to_le_bytes().to_vec();
    let entries = [
        (1u16, 7u16, u32::MAX),
        (2, 5, 33),
        (4, 1, u32::MAX),
        (16, 5, u32::MAX),
        (32, 1, u32::MAX),
    ];
    for (tag, permissions, id) in entries {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    all &= xattr::set(path, "system.posix_acl_access", &acl).is_ok();
    all
}

#[test]
fn mode_owner_and_attributes_are_kept() {
    let scene = Scene::new();
    let exe = scene.path("exe");
    if !decorate(&exe) {
        skip("not every sort of extended attribute can be set here");
    }
    let was = attributes(&exe);
    let original = scene.read("exe");
    scene.tool(&["-i", "prefix", "exe"]).fine();
    assert_eq!(attributes(&exe), was);
    assert_eq!(attributes(&scene.path("exe.orig")), was);
    scene.tool(&["--restore", "exe"]).fine();
    assert_eq!(attributes(&exe), was);
    if root() {
        scene.tool(&["-o", "new", "prefix", "exe"]).fine();
        assert_eq!(attributes(&scene.path("new")), was);
    }
    // A backup that is no second name, as the program is changed already.
    scene.tool(&["-i", "--no-backup", "prefix", "exe"]).fine();
    fs::remove_file(scene.path("exe.orig")).expect("the backup");
    scene.copy_glibc("prefix-2");
    scene.tool(&["-i", "prefix-2", "exe"]).fine();
    assert_eq!(attributes(&scene.path("exe.orig")), was);
    assert!(scene.read("exe.orig") == original);

    // Copied without care, as a broken tool would: the comparison must see each.
    if root() {
        let careless = scene.path("careless");
        fs::copy(&exe, &careless).expect("a copy");
        let lost = attributes(&careless);
        assert_ne!(lost.owner, was.owner);
        assert_ne!(lost.extended, was.extended);
        chown(&careless, Some(1234), Some(4321)).expect("chown");
        let capability = was.extended.get("security.capability");
        if let Some(capability) = capability {
            xattr::set(&careless, "security.capability", capability).expect("set");
            // Too early: chown takes it away.
            chown(&careless, Some(1234), Some(4321)).expect("chown");
            assert!(
                !attributes(&careless)
                    .extended
                    .contains_key("security.capability")
            );
        }
    }
}

/// A library for another system, which only the loader minds.
#[test]
fn the_new_loader_has_the_last_word() {
    let scene = Scene::new();
    let library = "int one(void) { return 1; }";
    assert!(scene.compile_text("libone.so", library, &["-shared", "-fPIC"]));
    let main = "int one(void); int main(void) { return one() + 6; }";
    assert!(scene.compile_text("exe", main, &["-L.", "-lone", "-Wl,-rpath,$ORIGIN"]));
    let good = scene.read("libone.so");
    let mut bad = good.clone();
    // EI_OSABI: FreeBSD.
    bad[7] = 9;
    scene.write("libone.so", bad);
    let was = identity(&scene.path("exe"));
    scene.tool(&["-n", "prefix", "exe"]).fine();
    for arguments in [
        &["-i", "prefix", "exe"][..],
        &["-o", "new", "prefix", "exe"],
    ] {
        let done = scene.tool(arguments).fails(1, "libone.so");
        assert!(!done.err.contains(".use-this-glibc"), "{done:?}");
        assert!(identity(&scene.path("exe")) == was);
        assert_eq!(scene.names(), ["exe", "libone.so"]);
    }
    scene.write("libone.so", good);
    scene.tool(&["-i", "prefix", "exe"]).fine();
}

/// What a folder gives to new files must not stay on the program.
#[test]
fn the_folders_default_acl_is_not_taken_over() {
    let scene = Scene::new();
    let was = attributes(&scene.path("exe"));
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (1u16, 7u16, u32::MAX),
        (2, 7, 33),
        (4, 7, u32::MAX),
        (16, 7, u32::MAX),
        (32, 5, u32::MAX),
    ] {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    if xattr::set(scene.path(""), "system.posix_acl_default", &acl).is_err() {
        return skip("no ACLs here");
    }
    scene.write("witness", "");
    assert!(
        attributes(&scene.path("witness"))
            .extended
            .contains_key("system.posix_acl_access")
    );
    scene.tool(&["-i", "prefix", "exe"]).fine();
    assert_eq!(attributes(&scene.path("exe")), was);
}

/// As somebody who may write to the folder and does not own the program.
#[test]
fn an_owner_that_cannot_be_kept_is_an_error_in_place_only() {
    let scene = Scene::new();
    if !root() {
        return skip("needs root, to be somebody else");
    }
    fs::set_permissions(scene.path(""), fs::Permissions::from_mode(0o777)).expect("chmod");
    let was = identity(&scene.path("exe"));
    nobody(&scene, &["-i", "prefix", "exe"]).fails(4, "cannot keep its owner");
    assert!(identity(&scene.path("exe")) == was);
    assert_eq!(scene.names(), ["exe", "tool"]);
    nobody(&scene, &["-o", "new", "prefix", "exe"]).fine();
    assert_eq!(fs::metadata(scene.path("new")).expect("new").uid(), NOBODY);
}

const NOBODY: u32 = 65534;

/// The tool, run without privileges; from a place that everybody can reach.
fn nobody(scene: &Scene, arguments: &[&str]) -> Done {
    let tool = scene.path("tool");
    if !tool.exists() {
        fs::copy(TOOL, &tool).expect("the tool");
    }
    Done::of(scene.command(&tool).args(arguments).uid(NOBODY).gid(NOBODY))
}

#[test]
fn a_folder_that_cannot_be_written_is_4() {
    let scene = Scene::new();
    fs::create_dir(scene.path("closed")).expect("a folder");
    fs::copy(scene.path("exe"), scene.path("closed/exe")).expect("a copy");
    fs::set_permissions(scene.path("closed"), fs::Permissions::from_mode(0o555)).expect("chmod");
    let was = identity(&scene.path("closed/exe"));
    let arguments = ["-i", "prefix", "closed/exe"];
    let done = if root() {
        nobody(&scene, &arguments)
    } else {
        scene.tool(&arguments)
    };
    done.fails(4, "cannot make a file in");
    assert!(identity(&scene.path("closed/exe")) == was);
}

#[test]
fn an_immutable_program_is_4_and_nothing_stays() {
    let scene = Scene::new();
    let chattr = |flag: &str| {
        let mut chattr = scene.command("chattr");
        chattr.args([flag, "exe"]).stderr(Stdio::null());
        chattr.status().is_ok_and(|status| status.success())
    };
    if !chattr("+i") {
        return skip("cannot make a file immutable (root, chattr and a file system that knows it)");
    }
    let done = scene.tool(&["-i", "prefix", "exe"]);
    let names = scene.names();
    assert!(chattr("-i"));
    done.fails(4, "immutable");
    assert_eq!(names, ["exe"]);
}

#[test]
fn the_backup_is_the_original_and_is_never_overwritten() {
    let scene = Scene::new();
    let original = scene.read("exe");
    scene.write("exe.orig", "the user's own");
    let was = identity(&scene.path("exe"));
    scene
        .tool(&["-i", "prefix", "exe"])
        .fails(4, "exe.orig exists");
    scene
        .tool(&["-n", "-i", "prefix", "exe"])
        .fails(4, "exe.orig exists");
    assert!(identity(&scene.path("exe")) == was);
    scene
        .tool(&["-i", "--backup-suffix", "~", "prefix", "exe"])
        .fine();
    assert!(scene.read("exe~") == original);
    assert_eq!(scene.read("exe.orig"), b"the user's own");
    // The one that is there serves again, and is not written.
    let was = identity(&scene.path("exe~"));
    scene.copy_glibc("prefix-2");
    scene
        .tool(&["-i", "--backup-suffix", "~", "prefix-2", "exe"])
        .fine();
    assert!(identity(&scene.path("exe~")) == was);
    scene.tool(&["--restore", "exe"]).fine();
    scene.tool(&["-i", "--no-backup", "prefix", "exe"]).fine();
    assert_eq!(scene.names(), ["exe", "exe.orig", "exe~"]);
}

#[test]
fn a_second_run_changes_nothing() {
    let scene = Scene::new();
    scene.copy_glibc("prefix-2");
    let original = scene.read("exe");
    scene.tool(&["-i", "prefix", "exe"]).fine();
    let was = identity(&scene.path("exe"));
    let backup = identity(&scene.path("exe.orig"));
    let said = scene.tool(&["-i", "prefix", "exe"]).fine().out;
    assert_eq!(said, "exe: already so, nothing to do\n");
    assert!(identity(&scene.path("exe")) == was);
    assert!(identity(&scene.path("exe.orig")) == backup);
    // Elsewhere and back: the same bytes, however often.
    scene.tool(&["-i", "prefix-2", "exe"]).fine();
    assert_eq!(scene.libc_of("exe"), scene.libc_of_prefix("prefix-2"));
    scene.tool(&["-i", "prefix", "exe"]).fine();
    assert!(scene.read("exe") == was.3);
    scene.tool(&["--restore", "exe"]).fine();
    assert!(scene.read("exe") == original);
    // To another file: what is there already is left alone.
    scene.tool(&["-o", "new", "prefix", "exe"]).fine();
    let was = identity(&scene.path("new"));
    scene.tool(&["-o", "new", "prefix", "exe"]).fine();
    assert!(identity(&scene.path("new")) == was);
    scene
        .tool(&["-o", "new", "prefix-2", "exe"])
        .fails(2, "exists and is another file");
    assert!(identity(&scene.path("new")) == was);
}

#[test]
fn restore_brings_the_original_back() {
    let scene = Scene::new();
    let original = scene.read("exe");
    scene
        .tool(&[
            "-i",
            "--no-backup",
            "--runpath",
            "--add-needed",
            "libm.so.6",
            "prefix",
            "exe",
        ])
        .fine();
    let changed = scene.read("exe");
    assert!(changed != original);
    let said = scene.tool(&["--restore", "-o", "back", "exe"]).fine().out;
    assert!(
        said.contains("restored") && said.contains("- libm.so.6"),
        "{said}"
    );
    assert!(scene.read("back") == original);
    assert!(scene.read("exe") == changed);
    // The prefix may be gone by now.
    fs::remove_dir_all(scene.path("prefix")).expect("the prefix");
    scene.tool(&["--restore", "exe"]).fine();
    assert!(scene.read("exe") == original);
    assert_eq!(scene.names(), ["back", "exe"]);
    let was = identity(&scene.path("exe"));
    scene
        .tool(&["--restore", "exe"])
        .fails(3, "holds no record");
    assert!(identity(&scene.path("exe")) == was);
}

/// A record that fits the file no more must not be believed.
#[test]
fn a_damaged_record_is_refused() {
    let scene = Scene::new();
    scene.tool(&["-i", "--no-backup", "prefix", "exe"]).fine();
    let changed = scene.read("exe");
    for at in [0x18, 0x300, changed.len() - 3, changed.len() - 40] {
        let mut bytes = changed.clone();
        bytes[at] ^= 0x55;
        scene.write("exe", &bytes);
        let done = scene.tool(&["--restore", "exe"]);
        assert_eq!(done.code, Some(3), "byte {at}: {done:?}");
        assert!(scene.read("exe") == bytes);
    }
}

#[test]
fn a_link_stays_and_its_program_is_changed() {
    let scene = Scene::new();
    fs::create_dir(scene.path("bin")).expect("a folder");
    symlink("../exe", scene.path("bin/link")).expect("a link");
    let said = scene.tool(&["-i", "prefix", "bin/link"]).fine().out;
    assert!(
        said.contains("a link to") && said.contains("/exe)"),
        "{said}"
    );
    assert_eq!(
        fs::read_link(scene.path("bin/link")).expect("a link"),
        Path::new("../exe")
    );
    assert_eq!(scene.libc_of("exe"), scene.libc_of_prefix("prefix"));
    assert_eq!(scene.names(), ["bin", "exe", "exe.orig"]);
}

#[test]
fn other_names_of_the_program_are_asked_about() {
    let scene = Scene::new();
    fs::hard_link(scene.path("exe"), scene.path("other")).expect("a second name");
    let was = identity(&scene.path("exe"));
    scene.tool(&["-i", "prefix", "exe"]).fails(3, "2 names");
    scene
        .tool(&["-n", "-i", "prefix", "exe"])
        .fails(3, "--break-hard-links");
    assert!(identity(&scene.path("exe")) == was);
    assert_eq!(scene.names(), ["exe", "other"]);
    scene
        .tool(&["-i", "--break-hard-links", "prefix", "exe"])
        .fine();
    assert!(identity(&scene.path("other")) == was);
    assert_eq!(scene.libc_of("exe"), scene.libc_of_prefix("prefix"));
}

/// A run that was killed between its backup and its rename.
#[test]
fn a_backup_that_is_the_file_itself_is_one() {
    let scene = Scene::new();
    let original = scene.read("exe");
    fs::hard_link(scene.path("exe"), scene.path("exe.orig")).expect("a second name");
    scene.tool(&["-i", "prefix", "exe"]).fine();
    assert!(scene.read("exe.orig") == original);
    assert_eq!(scene.libc_of("exe"), scene.libc_of_prefix("prefix"));
}

#[test]
fn a_running_program_is_replaced_and_runs_on() {
    let scene = Scene::new();
    let text = r#"
        #include <unistd.h>
        int main(void) { char c; write(1, "x", 1); return read(0, &c, 1) == 1 ? 5 : 6; }
    "#;
    assert!(scene.compile_text("exe", text, &[]));
    let mut command = scene.command(scene.path("exe"));
    let mut running = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut byte = [0];
    std::io::Read::read_exact(running.stdout.as_mut().expect("a pipe"), &mut byte)
        .expect("it began");
    scene.tool(&["-i", "prefix", "exe"]).fine();
    std::io::Write::write_all(running.stdin.as_mut().expect("a pipe"), b"x").expect("written");
    assert_eq!(running.wait().expect("ended").code(), Some(5));
}

#[test]
fn two_runs_do_not_meet() {
    let scene = Scene::new();
    // What a killed run left is no obstacle ...
    scene.write(".exe.use-this-glibc", "half a program");
    scene.tool(&["-i", "prefix", "exe"]).fine();
    assert_eq!(scene.names(), ["exe", "exe.orig"]);
    scene.tool(&["--restore", "exe"]).fine();
    // ... a living one's file is.
    let was = identity(&scene.path("exe"));
    scene.write(".exe.use-this-glibc", "half a program");
    let held = File::open(scene.path(".exe.use-this-glibc")).expect("the file");
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).expect("locked");
    scene
        .tool(&["-i", "prefix", "exe"])
        .fails(4, "another run is at work");
    assert!(identity(&scene.path("exe")) == was);
    assert_eq!(scene.read(".exe.use-this-glibc"), b"half a program");
    // What is no file of ours is not removed.
    drop(held);
    fs::remove_file(scene.path(".exe.use-this-glibc")).expect("the file");
    symlink("exe", scene.path(".exe.use-this-glibc")).expect("a link");
    scene
        .tool(&["-i", "prefix", "exe"])
        .fails(4, "is in the way");
    assert!(identity(&scene.path("exe")) == was);
}

#[test]
fn many_runs_at_once_leave_a_whole_program() {
    let scene = Scene::new();
    let original = scene.read("exe");
    scene.copy_glibc("prefix-2");
    let mut results = Vec::new();
    for prefix in ["prefix", "prefix-2"] {
        scene.tool(&["-i", "--no-backup", prefix, "exe"]).fine();
        results.push(scene.read("exe"));
    }
    for _ in 0..5 {
        scene.write("exe", &original);
        let runs: Vec<_> = (0..6)
            .map(|run| {
                let prefix = ["prefix", "prefix-2"][run % 2];
                let mut tool = scene.command(TOOL);
                tool.args(["-i", prefix, "exe"])
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped());
                tool.spawn().expect("runs")
            })
            .collect();
        let done: Vec<_> = runs
            .into_iter()
            .map(|run| Done::from(run.wait_with_output().expect("ended")))
            .collect();
        assert!(done.iter().any(|done| done.code == Some(0)), "{done:?}");
        for done in done {
            match done.code {
                Some(0) => {}
                Some(1) => drop(done.fails(1, "was changed by someone else")),
                _ => drop(done.fails(4, "another run is at work")),
            }
        }
        assert!(results.contains(&scene.read("exe")));
        assert!(scene.read("exe.orig") == original);
        assert_eq!(scene.names(), ["exe", "exe.orig"]);
    }
}

#[test]
fn a_full_disk_loses_nothing() {
    let scene = Scene::new();
    if !root() {
        return skip("needs root, to mount a small file system");
    }
    let script = r#"
        set -e
        mount -t tmpfs -o size=256k tmpfs full
        cp exe full/exe
        cat /dev/zero > full/fill 2> /dev/null || true
        set +e
        "$0" -i --no-backup prefix full/exe; echo "in place: $?"
        "$0" -o full/new prefix full/exe; echo "elsewhere: $?"
        cmp exe full/exe && ls -A full
        rm full/fill
        "$0" -q -i prefix full/exe; echo "with room: $?"
    "#;
    fs::create_dir(scene.path("full")).expect("a folder");
    let mut unshare = scene.command("unshare");
    let done = Done::of(unshare.args(["--mount", "sh", "-c", script, TOOL]));
    if done.out.is_empty() {
        return skip(&format!("no mount namespace: {}", done.err.trim()));
    }
    assert_eq!(
        done.out, "in place: 4\nelsewhere: 4\nexe\nfill\nwith room: 0\n",
        "{done:?}"
    );
    assert_eq!(
        done.err.matches("No space left on device").count(),
        2,
        "{done:?}"
    );
}

/// `ulimit -f`: an error as any, not the end by SIGXFSZ with a temporary file left.
#[test]
fn a_limit_on_file_sizes_loses_nothing() {
    let scene = Scene::new();
    let was = identity(&scene.path("exe"));
    let mut shell = scene.command("sh");
    let script = "ulimit -f 2; exec \"$0\" -i --no-backup prefix exe";
    Done::of(shell.args(["-c", script, TOOL])).fails(4, "File too large");
    assert!(identity(&scene.path("exe")) == was);
    assert_eq!(scene.names(), ["exe"]);
}

/// Holes stay holes: a program with zeros in it does not fill the disk.
#[test]
fn pages_of_zeros_are_holes() {
    let scene = Scene::new();
    let text =
        "const char zeros[8 << 20] = {0}; int main(int c, char **v) { return zeros[c] + 7; }";
    assert!(scene.compile_text("exe", text, &[]));
    scene.tool(&["-i", "prefix", "exe"]).fine();
    let file = fs::metadata(scene.path("exe")).expect("exe");
    assert!(file.len() > 8 << 20, "the zeros are in the file");
    assert!(file.blocks() * 512 < 4 << 20, "{} blocks", file.blocks());
    let ended = Command::new(scene.path("exe")).status().expect("runs");
    assert_eq!(ended.code(), Some(7));
    // Written by chance over a page's border, nothing is lost: the bytes are compared.
    let mut byte = [0];
    let file = File::open(scene.path("exe")).expect("exe");
    file.read_exact_at(&mut byte, 4096).expect("a byte");
    scene.tool(&["--restore", "exe"]).fine();
    assert!(scene.read("exe") == scene.read("exe.orig"));
}

#[test]
fn long_names_have_temporary_ones_too() {
    let scene = Scene::new();
    let name = "n".repeat(250);
    fs::copy(scene.path("exe"), scene.path(&name)).expect("a copy");
    scene
        .tool(&["-i", "--backup-suffix", "~", "prefix", &name])
        .fine();
    assert_eq!(scene.libc_of(&name), scene.libc_of_prefix("prefix"));
}

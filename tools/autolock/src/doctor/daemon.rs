//! The daemon: is it there, may this user connect, does it answer, is the table kept?
//!
//! May touch: the socket. Connects once and reads one message, as a program under the library does.

use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use autolock_oncpu::greeting::{Answer, SOCKET};
use autolock_oncpu::table;
use autolockd::client::{self, NoReply, Reply};

use super::finding::Obstacle;
use super::machine;
use super::places::Places;
use super::status::{SEARCH, Status, WRITE};

/// Longer than a program waits: here is time.
const PATIENCE: Duration = Duration::from_secs(1);

/// What there is of it.
#[derive(Debug)]
pub enum Daemon {
    /// It keeps the table, and gave it to us.
    Keeps,
    /// It is there, but not for us: nothing is known of the table.
    NotForUs(Obstacle),
    /// It is there, but of no use to anybody before this is done.
    Broken(Obstacle),
    /// There is none.
    Gone(Obstacle),
}

/// Looks and asks.
pub fn look(places: &Places, me: &Status) -> Daemon {
    let gone = || {
        let start = machine::service(places, me, "start");
        Daemon::Gone(Obstacle::new("daemon", "autolockd is not running").fix(start))
    };
    let restart = || machine::service(places, me, "restart");
    let path = places.socket();
    match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Daemon::NotForUs(hidden());
        }
        Err(_) => return gone(),
        Ok(found) if !found.file_type().is_socket() => {
            return Daemon::Gone(
                Obstacle::new("socket", format!("{SOCKET} is not a socket")).fix(format!(
                    "remove it, then {}",
                    machine::service(places, me, "start")
                )),
            );
        }
        Ok(_) => {}
    }
    if let Some(obstacle) = not_permitted(places, &path, me, "this user") {
        return Daemon::NotForUs(obstacle);
    }
    match client::ask(&path, PATIENCE) {
        Ok(reply) => judge(places, &reply, restart),
        Err(error) => match error.downcast_ref::<NoReply>().map(|error| error.kind) {
            Some(ErrorKind::NotFound | ErrorKind::ConnectionRefused) => gone(),
            Some(ErrorKind::WouldBlock) => {
                Daemon::Broken(Obstacle::new("answer", "autolockd does not answer").fix(restart()))
            }
            _ => Daemon::Broken(Obstacle::new("answer", error.to_string()).fix(restart())),
        },
    }
}

fn judge(places: &Places, reply: &Reply, restart: impl Fn() -> String) -> Daemon {
    let greeting = &reply.greeting;
    if greeting.magic != table::MAGIC {
        return Daemon::Broken(
            Obstacle::new(
                "answer",
                format!("what answers at {SOCKET} is not autolockd"),
            )
            .fix(restart()),
        );
    }
    if greeting.version != table::VERSION {
        return Daemon::Broken(
            Obstacle::new(
                "version",
                format!(
                    "autolockd is of another version (table {}, here {}): install both of one",
                    greeting.version,
                    table::VERSION
                ),
            )
            .fix(restart()),
        );
    }
    if greeting.answer == Answer::ForeignPidNamespace as u32 {
        return Daemon::NotForUs(machine::pid_namespace("this is"));
    }
    let table = match reply.table() {
        Ok(table) => table,
        Err(error) => return Daemon::NotForUs(Obstacle::new("answer", format!("{error:#}"))),
    };
    if !table.is_fresh(autolockd::now_ns()) {
        if machine::own_time_namespace(places) {
            return Daemon::NotForUs(Obstacle::new(
                "time namespace",
                "this is in a time namespace of its own, whose clock is not the table's",
            ));
        }
        return Daemon::Broken(
            Obstacle::new("table", "autolockd answers, but does not keep the table").fix(restart()),
        );
    }
    // SAFETY: takes nothing.
    let own = unsafe { libc::gettid() };
    // Not running: by a thread that runs. Unknown: its id is past the table.
    if table.thread(own) == table::NOT_RUNNING {
        return Daemon::Broken(
            Obstacle::new(
                "table",
                "the table has it that this very thread is not on a CPU",
            )
            .fix(restart()),
        );
    }
    Daemon::Keeps
}

fn hidden() -> Obstacle {
    let folder = Path::new(SOCKET).parent().unwrap_or(Path::new("/"));
    Obstacle::new(
        "permission",
        format!("this user may not look into {}", folder.display()),
    )
    .fix(format!("sudo chmod 0755 {}", folder.display()))
}

/// Why a process with these rights may not connect, by the modes of the socket and its folder.
pub fn not_permitted(places: &Places, path: &Path, who: &Status, whose: &str) -> Option<Obstacle> {
    let folder = path.parent()?;
    if !who.may(SEARCH, &folder.metadata().ok()?) {
        return Some(hidden());
    }
    let socket = path.metadata().ok()?;
    if who.may(WRITE, &socket) {
        return None;
    }
    let (mode, group) = (socket.mode() & 0o777, socket.gid());
    let fields = places.account("/etc/group", group);
    let name = fields
        .as_ref()
        .map_or_else(|| group.to_string(), |fields| fields[0].clone());
    let user = places
        .account("/etc/passwd", who.user)
        .map_or_else(|| who.user.to_string(), |fields| fields[0].clone());
    let listed = fields
        .and_then(|fields| fields.get(3).cloned())
        .is_some_and(|members| members.split(',').any(|member| member == user));
    let fix = if group == 0 || mode & 0o020 == 0 {
        "start autolockd with --mode 0666, or with --mode 0660 --group NAME".to_owned()
    } else if listed {
        format!("log in again: {user} is in the group since")
    } else {
        format!("sudo usermod --append --groups {name} {user}, then log in again")
    };
    Some(
        Obstacle::new(
            "permission",
            format!("{whose} may not connect to autolockd (mode {mode:04o}, group {name})"),
        )
        .fix(fix),
    )
}

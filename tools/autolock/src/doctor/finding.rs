//! What the doctor finds, as it is printed.

use serde::Serialize;

/// A source of on-CPU knowledge; the greater, the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Name {
    User,
    Ebpf,
    Kernel,
}

impl Name {
    pub fn text(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Ebpf => "ebpf",
            Self::Kernel => "kernel",
        }
    }
}

/// Why not, and what would help.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Obstacle {
    /// Which check it is.
    pub check: &'static str,
    pub why: String,
    /// A command, where there is one.
    pub fix: Option<String>,
}

impl Obstacle {
    pub fn new(check: &'static str, why: impl Into<String>) -> Self {
        Self {
            check,
            why: why.into(),
            fix: None,
        }
    }

    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    fn line(&self) -> String {
        match &self.fix {
            Some(fix) => format!("{}: {fix}", self.why),
            None => self.why.clone(),
        }
    }
}

/// One source, on this machine, for this user.
#[derive(Debug, Serialize)]
pub struct Source {
    pub name: Name,
    /// Whether this kernel can have it, with everything done.
    pub possible: bool,
    pub available: bool,
    /// Where it comes from.
    pub from: &'static str,
    /// In the order in which to take them away.
    pub obstacles: Vec<Obstacle>,
}

/// A program or a process, under the library.
#[derive(Debug, Serialize)]
pub struct Subject {
    pub name: String,
    /// Whether it runs already.
    pub runs: bool,
    /// None: the library is not in it.
    pub gets: Option<Name>,
    /// Its own: those of the sources come first.
    pub obstacles: Vec<Obstacle>,
    /// What has nothing to do with the source.
    pub notes: Vec<Obstacle>,
}

/// All of it.
#[derive(Debug, Serialize)]
pub struct Report {
    pub kernel: String,
    /// User id.
    pub user: u32,
    /// Best first.
    pub sources: Vec<Source>,
    pub program: Subject,
    /// Whether the program gets the best source that this kernel can have.
    pub best: bool,
}

impl Report {
    pub fn new(kernel: String, user: u32, sources: Vec<Source>, program: Subject) -> Self {
        let best = sources.iter().filter(|source| source.possible);
        let best = best.map(|source| source.name).max();
        Self {
            kernel,
            user,
            best: program.gets == best,
            sources,
            program,
        }
    }

    pub fn text(&self) -> String {
        let mut text = format!("Linux {}, user id {}\n", self.kernel, self.user);
        for source in &self.sources {
            let name = source.name.text();
            if source.available {
                text += &format!("{name}: yes: {}\n", source.from);
            }
            for (at, obstacle) in source.obstacles.iter().enumerate() {
                text += &match at {
                    0 => format!("{name}: no: {}\n", obstacle.line()),
                    _ => format!("  then: {}\n", obstacle.line()),
                };
            }
        }
        let Subject {
            name,
            runs,
            gets,
            obstacles,
            notes,
        } = &self.program;
        let verb = if *runs { "gets" } else { "would get" };
        text += &format!("{name} {verb} {}", gets.map_or("none of them", Name::text));
        match obstacles.split_first() {
            Some((first, rest)) => {
                text += &format!(": {}\n", first.line());
                for obstacle in rest {
                    text += &format!("  and: {}\n", obstacle.line());
                }
            }
            None if self.best => text += ", the best that this kernel can have\n",
            None => text += ": see above\n",
        }
        for note in notes {
            text += &format!("note: {}\n", note.line());
        }
        text
    }
}

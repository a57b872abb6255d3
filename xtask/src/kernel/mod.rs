//! Linux with our patches, in the named configurations, for the virtual machines.
//!
//! Debian's source (package linux-source-6.12) is downloaded and checked, unpacked, brought to the series of
//! `linux-patches/6.12`, configured and built. The image is named after all that went into it and lives under the user's cache
//! folder (without one, under the target folder); source tree and objects stay in `target/kernel`, one object folder for each
//! configuration, so that the next build is make's work alone.
//!
//! [`recipe`] says how, [`tree`] keeps the sources, [`config`] the configurations.

pub mod config;
mod recipe;

mod tree;

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

pub use self::config::Config;
use self::config::Wanted;
use self::tree::Tree;
use crate::packages::{self, fetch};
use crate::project::{Project, make_folder};
use crate::shell;
use crate::sources::{self, Patch, copy, remove};
use crate::work::{self, Work};

/// Everything whose text decides what is built.
const RECIPE: &[&str] = &[include_str!("recipe.rs")];
const IMAGE: &str = "bzImage";

#[derive(clap::Args, Default)]
pub struct Options {
    /// The configuration: minimal and what it says, as linux-patches/6.12/config has it
    #[arg(long, value_enum, default_value_t)]
    pub config: Config,
    /// Forget source tree, objects and image, and begin again
    #[arg(long)]
    pub fresh: bool,
    /// Apply only the first N patches of the series
    #[arg(long, value_name = "N")]
    pub patches: Option<usize>,
    /// Jobs of make at a time; one for each CPU if left out
    #[arg(long)]
    pub jobs: Option<NonZeroUsize>,
    /// Print where the patched source tree is (headers for programs in objects-CONFIG/usr/include beside it), and not the image
    #[arg(long)]
    pub source: bool,
}

/// The verb: all but the path goes to standard error.
pub fn run(project: &Project, options: &Options) -> Result<bool> {
    let path = if options.source {
        source(project, options)?
    } else {
        image(project, options)?
    };
    println!("{}", path.display());
    Ok(true)
}

/// What goes into a build and where it goes.
struct Plan {
    /// The package's archive, and the package's version and checksum.
    archive: PathBuf,
    base: String,
    patches: Vec<Patch>,
    config: Config,
    wanted: Wanted,
    /// The image's place.
    kept: PathBuf,
    work: PathBuf,
    jobs: usize,
}

/// The image, from the cache or built now.
pub fn image(project: &Project, options: &Options) -> Result<PathBuf> {
    packages::require("kernel")?;
    let plan = Plan::new(project, options)?;
    if options.fresh {
        remove(&plan.kept)?;
    }
    if let Some(image) = plan.image() {
        return Ok(image);
    }
    let work = plan.open(options)?;
    // Whoever had the lock may have been at just this.
    if let Some(image) = plan.image() {
        return Ok(image);
    }
    plan.build(&work)?;
    plan.publish()?;
    plan.image()
        .with_context(|| format!("{} is gone again", plan.kept.display()))
}

/// The patched tree, with its headers for programs made.
pub fn source(project: &Project, options: &Options) -> Result<PathBuf> {
    packages::require("kernel")?;
    let plan = Plan::new(project, options)?;
    let work = plan.open(options)?;
    plan.configure(&work)?;
    let what = format!("Linux ({}): headers", plan.config.name());
    work.run(&what, None, plan.make().arg("headers"))?;
    Ok(plan.tree().source)
}

impl Plan {
    fn new(project: &Project, options: &Options) -> Result<Self> {
        let folder = project.root.join("linux-patches").join(recipe::SERIES);
        let mut patches = sources::series(&folder)?;
        if let Some(number) = options.patches {
            if number > patches.len() {
                bail!("the series has {} patches", patches.len());
            }
            patches.truncate(number);
        }
        let with_ours = patches.iter().any(adds_our_option);
        let wanted = options.config.wanted(&folder.join("config"), with_ours)?;
        let (archive, base) = archive(project)?;
        let key = key(&base, &patches, &wanted)?;
        let work = project.target.join("kernel");
        work::fit_for_make(&work)?;
        let name = format!("linux-{}-{}-{key}", recipe::SERIES, options.config.name());
        Ok(Self {
            archive,
            base,
            patches,
            config: options.config,
            wanted,
            kept: project.cache("kernels")?.join(name),
            work,
            jobs: options.jobs.map_or_else(work::cpus, NonZeroUsize::get),
        })
    }

    fn image(&self) -> Option<PathBuf> {
        let image = self.kept.join(IMAGE);
        image.is_file().then_some(image)
    }

    fn objects(&self) -> PathBuf {
        self.work.join(format!("objects-{}", self.config.name()))
    }

    fn tree(&self) -> Tree {
        Tree {
            source: self.work.join("src"),
            originals: self.work.join("originals"),
            scratch: self.work.join("scratch"),
        }
    }

    /// Source tree unpacked, if it is not.
    fn open(&self, options: &Options) -> Result<Work> {
        let work = Work::open(self.work.clone())?;
        let tree = self.tree();
        // Another version's tree and objects, or half of some.
        let unpacked = format!("unpacked-{:016x}", hash(&self.base));
        if options.fresh || !work.is_done(&unpacked) {
            work.clear()?;
        }
        work.stage(&unpacked, || {
            eprintln!("   unpacking {}", self.archive.display());
            sources::unpack(&self.archive, &tree.source)
        })?;
        Ok(work)
    }

    fn configure(&self, work: &Work) -> Result<()> {
        self.tree().set(&self.patches)?;
        let objects = self.objects();
        make_folder(&objects)?;
        let fragment = objects.join("wanted.config");
        std::fs::write(&fragment, self.wanted.text())
            .with_context(|| format!("cannot write {}", fragment.display()))?;
        let what = format!("Linux ({}): configure", self.config.name());
        let mut make = self.make();
        make.arg("allnoconfig").env("KCONFIG_ALLCONFIG", &fragment);
        work.run(&what, None, &mut make)?;
        let made = objects.join(".config");
        let text = std::fs::read_to_string(&made)
            .with_context(|| format!("cannot read {}", made.display()))?;
        let unmet = self.wanted.unmet(&text);
        if !unmet.is_empty() {
            bail!(
                "kconfig did not take over {}: name what they depend on in linux-patches/{}/config, too",
                unmet.join(", "),
                recipe::SERIES
            );
        }
        Ok(())
    }

    fn build(&self, work: &Work) -> Result<()> {
        let objects = self.objects();
        let first = !objects.join("vmlinux").is_file();
        eprintln!(
            "   building Linux {} with {} patches ({}), {}; log: {}",
            recipe::SERIES,
            self.patches.len(),
            self.config.name(),
            if first {
                "about six minutes on two CPUs"
            } else {
                "what has changed"
            },
            work.log.display()
        );
        self.configure(work)?;
        let what = format!("Linux ({}): make", self.config.name());
        let lines = first.then(|| self.config.lines());
        work.run(&what, lines, self.make().arg(IMAGE))
    }

    fn make(&self) -> Command {
        let mut make = Command::new("make");
        make.arg(format!("-j{}", self.jobs));
        make.arg("-C").arg(self.work.join("src"));
        make.arg(format!("O={}", self.objects().display()));
        for name in recipe::FOREIGN_ENV {
            make.env_remove(name);
        }
        make.envs(recipe::BUILD_ENV.iter().copied());
        make
    }

    /// Puts what was built in its place.
    fn publish(&self) -> Result<()> {
        let parent = self.kept.parent().unwrap_or(&self.kept);
        let scratch = tempfile::Builder::new()
            .prefix("linux-")
            .tempdir_in(parent)
            .with_context(|| format!("cannot make a folder in {}", parent.display()))?;
        let whole = scratch.path().join("whole");
        let objects = self.objects();
        for (from, name) in [
            (objects.join("arch/x86/boot").join(IMAGE), IMAGE),
            (objects.join(".config"), "config"),
            (objects.join("System.map"), "System.map"),
        ] {
            copy(&from, &whole.join(name))?;
        }
        if let Err(error) = std::fs::rename(&whole, &self.kept)
            // Another run was faster: its image is of the same.
            && self.image().is_none()
        {
            return Err(error).with_context(|| format!("cannot keep {}", self.kept.display()));
        }
        Ok(())
    }
}

/// The pinned archive; the one that apt has now where that is not to be had any more.
fn archive(project: &Project) -> Result<(PathBuf, String)> {
    let pinned = fetch::Package::pinned(
        recipe::PACKAGE,
        recipe::PACKAGE_VERSION,
        recipe::PACKAGE_SHA256,
    );
    let package = if fetch::is_kept(project, &pinned, PART)? {
        pinned
    } else {
        offered(&pinned)?
    };
    let archive = fetch::unpacked(project, &package, PART)?.join(recipe::ARCHIVE);
    Ok((archive, format!("{} {}", package.version, package.sha256)))
}

/// Where the package has its archive.
const PART: &str = "usr/src";

fn offered(pinned: &fetch::Package) -> Result<fetch::Package> {
    let exact = format!("{}={}", pinned.name, pinned.version);
    match fetch::find(&exact) {
        Ok(package) if package.sha256 == pinned.sha256 => Ok(package),
        Ok(package) => bail!(
            "{exact} has the checksum {}, and {} is expected",
            package.sha256,
            pinned.sha256
        ),
        Err(_) => {
            let package = fetch::find(&pinned.name)?;
            eprintln!(
                "   {exact} is not to be had any more, taking {}",
                package.version
            );
            Ok(package)
        }
    }
}

fn adds_our_option(patch: &Patch) -> bool {
    String::from_utf8_lossy(&patch.text)
        .lines()
        .any(|line| line == "+config AUTO_LOCK")
}

fn key(base: &str, patches: &[Patch], wanted: &Wanted) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    base.hash(&mut hasher);
    for patch in patches {
        patch.text.hash(&mut hasher);
    }
    wanted.text().hash(&mut hasher);
    RECIPE.hash(&mut hasher);
    for tool in ["gcc", "ld"] {
        shell::output(Command::new(tool).arg("--version"))?.hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

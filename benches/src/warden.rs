//! The processes of a warden and of its runs, and what memory the kernel says that they hold.

use std::path::Path;

use anyhow::Context as _;

/// Memory of one process, or of several, in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Footprint {
    /// Resident (RSS).
    pub resident: u64,
    /// The same with what is shared divided by how many share it (PSS).
    pub proportional: u64,
}

/// A warden as it is at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Warden {
    /// Process id of the timekeeper.
    pub timekeeper: u32,
    /// Process id of the holder of the runs.
    pub holder: u32,
    /// What the timekeeper holds.
    pub of_timekeeper: Footprint,
    /// What the holder itself holds.
    pub of_holder: Footprint,
    /// What the inits of all runs hold together.
    pub of_inits: Footprint,
    /// How many inits there are.
    pub inits: usize,
}

impl Footprint {
    /// That of a process.
    ///
    /// # Errors
    /// When it is gone.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let path = Path::new("/proc")
            .join(pid.to_string())
            .join("smaps_rollup");
        let text = std::fs::read_to_string(path)?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
            let number = number.with_context(|| format!("no {name} of {pid}"))?;
            anyhow::Ok(number.trim().parse()?)
        };
        Ok(Self {
            resident: field("Rss:")?,
            proportional: field("Pss:")?,
        })
    }
}

impl Warden {
    /// The one with this timekeeper.
    ///
    /// # Errors
    /// When one of its processes is gone.
    pub fn of(timekeeper: u32) -> anyhow::Result<Self> {
        let holder = *children(timekeeper)?.first().context("no holder of runs")?;
        let inits = children(holder)?;
        let mut of_inits = Footprint::default();
        for init in &inits {
            let one = Footprint::of(*init)?;
            of_inits.resident += one.resident;
            of_inits.proportional += one.proportional;
        }
        Ok(Self {
            timekeeper,
            holder,
            of_timekeeper: Footprint::of(timekeeper)?,
            of_holder: Footprint::of(holder)?,
            of_inits,
            inits: inits.len(),
        })
    }
}

/// Children of a process, of whichever of its threads.
///
/// # Errors
/// When it is gone.
pub fn children(pid: u32) -> anyhow::Result<Vec<u32>> {
    let mut all = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(thread?.path().join("children"))?;
        for word in text.split_whitespace() {
            all.push(word.parse()?);
        }
    }
    Ok(all)
}

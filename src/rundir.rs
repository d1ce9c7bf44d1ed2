//! The only file that knows where things are inside a work dir, and how a file gets there whole.
//!
//! The layout is mmengine's, so that scripts that read a work dir go on working:
//!
//! ```text
//! work_dir/
//!   <config name>.yaml              the merged config
//!   iter_2000.safetensors           checkpoints, and last_checkpoint naming the newest
//!   current_run                     what the work dir is busy with; training.lock while a training holds it
//!   20260131_235959/                one folder a start; 20260131_235959_1/ where another start of that second has it
//!     20260131_235959.log           rank 0's log; <…>_rank1.log and so on beside it
//!     20260131_235959.json          a test's metrics
//!     vis_data/config.yaml          the merged config of this start
//!     vis_data/scalars.json         one line of JSON a logged step
//!   launch_20260131_235959/         what ranks print that do not print to the terminal, while a launcher of ours runs
//!     rank1.txt                     kept where a rank printed anything
//!   slurm/                          what batch jobs print
//!     123.log                       named by the job's number; a requeued job goes on in it
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::NamedTempFile;
use time::OffsetDateTime;
use time::macros::format_description;

use crate::exit::{Exit, Failure};

/// One start of a training or a test: the work dir and the time stamp that names this start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunDir {
    work_dir: PathBuf,
    stamp: String,
}

impl RunDir {
    /// The work dir of a config: the flag, else the config's `work_dir`, else `work_dirs/<config
    /// name>`.
    pub(crate) fn choose(
        flag: Option<&Path>,
        config_value: Option<&Path>,
        config_file: &Path,
    ) -> PathBuf {
        flag.or(config_value).map_or_else(
            || {
                let name = config_file.file_stem().unwrap_or(config_file.as_os_str());
                Path::new("work_dirs").join(name)
            },
            Path::to_owned,
        )
    }

    /// Where a launcher of several ranks puts what they print.
    pub(crate) fn output(work_dir: &Path, stamp: &str) -> PathBuf {
        work_dir.join(format!("launch_{stamp}"))
    }

    /// Where the logs of Slurm jobs go, one file a job.
    pub(crate) fn job_logs(work_dir: &Path) -> PathBuf {
        work_dir.join("slurm")
    }

    /// Makes the folders of a start, which are nobody else's; an error says which folder cannot be
    /// written and why.
    pub(crate) fn create(work_dir: &Path, stamp: &str) -> Result<Self, Failure> {
        // A folder that is there may still refuse new files; the work dir itself takes the
        // checkpoints.
        writable(
            work_dir,
            "the work dir",
            "choose another with --work-dir or change its permissions",
        )?;
        let stamp = claim(work_dir, stamp).map_err(|error| unwritable(work_dir, &error))?;
        Self::join(work_dir, &stamp)
    }

    /// The folders of a start that another rank made; they are made here too where the work dir is
    /// not shared.
    pub(crate) fn join(work_dir: &Path, stamp: &str) -> Result<Self, Failure> {
        let run = Self { work_dir: work_dir.to_owned(), stamp: stamp.to_owned() };
        fs::create_dir_all(run.vis_data()).map_err(|error| unwritable(work_dir, &error))?;
        Ok(run)
    }

    /// What names this start among all of the work dir's.
    pub(crate) fn stamp(&self) -> &str {
        &self.stamp
    }

    pub(crate) fn work_dir(&self) -> &Path {
        &self.work_dir
    }

    /// The folder of this start.
    pub(crate) fn dir(&self) -> PathBuf {
        self.work_dir.join(&self.stamp)
    }

    pub(crate) fn vis_data(&self) -> PathBuf {
        self.dir().join("vis_data")
    }

    /// The log file of a rank; rank 0's has no suffix.
    pub(crate) fn log(&self, rank: usize) -> PathBuf {
        let suffix = if rank == 0 { String::new() } else { format!("_rank{rank}") };
        self.dir().join(format!("{}{suffix}.log", self.stamp))
    }

    /// Where a test writes its metrics.
    pub(crate) fn metrics(&self) -> PathBuf {
        self.dir().join(format!("{}.json", self.stamp))
    }

    /// Where painted pictures go: an absolute folder as it is, a relative one inside this start's
    /// folder, as mmseg does.
    pub(crate) fn show_dir(&self, asked: &Path) -> PathBuf {
        self.dir().join(asked)
    }
}

/// Where a run's checkpoints lie: in its work dir, or in a folder of the work dir's name in
/// `out_dir`, as mmengine has it, so that several work dirs can name one.
pub(crate) fn checkpoints(work_dir: &Path, out_dir: Option<&Path>) -> PathBuf {
    let Some(out_dir) = out_dir else { return work_dir.to_owned() };
    let whole = fs::canonicalize(work_dir)
        .or_else(|_| std::path::absolute(work_dir))
        .unwrap_or_else(|_| work_dir.to_owned());
    whole.file_name().map_or_else(|| out_dir.to_owned(), |name| out_dir.join(name))
}

fn unwritable(work_dir: &Path, error: &io::Error) -> Failure {
    let message = format!(
        "cannot write the work dir {}: {error}; choose another with --work-dir or change its \
         permissions",
        work_dir.display()
    );
    Failure::new(Exit::CannotWrite, message)
}

/// Makes a folder that a run writes into later, and proves that it takes files. `what` it is and
/// what to do otherwise is said in the error.
pub(crate) fn writable(folder: &Path, what: &str, otherwise: &str) -> Result<(), Failure> {
    let proof = fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder));
    proof.map(drop).map_err(|error| {
        Failure::new(
            Exit::CannotWrite,
            format!("cannot write {what} {}: {error}; {otherwise}", folder.display()),
        )
    })
}

/// Makes the folder `name` in `parent`, or `name_1` and so on where that is taken: no two callers
/// get the same.
pub(crate) fn claim(parent: &Path, name: &str) -> io::Result<String> {
    fs::create_dir_all(parent)?;
    let names =
        (0..).map(|count| if count == 0 { name.to_owned() } else { format!("{name}_{count}") });
    for name in names {
        match fs::create_dir(parent.join(&name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| name),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// The way to `path`, whose folder exists, from the folder `from`.
pub(crate) fn relative(path: &Path, from: &Path) -> io::Result<PathBuf> {
    if let Ok(below) = path.strip_prefix(from) {
        return Ok(below.to_owned());
    }
    let whole = |folder: &Path| {
        fs::canonicalize(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
    };
    let (folder, from) = (whole(path.parent().unwrap_or(Path::new("")))?, whole(from)?);
    let common = folder
        .components()
        .zip(from.components())
        .take_while(|(left, right)| left == right)
        .count();
    let up = from.components().skip(common).map(|_| std::path::Component::ParentDir);
    let mut way: PathBuf = up.chain(folder.components().skip(common)).collect();
    way.push(path.file_name().unwrap_or_default());
    Ok(way)
}

/// The local time as mmengine stamps its folders, `20260131_235959`.
pub(crate) fn stamp_now() -> String {
    now()
        .format(format_description!("[year][month][day]_[hour][minute][second]"))
        .unwrap_or_default()
}

/// The local time, or UTC where the local offset cannot be known.
pub(crate) fn now() -> OffsetDateTime {
    OffsetDateTime::now_local().unwrap_or_else(|_| OffsetDateTime::now_utc())
}

/// How the names of files begin that are being written.
const UNFINISHED: &str = ".writing-";

/// A file in `folder` that is gone when it is dropped, to be written and then persisted under its
/// name. Others may read it as far as the umask lets them.
pub(crate) fn unfinished(folder: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(UNFINISHED)
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(folder)
}

/// Removes the parts of files that killed processes left in `folder`: those in which nothing was
/// written for an hour, since a younger one may be growing right now. Returns how many.
pub(crate) fn sweep(folder: &Path) -> io::Result<usize> {
    let hour = Duration::from_hours(1);
    let mut removed = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let age =
            entry.metadata().and_then(|it| it.modified()).ok().and_then(|it| it.elapsed().ok());
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED)
            && age.is_some_and(|age| age > hour)
        {
            fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Writes a file so that a reader sees the old contents or the new ones, never a part: a temporary
/// file beside it, fsync, rename.
pub(crate) fn write_atomically(path: &Path, contents: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = unfinished(folder)?;
    file.write_all(contents)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_dir_is_the_flag_then_the_config_then_the_config_files_name() {
        let file = Path::new("configs/demo/psp.v1.yaml");
        assert_eq!(
            RunDir::choose(Some(Path::new("a")), Some(Path::new("b")), file),
            Path::new("a")
        );
        assert_eq!(RunDir::choose(None, Some(Path::new("b")), file), Path::new("b"));
        assert_eq!(RunDir::choose(None, None, file), Path::new("work_dirs/psp.v1"));
    }

    #[test]
    fn work_dirs_that_share_an_out_dir_have_folders_of_their_own_in_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let work = folder.path().join("sweep/0");
        fs::create_dir_all(&work).expect("a folder");
        assert_eq!(checkpoints(&work, None), work);
        assert_eq!(checkpoints(&work, Some(Path::new("out"))), Path::new("out/0"));
        assert_eq!(checkpoints(&work.join("../0/."), Some(Path::new("out"))), Path::new("out/0"));
    }

    #[test]
    fn a_work_dir_below_a_file_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("taken");
        fs::write(&file, "x").expect("a file");
        let failure = RunDir::create(&file.join("work"), "now").expect_err("a file is no folder");
        assert_eq!(failure.exit, Exit::CannotWrite);
        assert!(failure.message.contains("taken/work"), "{}", failure.message);
    }

    #[test]
    fn starts_of_one_second_have_folders_of_their_own() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let starts: Vec<_> = std::thread::scope(|scope| {
            let start = || {
                scope.spawn(|| {
                    RunDir::create(folder.path(), "20260131_235959").expect("a start").metrics()
                })
            };
            let running: Vec<_> = (0..8).map(|_| start()).collect();
            running.into_iter().map(|it| it.join().expect("no panic")).collect()
        });
        let different: std::collections::BTreeSet<_> = starts.iter().collect();
        assert_eq!(different.len(), starts.len(), "{starts:?}");
        assert!(
            starts.contains(&folder.path().join("20260131_235959/20260131_235959.json")),
            "{starts:?}"
        );
        assert!(
            starts.contains(&folder.path().join("20260131_235959_7/20260131_235959_7.json")),
            "{starts:?}"
        );
    }

    #[test]
    fn a_way_leads_down_and_across() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (work, out) = (folder.path().join("a/work"), folder.path().join("b"));
        fs::create_dir_all(&work).expect("makes");
        fs::create_dir_all(&out).expect("makes");
        assert_eq!(relative(&work.join("iter_2"), &work).expect("a way"), Path::new("iter_2"));
        assert_eq!(
            relative(&out.join("iter_2"), &work).expect("a way"),
            Path::new("../../b/iter_2")
        );
    }

    #[test]
    fn an_atomic_write_replaces_the_file_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("last_checkpoint");
        write_atomically(&path, b"one").expect("first write");
        write_atomically(&path, b"two").expect("second write");
        assert_eq!(fs::read(&path).expect("the file"), b"two");
        assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 1);
    }

    #[test]
    fn what_a_killed_process_left_is_swept_and_what_another_writes_is_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let growing = unfinished(folder.path()).expect("a file");
        let old = folder.path().join(".writing-abcdef");
        let file = File::create(&old).expect("a file");
        file.set_modified(std::time::SystemTime::now() - Duration::from_hours(2))
            .expect("another date");
        assert_eq!(sweep(folder.path()).expect("sweeps"), 1);
        assert!(growing.path().exists() && !old.exists());
    }

    #[test]
    fn a_finished_file_is_for_others_to_read() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let plain = folder.path().join("plain");
        fs::write(&plain, "").expect("writes");
        let ours = folder.path().join("ours");
        write_atomically(&ours, b"").expect("writes");
        let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }
}

//! One training a folder. Two in one folder write into the same log, prune each other's
//! checkpoints, and both end well.
//!
//! The holder's name lies in the folder as `training.lock`, put there by a hard link: it is there
//! whole or not at all, on NFS too, and only one of several can put it. A file does not go away
//! with its owner, so whoever finds one asks whether the holder still lives: by its process where
//! that can be seen, by its Slurm job, else by the file's date, which the holder renews every half
//! minute. All dates are the file system's own, so that clocks need not agree. A dead holder's lock
//! is replaced by one claimant at a time, which first looks again whether it is still that lock.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use nix::sys::signal::kill;
use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;
use nix::unistd::{Pid, Uid, User};
use rand::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};
use time::macros::format_description;

use crate::exit::{Exit, Exits};
use crate::rundir;
use crate::slurm::client;
use crate::slurm::env::Job;

/// The lock's name in its folder.
const NAME: &str = "training.lock";
/// How often a holder renews its lock's date.
const BEAT: Duration = Duration::from_secs(30);
/// How old a lock's date may be before its holder counts as dead. Network file systems stall for a
/// minute or two and come back.
const STALE: Duration = Duration::from_mins(5);
/// How often a lock that changes under our eyes is looked at again.
const ATTEMPTS: usize = 40;

/// Who holds a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    /// Tells this hold from every other one.
    nonce: String,
    user: String,
    host: String,
    /// Linux's name of this boot of the machine.
    boot: String,
    /// The namespace that process numbers are of: containers on one machine have their own.
    pids: String,
    pid: u32,
    /// When the process began, in the kernel's ticks: a number is given again to another process.
    began: Option<u64>,
    /// The local time, for people.
    since: String,
    job: Option<HoldersJob>,
}

/// The Slurm job of a holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct HoldersJob {
    address: String,
    restart: u64,
    cluster: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, host, pid, since, job, .. } = self;
        write!(f, "process {pid} of {user} on {host}")?;
        if let Some(job) = job {
            write!(f, ", Slurm job {}", job.address)?;
        }
        write!(f, ", since {since}")
    }
}

/// Why a folder was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    #[error(
        "the folder {} is in use by another training ({by}); two trainings cannot share one: give \
         this one another folder ({flag}), or stop the other and go on with --resume; if it is \
         certain that nothing runs any more, remove {}",
        folder.display(),
        folder.join(NAME).display()
    )]
    Held { folder: PathBuf, by: String, flag: &'static str },
    #[error("the folder {} is no longer this training's: {by} has taken it over, because this one \
             gave no sign for minutes", folder.display())]
    Lost { folder: PathBuf, by: String },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl Exits for LockError {
    fn exit(&self) -> Exit {
        if matches!(self, Self::Write { .. }) { Exit::CannotWrite } else { Exit::Unavailable }
    }
}

/// Whether a holder lives.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Lives,
    /// And how that is known.
    Dead(String),
}

impl Holder {
    /// This process, in this Slurm job.
    pub(crate) fn this_process(job: Option<&Job>, cluster: Option<String>) -> Self {
        let read = |path: &str| {
            fs::read_to_string(path).map(|it| it.trim().to_owned()).unwrap_or_default()
        };
        let user = User::from_uid(Uid::current())
            .ok()
            .flatten()
            .map_or_else(|| Uid::current().to_string(), |it| it.name);
        let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
        let pid = std::process::id();
        Self {
            nonce: format!("{:016x}", rand::rngs::StdRng::from_os_rng().next_u64()),
            user,
            host: nix::unistd::gethostname()
                .map(|it| it.to_string_lossy().into_owned())
                .unwrap_or_default(),
            boot: read("/proc/sys/kernel/random/boot_id"),
            pids: fs::read_link("/proc/self/ns/pid")
                .map(|it| it.to_string_lossy().into_owned())
                .unwrap_or_default(),
            pid,
            began: process_began(pid),
            since: rundir::now().format(format).unwrap_or_default(),
            job: job.map(|it| HoldersJob {
                address: it.address.clone(),
                restart: it.restart,
                cluster,
            }),
        }
    }

    /// Whether this other holder, whose lock was renewed `age` ago, lives, as `own` can tell.
    fn judge(
        &self,
        own: &Self,
        age: Duration,
        job_lives: &dyn Fn(&str, &str) -> Option<bool>,
    ) -> Verdict {
        if let (Some(job), Some(ours)) = (&self.job, &own.job)
            && job.address == ours.address
            && job.cluster == ours.cluster
            && job.restart < ours.restart
        {
            return Verdict::Dead(
                "it is an earlier start of this job, which Slurm has ended and started again"
                    .to_owned(),
            );
        }
        let visible = !self.boot.is_empty()
            && self.boot == own.boot
            && !self.pids.is_empty()
            && self.pids == own.pids;
        if visible {
            if kill(Pid::from_raw(self.pid.cast_signed()), None) == Err(nix::errno::Errno::ESRCH) {
                return Verdict::Dead("there is no such process any more".to_owned());
            }
            match (self.began, process_began(self.pid)) {
                (Some(then), Some(now)) if then == now => return Verdict::Lives,
                (Some(_), Some(_)) => {
                    return Verdict::Dead(
                        "its process number is another process's by now".to_owned(),
                    );
                }
                _ if fs::exists(format!("/proc/{}/stat", self.pid)).unwrap_or(false) => {
                    return Verdict::Dead("its process has ended".to_owned());
                }
                _ => {}
            }
        }
        if let Some(HoldersJob { address, cluster: Some(cluster), .. }) = &self.job
            && job_lives(address, cluster) == Some(false)
        {
            return Verdict::Dead("Slurm says that the job does not run any more".to_owned());
        }
        if age > STALE {
            return Verdict::Dead(format!(
                "it has given no sign for {} minutes",
                age.as_secs() / 60
            ));
        }
        Verdict::Lives
    }
}

/// When a process began, in ticks since the machine did; `None` where it is not there, has ended,
/// or cannot be seen.
fn process_began(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if ["Z", "X"].contains(&state) {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// A folder held for this training; given back when dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    folder: PathBuf,
    own: Holder,
    /// The holder whose lock was replaced, and how it is known that it is dead.
    pub replaced: Option<String>,
    /// Dropped to end the thread that renews the lock's date.
    beat: Option<Sender<()>>,
}

impl Lock {
    /// Takes a folder, which is there, for `own`. `flag` is how another folder would be chosen.
    pub(crate) fn take(folder: &Path, own: &Holder, flag: &'static str) -> Result<Self, LockError> {
        let path = folder.join(NAME);
        let held = |by: String| LockError::Held { folder: folder.to_owned(), by, flag };
        let replaced = match take(&path, own, 0)
            .map_err(|source| LockError::Write { path: path.clone(), source })?
        {
            Taken::Free => None,
            Taken::After(who) => Some(who),
            Taken::Not(by) => return Err(held(by)),
        };
        let mut lock = Self { folder: folder.to_owned(), own: own.clone(), replaced, beat: None };
        lock.beat = lock.renew_from_now_on();
        Ok(lock)
    }

    fn path(&self) -> PathBuf {
        self.folder.join(NAME)
    }

    /// A thread that renews the date until what this returns is dropped.
    fn renew_from_now_on(&self) -> Option<Sender<()>> {
        let (sender, receiver) = channel();
        let (path, nonce) = (self.path(), self.own.nonce.clone());
        let beat = move || {
            while let Err(RecvTimeoutError::Timeout) = receiver.recv_timeout(BEAT) {
                if read(&path).is_ok_and(|it| it.is_some_and(|it| it.nonce == nonce))
                    && let Ok(file) = File::open(&path)
                {
                    let _ = futimens(&file, &TimeSpec::UTIME_NOW, &TimeSpec::UTIME_NOW);
                }
            }
        };
        // Without it the lock only looks older than it is.
        std::thread::Builder::new().name("lock".to_owned()).spawn(beat).ok().map(|_| sender)
    }

    /// Whether the folder is still held: a process that was stopped for minutes may find another
    /// one in its place.
    pub(crate) fn confirm(&self) -> Result<(), LockError> {
        match read(&self.path()) {
            Ok(Some(holder)) if holder.nonce == self.own.nonce => Ok(()),
            Ok(Some(holder)) => {
                Err(LockError::Lost { folder: self.folder.clone(), by: holder.to_string() })
            }
            // Somebody removed it, and nobody has come since.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match place(&self.path(), &self.own) {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(LockError::Lost {
                        folder: self.folder.clone(),
                        by: "another training".to_owned(),
                    }),
                    Err(source) => Err(LockError::Write { path: self.path(), source }),
                }
            }
            // A file system that does not answer well just now is not another training.
            Ok(None) | Err(_) => Ok(()),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.beat = None;
        release(&self.path(), &self.own);
    }
}

/// How an attempt went.
enum Taken {
    Free,
    /// In the place of a dead holder.
    After(String),
    /// A living holder has it.
    Not(String),
}

/// Puts `own` at `path`. Replacing a dead holder's lock takes a lock of its own, so it calls
/// itself, once deeper.
fn take(path: &Path, own: &Holder, depth: usize) -> io::Result<Taken> {
    let folder = path.parent().unwrap_or(Path::new("."));
    for attempt in 0..ATTEMPTS {
        if place(path, own)? {
            return Ok(Taken::Free);
        }
        let before = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            before => before?,
        };
        let Some(age) = age(path, folder)? else { continue };
        let (who, verdict) = match serde_json::from_slice::<Holder>(&before) {
            Ok(holder) => (holder.to_string(), holder.judge(own, age, &job_lives)),
            // Where there are no hard links, a lock is empty for a moment.
            Err(_) if age > STALE => (
                "somebody whose lock cannot be read".to_owned(),
                Verdict::Dead("it is old".to_owned()),
            ),
            Err(_) => ("somebody whose lock cannot be read".to_owned(), Verdict::Lives),
        };
        let why = match verdict {
            Verdict::Lives if depth > 0 && attempt + 1 < ATTEMPTS => {
                // Another one is replacing the dead holder; that takes no time.
                std::thread::sleep(Duration::from_millis(25));
                continue;
            }
            Verdict::Lives => return Ok(Taken::Not(who)),
            Verdict::Dead(why) => why,
        };
        let claim = path
            .with_extension(format!("{}-claim", path.extension().unwrap_or_default().display()));
        if depth < 2 && matches!(take(&claim, own, depth + 1)?, Taken::Not(_)) {
            continue;
        }
        // The claim is ours: nobody else replaces the lock now, so it stays what it is between this
        // look and the rename.
        let same = fs::read(path).is_ok_and(|it| it == before);
        let renamed = if same {
            written(folder, own)?.persist(path).map(drop).map_err(|it| it.error)
        } else {
            Ok(())
        };
        release(&claim, own);
        renamed?;
        if same {
            return Ok(Taken::After(format!("{who}: {why}")));
        }
    }
    Ok(Taken::Not("several that came at the same time".to_owned()))
}

/// A file with the holder's name, not in its place yet.
fn written(folder: &Path, own: &Holder) -> io::Result<tempfile::NamedTempFile> {
    let mut file = rundir::unfinished(folder)?;
    file.write_all(format!("{:#}\n", serde_json::to_value(own)?).as_bytes())?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// Puts the holder's name at `path` where nothing is there; whether that was so.
fn place(path: &Path, own: &Holder) -> io::Result<bool> {
    let file = written(path.parent().unwrap_or(Path::new(".")), own)?;
    match fs::hard_link(file.path(), path) {
        Ok(()) => Ok(true),
        // Over NFS the answer to a link that was made may be lost, and the second try finds it
        // there.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Ok(file.as_file().metadata()?.nlink() == 2)
        }
        // A file system without hard links.
        Err(_) => match File::options().write(true).create_new(true).open(path) {
            Ok(mut lock) => {
                fs::read(file.path()).and_then(|text| lock.write_all(&text)).map(|()| true)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        },
    }
}

/// The holder at `path`; `None` where what is there is no holder's name.
fn read(path: &Path) -> io::Result<Option<Holder>> {
    Ok(serde_json::from_slice(&fs::read(path)?).ok())
}

fn release(path: &Path, own: &Holder) {
    if read(path).is_ok_and(|it| it.is_some_and(|it| it.nonce == own.nonce)) {
        let _ = fs::remove_file(path);
    }
}

/// How long ago the lock was renewed, by the clock of its file system; `None` where it has just
/// gone.
fn age(path: &Path, folder: &Path) -> io::Result<Option<Duration>> {
    let now = rundir::unfinished(folder)?.as_file().metadata()?.modified()?;
    match fs::metadata(path) {
        Ok(file) => Ok(Some(now.duration_since(file.modified()?).unwrap_or_default())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a job of a cluster runs, where the Slurm here is that cluster's and says so.
fn job_lives(address: &str, cluster: &str) -> Option<bool> {
    if client::cluster_name()? != cluster {
        return None;
    }
    client::job_runs(address)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "as a holder has it")]
    fn job(address: &str, restart: u64) -> Option<HoldersJob> {
        Some(HoldersJob { address: address.to_owned(), restart, cluster: Some("c".to_owned()) })
    }

    fn this() -> Holder {
        Holder::this_process(None, None)
    }

    /// A holder on a machine that cannot be seen from here.
    fn elsewhere() -> Holder {
        Holder { host: "elsewhere".to_owned(), boot: "another".to_owned(), ..this() }
    }

    const FRESH: Duration = Duration::from_secs(20);

    #[test]
    fn a_holder_is_dead_by_its_process_its_job_or_its_silence_and_alive_otherwise() {
        let unknown = |_: &str, _: &str| None;
        let ended = |_: &str, _: &str| Some(false);
        let old = STALE + Duration::from_mins(1);
        let judge =
            |other: &Holder, own: &Holder, age, ask: &dyn Fn(&str, &str) -> Option<bool>| {
                matches!(other.judge(own, age, ask), Verdict::Dead(_))
            };
        let own = this();
        assert!(
            !judge(&own, &own, old, &ended),
            "a process that is there lives, however long it was stopped"
        );
        assert!(
            judge(&Holder { began: Some(1), ..this() }, &own, FRESH, &unknown),
            "the number is another process's"
        );
        // No process has a number beyond the kernel's limit of 4194304.
        assert!(
            judge(&Holder { pid: 4_194_305, ..this() }, &own, FRESH, &unknown),
            "there is no such process"
        );
        let container = Holder { pids: "pid:[1]".to_owned(), pid: 4_194_305, ..this() };
        assert!(
            !judge(&container, &own, FRESH, &unknown),
            "another container's processes cannot be seen"
        );
        assert!(
            !judge(&elsewhere(), &own, FRESH, &unknown) && judge(&elsewhere(), &own, old, &unknown)
        );
        let queued = Holder { job: job("7", 0), ..elsewhere() };
        assert!(!judge(&queued, &own, FRESH, &unknown) && judge(&queued, &own, FRESH, &ended));
        let requeued = Holder { job: job("7", 1), ..this() };
        assert!(
            judge(&queued, &requeued, FRESH, &unknown)
                && !judge(&requeued, &queued, FRESH, &unknown)
        );
    }

    #[test]
    fn a_folder_is_held_until_the_lock_is_dropped_and_the_error_says_by_whom() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let first = Lock::take(folder.path(), &this(), "--work-dir").expect("free");
        let message =
            Lock::take(folder.path(), &this(), "--work-dir").expect_err("held").to_string();
        for part in
            [&format!("process {}", std::process::id()), "--work-dir", "training.lock", "--resume"]
        {
            assert!(message.contains(part), "{part} is not in: {message}");
        }
        first.confirm().expect("still held");
        drop(first);
        assert_eq!(fs::read_dir(folder.path()).expect("reads").count(), 0);
        assert!(
            Lock::take(folder.path(), &this(), "--work-dir")
                .expect("free again")
                .replaced
                .is_none()
        );
    }

    #[test]
    fn one_of_many_gets_the_lock_of_a_dead_holder() {
        for _ in 0..20 {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let dead = Holder { pid: 4_194_305, ..this() };
            assert!(place(&folder.path().join(NAME), &dead).expect("writes"));
            let taken: Vec<_> = std::thread::scope(|scope| {
                let claim = || scope.spawn(|| Lock::take(folder.path(), &this(), "--work-dir"));
                let running: Vec<_> = (0..8).map(|_| claim()).collect();
                running.into_iter().map(|it| it.join().expect("no panic")).collect()
            });
            let held: Vec<_> = taken.iter().filter_map(|it| it.as_ref().ok()).collect();
            assert_eq!(held.len(), 1, "{taken:?}");
            assert!(
                held[0].replaced.as_ref().is_some_and(|it| it.contains("process 4194305")),
                "{held:?}"
            );
            held[0].confirm().expect("it is the one in the file");
            drop(taken);
            assert_eq!(fs::read_dir(folder.path()).expect("reads").count(), 0);
        }
    }

    #[test]
    fn a_holder_elsewhere_counts_by_the_date_of_its_lock() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(NAME);
        assert!(place(&path, &elsewhere()).expect("writes"));
        Lock::take(folder.path(), &this(), "--work-dir").expect_err("it may live");
        let file = File::options().write(true).open(&path).expect("opens");
        file.set_modified(SystemTime::now() - STALE - Duration::from_mins(2))
            .expect("another date");
        let lock = Lock::take(folder.path(), &this(), "--work-dir").expect("it is dead");
        assert!(
            lock.replaced
                .as_ref()
                .is_some_and(|it| it.contains("on elsewhere") && it.contains("7 minutes")),
            "{lock:?}"
        );
    }

    #[test]
    fn a_holder_that_was_replaced_or_removed_hears_of_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let lock = Lock::take(folder.path(), &this(), "--work-dir").expect("free");
        fs::remove_file(lock.path()).expect("removes");
        lock.confirm().expect("nobody came in between");
        assert!(lock.path().exists());
        fs::remove_file(lock.path()).expect("removes");
        let second = Lock::take(folder.path(), &this(), "--work-dir").expect("free");
        let message = lock.confirm().expect_err("taken over").to_string();
        assert!(message.contains("no longer this training's"), "{message}");
        drop(lock);
        second.confirm().expect("the first one left the second's lock alone");
    }
}

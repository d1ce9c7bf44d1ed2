//! The ranks as one: what they reduce, gather and agree on.
//!
//! A group is a cheap handle. All ranks call the same methods in the same order; what has its own
//! order (gradient buckets beside batch norms) gets a group of its own by [`Group::split`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use segslurm_native::NativeError;
use segslurm_native::collective::{self, GlooDevice, ProcessGroup, Store};
use segslurm_native::device::{self, CopyStream, Readback};
use tch::Tensor;

use super::DistError;
use super::lifeline::{Lifeline, name};

/// How values of different ranks become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduce {
    Sum,
    /// The sum divided by the number of ranks.
    Mean,
    Min,
    Max,
}

/// What a process group talks over.
#[derive(Debug, Clone)]
pub(super) enum Device {
    Nccl(usize),
    GlooInterface(String),
    GlooAddress(String),
}

impl Device {
    /// Where small tensors of control have to be: NCCL takes only its own device's.
    fn of_tensors(&self) -> tch::Device {
        match self {
            Self::Nccl(index) => tch::Device::Cuda(*index),
            Self::GlooInterface(_) | Self::GlooAddress(_) => tch::Device::Cpu,
        }
    }
}

/// All that the rendezvous found out.
pub(super) struct Meeting {
    pub(super) rank: usize,
    pub(super) world: usize,
    pub(super) local_rank: usize,
    pub(super) local_world: usize,
    pub(super) hosts: Vec<String>,
    pub(super) store: Store,
    pub(super) device: Device,
    pub(super) timeout: Duration,
    pub(super) lifeline: Lifeline,
}

/// What this rank has sent and waited for since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Traffic {
    /// Collectives started.
    pub collectives: u64,
    /// Bytes that this rank gave to collectives (not what the algorithm then sends, which is up to
    /// twice as much).
    pub bytes: u64,
    /// Time that the caller was blocked. With NCCL the device waits, not the caller, and this is
    /// near zero.
    pub waited: Duration,
}

/// Shared by a group and all groups split from it.
struct Run {
    meeting: Meeting,
    /// Brings answers to the host past what the device still has to compute.
    copies: CopyStream,
    split: AtomicUsize,
    ended: AtomicBool,
    collectives: AtomicU64,
    bytes: AtomicU64,
    waited_ns: AtomicU64,
}

impl Drop for Run {
    fn drop(&mut self) {
        // A group dropped without `finish` is a rank on its way out of an error, or unwinding.
        if !self.ended.load(Ordering::Acquire) {
            self.meeting
                .lifeline
                .fail("it ended before the run was finished; its own log tells why");
        }
    }
}

struct Inner {
    // Before `run`: the process group goes before the store that it was made on.
    process_group: ProcessGroup,
    run: Arc<Run>,
}

/// A cheap handle to the ranks of a run; [`Group::alone`] for a run of one process.
#[derive(Clone)]
pub struct Group(Option<Arc<Inner>>);

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "Group(rank {} of {})", self.rank(), self.world())
    }
}

impl Default for Group {
    fn default() -> Self {
        Self::alone()
    }
}

fn refused(collective: &str, error: impl std::fmt::Display) -> DistError {
    DistError::Collective(format!("{collective} failed: {error}"))
}

impl Group {
    /// The group of a single process: every collective is the identity.
    pub fn alone() -> Self {
        Self(None)
    }

    pub(super) fn meet(meeting: Meeting) -> Result<Self, DistError> {
        let copies = CopyStream::new(meeting.device.of_tensors())
            .map_err(|error| refused("the set-up of a stream", error))?;
        let run = Run {
            meeting,
            copies,
            split: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            collectives: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            waited_ns: AtomicU64::new(0),
        };
        Self::over(Arc::new(run))
    }

    fn over(run: Arc<Run>) -> Result<Self, DistError> {
        let Meeting { rank, world, store, device, timeout, lifeline, .. } = &run.meeting;
        // The lifeline knows more about a hang, so it speaks first.
        let timeout = *timeout + Duration::from_secs(15);
        let number = run.split.fetch_add(1, Ordering::AcqRel);
        let failed = |error: NativeError| {
            let words = format!("the ranks met, but cannot connect to each other: {error}");
            DistError::Rendezvous(lifeline.explain(&words))
        };
        let store = store.prefixed(&format!("group/{number}")).map_err(failed)?;
        lifeline.enter("the set-up of a process group");
        let made = match device {
            Device::Nccl(index) => ProcessGroup::nccl(&store, *rank, *world, timeout, *index),
            Device::GlooInterface(name) => {
                ProcessGroup::gloo(&store, *rank, *world, timeout, GlooDevice::Interface(name))
            }
            Device::GlooAddress(address) => {
                ProcessGroup::gloo(&store, *rank, *world, timeout, GlooDevice::Address(address))
            }
        };
        lifeline.leave();
        Ok(Self(Some(Arc::new(Inner { process_group: made.map_err(failed)?, run }))))
    }

    /// The same ranks once more, with an order of collectives of its own. A collective itself: all
    /// ranks split together.
    pub fn split(&self) -> Result<Self, DistError> {
        self.0.as_ref().map_or(Ok(Self(None)), |inner| Self::over(Arc::clone(&inner.run)))
    }

    fn meeting(&self) -> Option<&Meeting> {
        self.0.as_ref().map(|inner| &inner.run.meeting)
    }

    pub fn rank(&self) -> usize {
        self.meeting().map_or(0, |it| it.rank)
    }

    /// The number of ranks.
    pub fn world(&self) -> usize {
        self.meeting().map_or(1, |it| it.world)
    }

    /// The rank's number on its machine, which chooses its GPU.
    pub fn local_rank(&self) -> usize {
        self.meeting().map_or(0, |it| it.local_rank)
    }

    pub fn local_world(&self) -> usize {
        self.meeting().map_or(1, |it| it.local_world)
    }

    /// Whether this rank writes checkpoints and logs for all.
    pub fn is_main(&self) -> bool {
        self.rank() == 0
    }

    /// `rank 3 (host n2)`.
    pub fn name(&self, rank: usize) -> String {
        name(rank, Some(self.host(rank)))
    }

    /// The name of a rank's machine.
    pub fn host(&self, rank: usize) -> &str {
        self.meeting().and_then(|it| it.hosts.get(rank)).map_or("", String::as_str)
    }

    /// `nccl` or `gloo`; `none` for one process.
    pub fn backend(&self) -> &'static str {
        match self.meeting().map(|it| &it.device) {
            None => "none",
            Some(Device::Nccl(_)) => "nccl",
            Some(Device::GlooInterface(_) | Device::GlooAddress(_)) => "gloo",
        }
    }

    /// What this rank has communicated since the start, over all groups split from one another.
    pub fn traffic(&self) -> Traffic {
        self.0.as_ref().map_or_else(Traffic::default, |inner| Traffic {
            collectives: inner.run.collectives.load(Ordering::Relaxed),
            bytes: inner.run.bytes.load(Ordering::Relaxed),
            waited: Duration::from_nanos(inner.run.waited_ns.load(Ordering::Relaxed)),
        })
    }

    /// Starts a reduction of `tensor`, which must be contiguous, in place on all ranks;
    /// [`Pending::wait`] gives it back.
    pub fn all_reduce_async(&self, tensor: Tensor, reduce: Reduce) -> Result<Pending, DistError> {
        let Some(inner) = &self.0 else {
            return Ok(Pending { work: Work::Done(tensor), divide: None, inner: None });
        };
        let operation = match reduce {
            Reduce::Sum | Reduce::Mean => collective::Reduce::Sum,
            Reduce::Min => collective::Reduce::Min,
            Reduce::Max => collective::Reduce::Max,
        };
        let divide = (reduce == Reduce::Mean).then(|| self.world());
        Self::started("all_reduce", inner, &tensor.shallow_clone(), divide, || {
            inner.process_group.all_reduce(tensor, operation)
        })
    }

    fn started(
        name: &'static str,
        inner: &Arc<Inner>,
        input: &Tensor,
        divide: Option<usize>,
        start: impl FnOnce() -> Result<collective::Pending, NativeError>,
    ) -> Result<Pending, DistError> {
        if let Some(verdict) = inner.run.meeting.lifeline.verdict() {
            return Err(DistError::Collective(verdict));
        }
        inner.run.collectives.fetch_add(1, Ordering::Relaxed);
        inner.run.bytes.fetch_add(
            (input.numel() * input.kind().elt_size_in_bytes()) as u64,
            Ordering::Relaxed,
        );
        let (shape, input) = (input.size(), input.shallow_clone());
        let work = start().map_err(|error| {
            DistError::Collective(inner.run.meeting.lifeline.explain(&format!("{name}: {error}")))
        })?;
        Ok(Pending {
            work: Work::InFlight { work, name, shape, input },
            divide,
            inner: Some(Arc::clone(inner)),
        })
    }

    /// Reduces `tensor` in place on all ranks.
    pub fn all_reduce(&self, tensor: &Tensor, reduce: Reduce) -> Result<(), DistError> {
        if self.0.is_none() {
            return Ok(());
        }
        if tensor.is_contiguous() {
            return self.all_reduce_async(tensor.shallow_clone(), reduce)?.wait().map(drop);
        }
        let reduced = self.all_reduce_async(tensor.contiguous(), reduce)?.wait()?;
        tensor.shallow_clone().f_copy_(&reduced).map_err(|error| refused("all_reduce", error))
    }

    /// Overwrites `tensor` with rank `root`'s.
    pub fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<(), DistError> {
        let Some(inner) = &self.0 else { return Ok(()) };
        let whole = tensor.contiguous();
        let started = Self::started("broadcast", inner, &whole, None, || {
            inner.process_group.broadcast(whole.shallow_clone(), root)
        });
        let received = started?.wait()?;
        if !tensor.is_contiguous() {
            tensor
                .shallow_clone()
                .f_copy_(&received)
                .map_err(|error| refused("broadcast", error))?;
        }
        Ok(())
    }

    /// Starts to gather the tensors of all ranks, of one shape `[…]` and type; [`Pending::wait`]
    /// gives `[world, …]`.
    pub fn all_gather_async(&self, tensor: &Tensor) -> Result<Pending, DistError> {
        let Some(inner) = &self.0 else {
            return Ok(Pending {
                work: Work::Done(tensor.unsqueeze(0)),
                divide: None,
                inner: None,
            });
        };
        let tensor = tensor.contiguous();
        Self::started("all_gather", inner, &tensor, None, || {
            inner.process_group.all_gather(&tensor)
        })
    }

    /// `[world, …]`: the tensors of all ranks, of one shape `[…]` and type.
    pub fn all_gather(&self, tensor: &Tensor) -> Result<Tensor, DistError> {
        self.all_gather_async(tensor)?.wait()
    }

    /// Returns when all ranks have come here.
    pub fn barrier(&self) -> Result<(), DistError> {
        self.any(false).map(drop)
    }

    /// Whether `value` is true on any rank: interrupts, overflows, stops. All get the same answer.
    pub fn any(&self, value: bool) -> Result<bool, DistError> {
        self.any_async(value)?.wait()
    }

    /// Asks all ranks whether `value` is true on any of them; the answer is there when the caller
    /// needs it.
    pub fn any_async(&self, value: bool) -> Result<Answer, DistError> {
        if self.0.is_none() {
            return Ok(Answer::Known(value));
        }
        let asked =
            self.all_reduce_async(self.small(&[f64::from(u8::from(value))])?, Reduce::Max)?;
        Ok(Answer::Asked(match &self.0 {
            Some(inner) => asked.read_back(&inner.run.copies)?,
            None => Arriving(Readout::Due(asked)),
        }))
    }

    /// Sums of numbers over the ranks; exact for whole numbers below 2^53.
    pub fn sums(&self, values: &[f64]) -> Result<Vec<f64>, DistError> {
        if self.0.is_none() {
            return Ok(values.to_vec());
        }
        let summed = self.small(values)?;
        self.all_reduce(&summed, Reduce::Sum)?;
        Vec::try_from(summed.to_device(tch::Device::Cpu))
            .map_err(|error| refused("all_reduce", error))
    }

    /// The texts of all ranks, in order of rank.
    pub fn all_gather_text(&self, text: &str) -> Result<Vec<String>, DistError> {
        if self.0.is_none() {
            return Ok(vec![text.to_owned()]);
        }
        let length = self.small(&[text.len() as f64])?;
        let lengths = Vec::<f64>::try_from(
            self.all_gather(&length)?.flatten(0, -1).to_device(tch::Device::Cpu),
        )
        .map_err(|error| refused("all_gather", error))?;
        let longest = lengths.iter().copied().fold(1.0, f64::max) as usize;
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(longest, 0);
        let gathered =
            self.all_gather(&Tensor::from_slice(&bytes).to_device(self.control_device()))?;
        let all = Vec::<u8>::try_from(gathered.flatten(0, -1).to_device(tch::Device::Cpu))
            .map_err(|error| refused("all_gather", error))?;
        let texts = all.chunks(longest).zip(&lengths);
        Ok(texts
            .map(|(bytes, &length)| String::from_utf8_lossy(&bytes[..length as usize]).into_owned())
            .collect())
    }

    /// Rank 0's text, on all ranks.
    pub fn broadcast_text(&self, text: &str) -> Result<String, DistError> {
        let mut all = self.all_gather_text(if self.is_main() { text } else { "" })?;
        Ok(all.swap_remove(0))
    }

    fn control_device(&self) -> tch::Device {
        self.meeting().map_or(tch::Device::Cpu, |it| it.device.of_tensors())
    }

    fn small(&self, values: &[f64]) -> Result<Tensor, DistError> {
        device::send(&Tensor::from_slice(values), self.control_device())
            .map_err(|error| refused("a copy to the device", error))
    }

    /// The end of a run that went well: all ranks come here, and none leaves (and takes the store
    /// with it) before the last.
    pub fn finish(&self) -> Result<(), DistError> {
        let Some(inner) = &self.0 else { return Ok(()) };
        self.barrier()?;
        inner.run.ended.store(true, Ordering::Release);
        inner.run.meeting.lifeline.finish();
        Ok(())
    }

    /// The end of a run that this rank gives up: the others hear of it, with the reason, and stop.
    pub fn fail(&self, reason: &str) {
        let Some(inner) = &self.0 else { return };
        if !inner.run.ended.swap(true, Ordering::AcqRel)
            && inner.run.meeting.lifeline.verdict().is_none()
        {
            inner.run.meeting.lifeline.fail(reason);
        }
    }
}

/// The answer of all ranks to a question; see [`Group::any_async`].
#[derive(Debug)]
#[must_use = "the answer is not there until `wait`"]
pub enum Answer {
    Known(bool),
    Asked(Arriving),
}

impl Answer {
    pub fn wait(self) -> Result<bool, DistError> {
        match self {
            Self::Known(value) => Ok(value),
            Self::Asked(pending) => Ok(pending.wait()?.double_value(&[0]) > 0.0),
        }
    }
}

enum Work {
    Done(Tensor),
    InFlight { work: collective::Pending, name: &'static str, shape: Vec<i64>, input: Tensor },
}

/// A collective in flight; it owns its tensor until [`Pending::wait`].
#[must_use = "the result is not there until `wait`"]
pub struct Pending {
    work: Work,
    divide: Option<usize>,
    inner: Option<Arc<Inner>>,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Pending").field("done", &self.is_done()).finish()
    }
}

impl Pending {
    /// The result, when all ranks have contributed. The error names the rank that died, failed or
    /// hangs.
    pub fn wait(self) -> Result<Tensor, DistError> {
        let (work, name, shape) = match self.work {
            Work::Done(tensor) => return Ok(tensor),
            Work::InFlight { work, name, shape, .. } => (work, name, shape),
        };
        let inner = self.inner.as_ref();
        let began = Instant::now();
        if let Some(inner) = inner {
            inner.run.meeting.lifeline.enter(&format!("{name} of {shape:?}"));
        }
        let result = work.wait();
        if let Some(inner) = inner {
            inner.run.waited_ns.fetch_add(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
        }
        let words = |error: String| match inner {
            Some(inner) => DistError::Collective(
                inner.run.meeting.lifeline.explain(&format!("{name} of {shape:?}: {error}")),
            ),
            None => DistError::Collective(error),
        };
        let mut tensor = result.map_err(|error| words(error.to_string()))?;
        if let Some(inner) = inner {
            inner.run.meeting.lifeline.leave();
        }
        if let Some(world) = self.divide {
            let mean = if tensor.is_floating_point() {
                tensor.f_div_scalar_(world as f64)
            } else {
                tensor.f_floor_divide_scalar_(world as i64)
            };
            let _ = mean.map_err(|error| words(error.to_string()))?;
        }
        Ok(tensor)
    }

    /// Starts to bring the result to the host by `copies`. On CUDA it comes as soon as the
    /// collective is done, whatever the device has been given to compute since; elsewhere (and over
    /// Gloo) nothing starts before it is waited for.
    pub fn read_back(self, copies: &CopyStream) -> Result<Arriving, DistError> {
        let failed = |error: NativeError| refused("a copy to the host", error);
        match &self.work {
            Work::Done(tensor) => {
                let readback = copies.download(tensor).map_err(failed)?;
                Ok(Arriving(Readout::Copied {
                    readback,
                    name: "a copy to the host",
                    inner: None,
                    input: None,
                }))
            }
            Work::InFlight { name, input, .. } if self.queues() => {
                let (name, inner, input) = (*name, self.inner.clone(), input.shallow_clone());
                let readback = copies
                    .on(|| copies.download(&self.wait()?).map_err(failed))
                    .map_err(failed)??;
                Ok(Arriving(Readout::Copied { readback, name, inner, input: Some(input) }))
            }
            Work::InFlight { .. } => Ok(Arriving(Readout::Due(self))),
        }
    }

    /// Whether `wait` makes a queue of the device wait, not the caller.
    fn queues(&self) -> bool {
        self.inner.as_ref().is_some_and(|inner| matches!(inner.run.meeting.device, Device::Nccl(_)))
    }

    /// Whether `wait` would return at once.
    pub fn is_done(&self) -> bool {
        match &self.work {
            Work::Done(_) => true,
            Work::InFlight { work, .. } => work.is_done(),
        }
    }
}

/// What ranks computed together, on its way to the host; see [`Pending::read_back`].
#[must_use = "the values are not there until `wait`"]
pub struct Arriving(Readout);

enum Readout {
    Due(Pending),
    Copied {
        readback: Readback,
        name: &'static str,
        inner: Option<Arc<Inner>>,
        /// The computations do not wait for the collective, so what it reads must not become
        /// somebody else's memory meanwhile.
        input: Option<Tensor>,
    },
}

impl std::fmt::Debug for Arriving {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match &self.0 {
            Readout::Due(pending) => pending.fmt(f),
            Readout::Copied { name, .. } => write!(f, "Arriving({name})"),
        }
    }
}

impl Arriving {
    /// The result on the host.
    pub fn wait(self) -> Result<Tensor, DistError> {
        let (readback, name, inner, input) = match self.0 {
            Readout::Due(pending) => return Ok(pending.wait()?.to_device(tch::Device::Cpu)),
            Readout::Copied { readback, name, inner, input } => (readback, name, inner, input),
        };
        let began = Instant::now();
        if let Some(inner) = &inner {
            inner.run.meeting.lifeline.enter(name);
        }
        let arrived = readback.wait().map_err(|error| refused(name, error))?;
        drop(input);
        if let Some(inner) = &inner {
            inner.run.waited_ns.fetch_add(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
            inner.run.meeting.lifeline.leave();
        }
        Ok(arrived)
    }
}

//! The loader: worker threads that turn the sampler's entries into batches, always in the sampler's
//! order.
//!
//! The unit of work is a sample, so that all workers share in a single batch. Tickets for a bounded
//! number of samples are out at a time; each result names its ticket and waits until its turn. What
//! a sample looks like depends on its place in the order alone, so neither the number of workers
//! nor their timing can change a run.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};
use serde::Deserialize;

use super::sampler::Draw;
use super::{Batch, DataError, Dataset, DatasetConfig, Sample, Sampler, SamplerConfig, sample_rng};
use crate::config::NotOffered;

/// `train_dataloader`, `val_dataloader`, `test_dataloader`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataloaderConfig {
    /// Entries in a batch of one rank.
    #[serde(default = "crate::config::default::n::<1>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub batch_size: usize,
    /// Threads; 0 makes samples in the caller's thread when they are asked for.
    #[serde(default)]
    pub num_workers: usize,
    /// Batches that are prepared ahead for each worker.
    #[serde(default = "crate::config::default::n::<2>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub prefetch_factor: usize,
    /// Without effect: starting threads takes no time worth saving.
    #[serde(default)]
    pub persistent_workers: bool,
    /// Copies to a GPU go through pinned memory; that is the runner's matter, and its default.
    #[serde(default)]
    pub pin_memory: Option<bool>,
    /// Leave out an epoch's last batch if it is not full.
    #[serde(default)]
    pub drop_last: bool,
    /// Seconds that PyTorch waits for a worker; without effect.
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::not_negative")]
    pub timeout: f64,
    #[serde(default)]
    pub worker_init_fn: Option<NotOffered>,
    #[serde(default)]
    pub batch_sampler: Option<NotOffered>,
    #[serde(default)]
    pub sampler: SamplerConfig,
    pub dataset: DatasetConfig,
    /// How samples become a batch: both leave that to the model's data preprocessor.
    #[serde(default)]
    pub collate_fn: Option<CollateFn>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[expect(non_camel_case_types, reason = "functions in mmengine, named as configs name them")]
pub enum CollateFn {
    pseudo_collate(Empty),
    default_collate(Empty),
}

/// No settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

/// A place in the order of batches: what a checkpoint keeps of a loader.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize, Deserialize,
)]
pub struct Position {
    /// 0 throughout for a sampler that never ends.
    pub epoch: u64,
    /// Batches of the epoch that were handed out.
    pub batch: u64,
}

/// Whose batches, and from where on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoaderOptions {
    pub rank: usize,
    pub world: usize,
    /// The run's seed, the same on all ranks.
    pub seed: u64,
    pub start: Position,
    /// Go on with the next epoch at the end of one, instead of ending.
    pub repeat: bool,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        Self { rank: 0, world: 1, seed: 0, start: Position::default(), repeat: false }
    }
}

/// An iterator over batches. After an error it ends. Dropping it ends its threads, each after the
/// sample it is at.
pub struct Loader {
    route: Route,
    /// The batch to be handed out next.
    position: Position,
    over: bool,
    source: Source,
}

enum Source {
    Here(Arc<Dataset>, u64),
    Workers(Workers),
}

impl Loader {
    pub fn new(
        dataset: Arc<Dataset>,
        config: &DataloaderConfig,
        options: &LoaderOptions,
    ) -> Result<Self, DataError> {
        let LoaderOptions { rank, world, seed, start, repeat } = *options;
        if config.batch_size == 0 {
            return Err(DataError::Loader("batch_size has to be at least 1".into()));
        }
        if config.prefetch_factor == 0 {
            return Err(DataError::Loader("prefetch_factor has to be at least 1".into()));
        }
        let sampler = Sampler::new(&config.sampler, dataset.len(), rank, world, seed);
        let route =
            Route { sampler, batch_size: config.batch_size, drop_last: config.drop_last, repeat };
        if route.batches() == Some(0) && (repeat || config.drop_last) {
            return Err(DataError::Loader(format!(
                "rank {rank} of {world} has {} entries, which make no batch of {}: lower \
                 batch_size, or set drop_last: false",
                route.sampler.len().unwrap_or(0),
                config.batch_size
            )));
        }
        let mut loader = Self {
            route,
            position: start,
            over: false,
            source: Source::Here(Arc::clone(&dataset), seed),
        };
        if config.num_workers > 0 {
            // Two batches at least, or the workers idle while the last sample of a batch is on its
            // way.
            let ahead = (config.num_workers * config.prefetch_factor).max(2) * config.batch_size;
            let workers =
                Workers::start(&dataset, config.num_workers, seed, loader.route.tickets(start))?;
            loader.source = Source::Workers(workers);
            loader.issue(ahead);
        }
        Ok(loader)
    }

    /// Batches in an epoch of this rank; `None` when it never ends.
    pub fn batches(&self) -> Option<u64> {
        self.route.batches()
    }

    /// Where the next batch is; a loader that starts there goes on as this one would.
    pub fn position(&self) -> Position {
        self.position
    }

    fn issue(&mut self, count: usize) {
        if let Source::Workers(workers) = &mut self.source {
            for _ in 0..count {
                let Some(place) = workers.ahead else { return };
                workers.issue(self.route.draw(place));
                workers.ahead = self.route.after(place);
            }
        }
    }

    fn batch(&mut self, entries: usize) -> Result<Batch, DataError> {
        let mut samples = Vec::with_capacity(entries);
        for within in 0..entries {
            let Position { epoch, batch } = self.position;
            let nth = batch * self.route.batch_size as u64 + within as u64;
            let made = match &mut self.source {
                Source::Here(dataset, seed) => {
                    make(dataset, *seed, epoch, self.route.sampler.get(epoch, nth))
                }
                Source::Workers(workers) => workers.take(),
            }?;
            samples.extend(made);
            self.issue(1);
        }
        Ok(Batch { samples })
    }
}

impl Iterator for Loader {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let Some(position) = self.route.settle(self.position) else {
            self.over = true;
            return None;
        };
        self.position = position;
        let batch = self.batch(self.route.entries(position.batch));
        match &batch {
            Ok(_) => self.position.batch += 1,
            Err(_) => self.over = true,
        }
        Some(batch)
    }
}

/// The order of batches and of the entries in them.
struct Route {
    sampler: Sampler,
    batch_size: usize,
    drop_last: bool,
    repeat: bool,
}

/// An entry's place: its batch, and which of the batch it is.
#[derive(Debug, Clone, Copy)]
struct Place {
    position: Position,
    within: usize,
}

impl Route {
    fn batches(&self) -> Option<u64> {
        let entries = self.sampler.len()?;
        Some(if self.drop_last {
            entries / self.batch_size
        } else {
            entries.div_ceil(self.batch_size)
        } as u64)
    }

    /// How many entries an epoch's `batch` has.
    fn entries(&self, batch: u64) -> usize {
        let before = batch * self.batch_size as u64;
        self.sampler
            .len()
            .map_or(self.batch_size, |entries| (entries - before as usize).min(self.batch_size))
    }

    /// The position itself, or the start of the next epoch where it is an epoch's end; `None` when
    /// that is the end of all.
    fn settle(&self, position: Position) -> Option<Position> {
        match self.batches() {
            Some(batches) if position.batch >= batches => {
                self.repeat.then_some(Position { epoch: position.epoch + 1, batch: 0 })
            }
            _ => Some(position),
        }
    }

    fn tickets(&self, start: Position) -> Option<Place> {
        self.settle(start).map(|position| Place { position, within: 0 })
    }

    fn draw(&self, Place { position: Position { epoch, batch }, within }: Place) -> (u64, Draw) {
        (epoch, self.sampler.get(epoch, batch * self.batch_size as u64 + within as u64))
    }

    fn after(&self, Place { position, within }: Place) -> Option<Place> {
        if within + 1 < self.entries(position.batch) {
            return Some(Place { position, within: within + 1 });
        }
        self.settle(Position { batch: position.batch + 1, ..position })
            .map(|position| Place { position, within: 0 })
    }
}

type Made = Result<Vec<Sample>, DataError>;

/// An entry to be made, with its number in the order of delivery.
struct Ticket {
    number: u64,
    epoch: u64,
    draw: Draw,
}

struct Workers {
    tickets: Option<Sender<Ticket>>,
    results: Receiver<(u64, Made)>,
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    /// The first place for which no ticket was issued.
    ahead: Option<Place>,
    issued: u64,
    taken: u64,
    /// Results that came before their turn.
    early: HashMap<u64, Made>,
}

impl Workers {
    fn start(
        dataset: &Arc<Dataset>,
        count: usize,
        seed: u64,
        ahead: Option<Place>,
    ) -> Result<Self, DataError> {
        // Neither channel fills up: there are never more tickets out than `Loader::new` issued.
        let (tickets, work) = unbounded::<Ticket>();
        let (done, results) = unbounded();
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::with_capacity(count);
        for number in 0..count {
            let (work, done, stop, dataset) =
                (work.clone(), done.clone(), Arc::clone(&stop), Arc::clone(dataset));
            let thread =
                std::thread::Builder::new().name(format!("data-{number}")).spawn(move || {
                    for Ticket { number, epoch, draw } in work {
                        if stop.load(Ordering::Relaxed)
                            || done.send((number, make(&dataset, seed, epoch, draw))).is_err()
                        {
                            return;
                        }
                    }
                });
            threads.push(thread.map_err(|error| {
                DataError::Loader(format!("failed to start worker {number}: {error}"))
            })?);
        }
        Ok(Self {
            tickets: Some(tickets),
            results,
            threads,
            stop,
            ahead,
            issued: 0,
            taken: 0,
            early: HashMap::new(),
        })
    }

    fn issue(&mut self, (epoch, draw): (u64, Draw)) {
        if let Some(tickets) = &self.tickets {
            // A worker that is gone is noticed by `take`.
            let _ = tickets.send(Ticket { number: self.issued, epoch, draw });
            self.issued += 1;
        }
    }

    /// The result whose turn it is.
    fn take(&mut self) -> Made {
        let wanted = self.taken;
        self.taken += 1;
        loop {
            if let Some(made) = self.early.remove(&wanted) {
                return made;
            }
            match self.results.recv() {
                Ok((number, made)) => self.early.insert(number, made),
                Err(_) => return Err(DataError::Loader("all worker threads have ended".into())),
            };
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.tickets = None;
        for thread in self.threads.drain(..) {
            // A worker catches the panics of its work, so there is nothing to learn from how it
            // ended.
            let _ = thread.join();
        }
    }
}

/// Makes an entry's samples; a panic on the way becomes an error.
fn make(dataset: &Dataset, seed: u64, epoch: u64, draw: Draw) -> Made {
    let Draw { index, position, padding } = draw;
    let work = || dataset.samples(index, &mut sample_rng(seed, epoch, position, index));
    let mut samples = catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| {
            Err(DataError::Panicked {
                index,
                path: dataset.paths(index).0,
                message: message(&*panic),
            })
        })
        .map_err(|error| with_path(error, dataset, index))?;
    samples.iter_mut().for_each(|sample| sample.meta.padding = padding);
    Ok(samples)
}

/// A transform does not know of which file its picture is.
fn with_path(error: DataError, dataset: &Dataset, index: usize) -> DataError {
    match error {
        DataError::OutOfMemory { what, path, reason } if path.as_os_str().is_empty() => {
            DataError::OutOfMemory { what, path: dataset.paths(index).0, reason }
        }
        error => error,
    }
}

pub(super) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a message").to_owned()
}

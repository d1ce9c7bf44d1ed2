//! Flat buffers for gradients, filled as they are made and reduced over the ranks when full.
//!
//! All ranks must send the same buckets in the same order, whatever order their gradients come in:
//! a bucket leaves when it is full *and* all before it have left. The first step learns how often
//! each parameter is used and in which order the gradients come; rank 0's order then becomes
//! everybody's. Behind the gradients a bucket carries one number a parameter, saying whether it was
//! used: so a parameter that a rank left out is told from one that all did, at no extra collective.

use super::DdpOptions;
use crate::dist::{DistError, Group, Pending};
use crate::ops::Handle;
use crate::ops::flat::{Flat, Lie, Share};
use crate::weights::{PerWeight, Weight, WeightId, Weights};

struct Bucket {
    flat: Flat,
    members: Vec<usize>,
    /// Members whose gradients are all there, in this backward pass.
    ready: usize,
    pending: Option<Pending>,
}

struct Slot {
    of: WeightId,
    name: String,
    lie: Lie,
    bucket: usize,
    /// Its place in the bucket.
    member: usize,
    /// Gradients that came since the last update.
    since_update: usize,
    /// Gradients that came in this backward pass.
    came: usize,
    /// How many come in a backward pass, once that is known.
    expected: Option<usize>,
}

/// All buckets of a model.
pub(super) struct Buckets {
    group: Group,
    options: DdpOptions,
    weights: Weights,
    slots: Vec<Slot>,
    places: PerWeight<usize>,
    buckets: Vec<Bucket>,
    /// The order in which gradients came in this backward pass (the last of each parameter).
    order: Vec<usize>,
    learnt: bool,
    /// This backward pass is the last before an update.
    last: bool,
    /// Buckets before this one have left.
    next: usize,
    share: Share,
    error: Option<DistError>,
}

impl std::fmt::Debug for Buckets {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Buckets").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

impl Buckets {
    pub(super) fn new(group: Group, weights: &Weights, options: DdpOptions) -> Self {
        let slot = |(of, it): (WeightId, &Weight)| Slot {
            of,
            name: it.name.clone(),
            lie: Lie::of(&it.tensor),
            bucket: 0,
            member: 0,
            since_update: 0,
            came: 0,
            expected: None,
        };
        let share = Share::of(group.world());
        let slots: Vec<Slot> = weights.trained().map(slot).collect();
        let mut places = PerWeight::new(weights);
        slots.iter().enumerate().for_each(|(place, it)| places.set(it.of, Some(place)));
        // Until it is known better: the backward pass goes from the last layer to the first.
        let order = (0..slots.len()).rev().collect::<Vec<_>>();
        let mut buckets = Self {
            group,
            options,
            weights: weights.clone(),
            slots,
            places,
            buckets: Vec::new(),
            order: Vec::new(),
            learnt: false,
            last: true,
            next: 0,
            share,
            error: None,
        };
        buckets.pack(&order);
        buckets
    }

    /// Lays the parameters out in this order.
    fn pack(&mut self, order: &[usize]) {
        self.buckets.clear();
        let mut members: Vec<usize> = Vec::new();
        let mut bytes = 0;
        for &place in order {
            let slot = &self.slots[place];
            let size = slot.lie.bytes();
            let limit = if self.buckets.is_empty() {
                self.options.first_bucket_bytes
            } else {
                self.options.bucket_bytes
            };
            let other =
                members.first().is_some_and(|&first| !self.slots[first].lie.joins(&slot.lie));
            if !members.is_empty() && (bytes + size > limit || other) {
                self.close(std::mem::take(&mut members));
                bytes = 0;
            }
            members.push(place);
            bytes += size;
        }
        if !members.is_empty() {
            self.close(members);
        }
    }

    fn close(&mut self, members: Vec<usize>) {
        let flat = Flat::new(members.iter().map(|&it| &self.slots[it].lie));
        for (place, &member) in members.iter().enumerate() {
            let slot = &mut self.slots[member];
            (slot.bucket, slot.member) = (self.buckets.len(), place);
        }
        self.buckets.push(Bucket { flat, members, ready: 0, pending: None });
    }

    pub(super) fn bytes(&self) -> Vec<usize> {
        self.buckets.iter().map(|it| it.flat.bytes()).collect()
    }

    /// Before a backward pass.
    pub(super) fn begin(&mut self, last: bool) {
        self.last = last;
        self.order.clear();
        self.next = 0;
        self.slots.iter_mut().for_each(|it| it.came = 0);
        self.buckets.iter_mut().for_each(|it| it.ready = 0);
    }

    /// A gradient has been made; its share of the average goes into its bucket.
    pub(super) fn add(&mut self, of: WeightId, grad: &Handle) {
        let Some(&place) = self.places.get(of) else { return };
        let slot = &mut self.slots[place];
        let bucket = &mut self.buckets[slot.bucket];
        if bucket.pending.is_some() {
            let name = &slot.name;
            let text = format!(
                "the gradient of {name} came after its bucket had left: {name} is used more often \
                 than before"
            );
            self.error.get_or_insert(DistError::Collective(text));
            return;
        }
        if let Err(error) = bucket.flat.store(slot.member, grad, &self.share, slot.since_update > 0)
        {
            self.error.get_or_insert(error);
        }
        slot.since_update += 1;
        slot.came += 1;
        if slot.expected == Some(slot.came) {
            bucket.ready += 1;
        }
        if !self.learnt {
            self.order.retain(|&it| it != place);
            self.order.push(place);
        }
        if self.last && self.learnt && self.options.overlap {
            while self.buckets.get(self.next).is_some_and(|it| it.ready == it.members.len()) {
                self.send();
            }
        }
    }

    /// Sends the next bucket, with zeros for what did not come.
    fn send(&mut self) {
        let bucket = &mut self.buckets[self.next];
        self.next += 1;
        let used: Vec<bool> =
            bucket.members.iter().map(|&it| self.slots[it].since_update > 0).collect();
        let sent = bucket.flat.mark(&used).and_then(|()| bucket.flat.reduce(&self.group));
        match sent {
            Ok(pending) => bucket.pending = Some(pending),
            Err(error) => drop(self.error.get_or_insert(error)),
        }
    }

    /// After a backward pass: what is not full leaves too, if an update follows.
    pub(super) fn end(&mut self) -> Result<(), DistError> {
        if self.last {
            while self.next < self.buckets.len() {
                self.send();
            }
        }
        self.error.take().map_or(Ok(()), Err)
    }

    /// Waits for the buckets.
    pub(super) fn finish(&mut self) -> Result<PerWeight<Handle>, DistError> {
        let mut averaged = PerWeight::new(&self.weights);
        for bucket in &mut self.buckets {
            let Some(pending) = bucket.pending.take() else { continue };
            drop(pending.wait()?);
            let all_here = bucket.members.iter().all(|&it| self.slots[it].since_update > 0);
            // Only a rank that left a parameter out has to look whether the others did.
            let used =
                if all_here { vec![1.0; bucket.members.len()] } else { bucket.flat.users()? };
            for (&member, used) in bucket.members.iter().zip(used) {
                let slot = &self.slots[member];
                averaged.set(slot.of, (used > 0.0).then(|| bucket.flat.view(slot.member)));
            }
        }
        self.slots.iter_mut().for_each(|it| it.since_update = 0);
        if !self.learnt {
            self.learn()?;
        }
        Ok(averaged)
    }

    /// After the first update: the order of rank 0's gradients for all, and how many come for each
    /// parameter.
    fn learn(&mut self) -> Result<(), DistError> {
        let mine: Vec<String> = self.order.iter().map(usize::to_string).collect();
        let theirs = self.group.broadcast_text(&mine.join(" "))?;
        let mut order: Vec<usize> = theirs.split(' ').filter_map(|it| it.parse().ok()).collect();
        let left_out: Vec<usize> =
            (0..self.slots.len()).rev().filter(|it| !order.contains(it)).collect();
        order.extend(left_out);
        for slot in &mut self.slots {
            slot.expected = Some(slot.came.max(1));
        }
        self.pack(&order);
        self.learnt = true;
        Ok(())
    }
}

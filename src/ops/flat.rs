//! Many tensors as one stretch of memory, so that one message carries them: the buckets of
//! gradients, and a model's weights.

use segslurm_native::device;
use tch::{Device, Kind, Tensor};

use super::border::Handle;
use crate::dist::{DistError, Group, Pending, Reduce};

fn refused(error: &impl std::fmt::Display) -> DistError {
    DistError::Collective(format!("gradients: {error}"))
}

/// How a gradient will lie in a [`Flat`]: as its parameter, so that gradients, averages and weights
/// lie alike and the optimizer copies nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Lie {
    shape: Vec<i64>,
    strides: Vec<i64>,
    kind: Kind,
    device: Device,
    numel: usize,
}

impl Lie {
    pub fn of(tensor: &Handle) -> Self {
        // That of a tensor that fills its memory, channels last or not; else that of its contiguous
        // copy.
        let filled = tensor.is_contiguous()
            || tensor.dim() == 4 && tensor.permute([0, 2, 3, 1]).is_contiguous();
        let strides = if filled { tensor.stride() } else { tensor.contiguous().stride() };
        let (shape, kind, device, numel) =
            (tensor.size(), tensor.kind(), tensor.device(), tensor.numel());
        Self { shape, strides, kind, device, numel }
    }

    pub fn bytes(&self) -> usize {
        self.numel * self.kind.elt_size_in_bytes()
    }

    /// Whether both can be parts of one stretch.
    pub fn joins(&self, other: &Self) -> bool {
        (self.kind, self.device) == (other.kind, other.device)
    }
}

/// A stretch of memory with a place for each of its members, and behind them a number each that
/// says whether it is used.
#[derive(Debug)]
pub struct Flat {
    all: Tensor,
    views: Vec<Tensor>,
}

impl Flat {
    /// Zeros; the members [join](Lie::joins) each other.
    ///
    /// # Panics
    /// Without a member.
    pub fn new<'a>(members: impl IntoIterator<Item = &'a Lie>) -> Self {
        let members: Vec<&Lie> = members.into_iter().collect();
        let first = members.first().expect("a member");
        let total: usize = members.iter().map(|it| it.numel).sum();
        let all = Tensor::zeros([(total + members.len()) as i64], (first.kind, first.device));
        let mut offset = 0;
        let place = |it: &&Lie| {
            let view = all.as_strided(&*it.shape, &*it.strides, offset);
            offset += it.numel as i64;
            view
        };
        let views = members.iter().map(place).collect();
        Self { all, views }
    }

    pub fn bytes(&self) -> usize {
        self.all.numel() * self.all.kind().elt_size_in_bytes()
    }

    /// Puts `share` of a gradient into its place; with `adds` onto what is there.
    pub fn store(
        &mut self,
        member: usize,
        grad: &Handle,
        share: &Share,
        adds: bool,
    ) -> Result<(), DistError> {
        let view = &mut self.views[member];
        let stored = if adds {
            grad.f_mul(&share.0).and_then(|share| view.f_add_(&share)).map(drop)
        } else {
            grad.f_mul_out(view, &share.0).map(drop)
        };
        stored.map_err(|error| refused(&error))
    }

    fn flags(&self) -> Tensor {
        let n = self.views.len() as i64;
        self.all.narrow(0, self.all.size()[0] - n, n)
    }

    /// Says which members are used; the others become zeros.
    pub fn mark(&mut self, used: &[bool]) -> Result<(), DistError> {
        let mut flags = self.flags();
        if used.iter().all(|it| *it) {
            let _ = flags.fill_(1.0);
            return Ok(());
        }
        let numbers: Vec<f32> = used.iter().map(|it| f32::from(u8::from(*it))).collect();
        let sent = device::send(&Tensor::from_slice(&numbers), flags.device())
            .map_err(|error| refused(&error))?;
        flags.copy_(&sent);
        for (view, _) in self.views.iter_mut().zip(used).filter(|(_, used)| !**used) {
            let _ = view.zero_();
        }
        Ok(())
    }

    /// Starts to add it up over the ranks, in place.
    pub fn reduce(&self, group: &Group) -> Result<Pending, DistError> {
        group.all_reduce_async(self.all.shallow_clone(), Reduce::Sum)
    }

    /// On how many ranks each member was used, after [`reduce`](Self::reduce). Waits for the
    /// device.
    pub fn users(&self) -> Result<Vec<f64>, DistError> {
        let flags = self.flags().to_kind(Kind::Double).to_device(Device::Cpu);
        Vec::<f64>::try_from(flags).map_err(|error| refused(&error))
    }

    /// What is in a member's place, as a view.
    pub fn view(&self, member: usize) -> Handle {
        Handle::new(self.views[member].shallow_clone())
    }
}

/// What every gradient is multiplied by: one rank's share of an average.
#[derive(Debug)]
pub struct Share(Tensor);

impl Share {
    pub fn of(world: usize) -> Self {
        Self(Tensor::from(1.0 / world as f64))
    }
}

/// Overwrites the tensors with rank 0's, about `at_once` bytes in a message.
pub fn broadcast(group: &Group, tensors: &[&Handle], at_once: usize) -> Result<(), DistError> {
    let mut rest = tensors;
    while let Some(first) = rest.first() {
        let mut bytes = 0;
        let fits = |it: &&&Handle| {
            bytes += it.numel() * it.kind().elt_size_in_bytes();
            it.kind() == first.kind() && (bytes <= at_once || std::ptr::eq(**it, *first))
        };
        let n = rest.iter().take_while(fits).count().max(1);
        let (now, later) = rest.split_at(n);
        let flat =
            Tensor::cat(&now.iter().map(|it| it.detach().reshape([-1])).collect::<Vec<_>>(), 0);
        group.broadcast(&flat, 0)?;
        let sizes: Vec<i64> = now.iter().map(|it| it.numel() as i64).collect();
        for (tensor, values) in now.iter().zip(flat.split_with_sizes(sizes, 0)) {
            tensor.detach().copy_(&values.view(tensor.size().as_slice()));
        }
        rest = later;
    }
    Ok(())
}

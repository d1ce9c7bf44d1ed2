//! Batches from bytes: one copy to the device for all of them, and one pass a channel that puts
//! them in their place as floats.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Device, Int, Tensor};
use segslurm_native::NativeError;
use segslurm_native::device::{CopyStream, Upload};
use tch::Kind;

use super::border::from_tch;
use super::constant::Constant;
use super::device::place;
use super::memory_format::MemoryFormat;

/// Bytes that somebody else owns: an image `[height, width, 3]` or a label map `[height, width]`.
#[derive(Debug, Clone, Copy)]
pub struct Pixels<'a> {
    pub height: usize,
    pub width: usize,
    pub data: &'a [u8],
}

/// How bytes become a batch.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Whether the channels change their order, BGR to RGB or back.
    pub swap: bool,
    /// Mean and standard deviation of the channels, in the order after that.
    pub statistics: Option<[Constant; 2]>,
    /// What normalised images are padded with, and labels.
    pub pad: f64,
    pub pad_label: u8,
    pub format: MemoryFormat,
}

/// Brings bytes to a device. Clones share the queue of the device that was fed last.
#[derive(Debug, Clone, Default)]
pub struct Uploads(Arc<Mutex<Option<Arc<CopyStream>>>>);

/// Bytes on a device, in groups.
#[derive(Debug)]
pub struct Sent {
    bytes: tch::Tensor,
    /// Where each group begins, and where the last one ends.
    starts: Vec<i64>,
    device: Device,
}

impl Uploads {
    /// Sends all groups in one copy, beside the device's computations; the error says why it cannot
    /// be.
    pub fn send(&self, groups: &[Vec<&[u8]>], device: &Device) -> Result<Sent, String> {
        let place = place(device);
        let failed = |error: NativeError| format!("a batch cannot be copied to {place:?}: {error}");
        let copies = {
            let mut copies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match copies.as_ref().filter(|it| it.device() == place) {
                Some(it) => Arc::clone(it),
                None => {
                    Arc::clone(copies.insert(Arc::new(CopyStream::new(place).map_err(failed)?)))
                }
            }
        };
        let bytes = copies.upload(&groups.concat()).and_then(Upload::ready).map_err(failed)?;
        let mut starts = vec![0];
        for group in groups {
            starts.push(
                starts[starts.len() - 1] + group.iter().map(|it| it.len() as i64).sum::<i64>(),
            );
        }
        Ok(Sent { bytes, starts, device: device.clone() })
    }
}

impl Sent {
    fn group(&self, index: usize) -> tch::Tensor {
        self.bytes.narrow(0, self.starts[index], self.starts[index + 1] - self.starts[index])
    }

    /// The images of a group as a batch `[n, 3, height, width]`, padded at the bottom and the
    /// right.
    pub fn images(
        &self,
        group: usize,
        images: &[Pixels],
        [height, width]: [usize; 2],
        layout: &Layout,
    ) -> Tensor<4> {
        let bytes = self.group(group);
        let size = [images.len(), 3, height, width].map(|it| it as i64);
        let mut batch = layout.format.empty(size, (Kind::Float, bytes.device()));
        let runs = runs(images, 3);
        for run in &runs {
            let (from, mut into) = (run.of(&bytes, &[3]), run.within(&batch));
            match layout.format {
                // One pass a channel: bytes to floats at their place.
                MemoryFormat::Contiguous => {
                    for channel in 0..3 {
                        let source = if layout.swap { 2 - channel } else { channel };
                        into.select(1, channel).copy_(&from.select(3, source));
                    }
                }
                MemoryFormat::ChannelsLast => {
                    let from = if layout.swap { from.flip([3]) } else { from };
                    into.copy_(&from.permute([0, 3, 1, 2]));
                }
            }
        }
        if let Some(statistics) = &layout.statistics {
            let [mean, std] =
                statistics.each_ref().map(|it| it.on(bytes.device()).view([1, 3, 1, 1]));
            let _ = batch.g_sub_(&mean).g_div_(&std);
        }
        runs.iter().for_each(|run| run.pad(&batch, layout.pad));
        from_tch(batch, &self.device)
    }

    /// The label maps of a group as a batch `[n, height, width]` in 64 bits.
    pub fn labels(
        &self,
        group: usize,
        labels: &[Pixels],
        [height, width]: [usize; 2],
        layout: &Layout,
    ) -> Tensor<3, Int> {
        let bytes = self.group(group);
        let size = [labels.len(), height, width].map(|it| it as i64);
        let batch = tch::Tensor::empty(size, (Kind::Int64, bytes.device()));
        for run in runs(labels, 1) {
            run.within(&batch).copy_(&run.of(&bytes, &[]));
            run.pad(&batch, f64::from(layout.pad_label));
        }
        from_tch(batch, &self.device)
    }
}

/// Images of one size that follow each other in a batch: what one operation can treat.
struct Run {
    /// Of the first image in the batch, and of its first byte.
    start: i64,
    offset: i64,
    /// Images, height and width.
    size: [i64; 3],
    bytes: i64,
}

/// All images as one run where they have one size, else each as its own.
fn runs(images: &[Pixels], channels: usize) -> Vec<Run> {
    let alike = images
        .windows(2)
        .all(|pair| (pair[0].height, pair[0].width) == (pair[1].height, pair[1].width));
    let (mut start, mut offset) = (0, 0);
    let next = |group: &[Pixels]| {
        let size = [group.len(), group[0].height, group[0].width].map(|it| it as i64);
        let run =
            Run { start, offset, size, bytes: size.iter().product::<i64>() * channels as i64 };
        (start, offset) = (start + size[0], offset + run.bytes);
        run
    };
    images.chunks(if alike { images.len().max(1) } else { 1 }).map(next).collect()
}

impl Run {
    /// These images among the bytes of all, `[n, height, width, …channels]`.
    fn of(&self, bytes: &tch::Tensor, channels: &[i64]) -> tch::Tensor {
        bytes.narrow(0, self.offset, self.bytes).view([&self.size, channels].concat().as_slice())
    }

    /// Their place in `batch` `[n, …, height, width]`, without padding.
    fn within(&self, batch: &tch::Tensor) -> tch::Tensor {
        let [count, height, width] = self.size;
        batch.narrow(0, self.start, count).narrow(-2, 0, height).narrow(-1, 0, width)
    }

    /// Fills what `batch` has below and right of them.
    fn pad(&self, batch: &tch::Tensor, value: f64) {
        let [count, height, width] = self.size;
        let part = batch.narrow(0, self.start, count);
        for (axis, from) in [(-2, height), (-1, width)] {
            let rest = part.size()[(part.dim() as i64 + axis) as usize] - from;
            if rest > 0 {
                let _ = part.narrow(axis, from, rest).fill_(value);
            }
        }
    }
}

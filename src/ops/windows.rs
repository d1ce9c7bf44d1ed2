//! Overlapping windows of images: cut out, and their logits summed again.

use burn::tensor::{Device, Tensor};
use tch::Kind;

use super::border::{from_tch, to_tch};
use super::device::place;

/// The window of `images` `[n, c, h, w]` that begins at a row and a column, of a height and width.
pub fn window(
    images: &Tensor<4>,
    [top, left]: [usize; 2],
    [rows, columns]: [usize; 2],
) -> Tensor<4> {
    let part =
        to_tch(images).narrow(2, top as i64, rows as i64).narrow(3, left as i64, columns as i64);
    from_tch(part.contiguous(), &images.device())
}

/// Whether `x` lies on the CPU in `f32`, where label maps of resized logits cost no memory.
pub fn is_full_precision_on_cpu(x: &Tensor<4>) -> bool {
    let x = to_tch(x);
    x.device() == tch::Device::Cpu && x.kind() == Kind::Float
}

/// The sums of logits over windows, and how many there were at each pixel, for as many rows as a
/// window is high.
#[derive(Debug)]
pub struct WindowSums {
    sum: tch::Tensor,
    count: tch::Tensor,
    device: Device,
}

impl WindowSums {
    /// For logits `[n, c, rows, w]`.
    pub fn new(shape: [usize; 4], device: &Device) -> Self {
        let [n, classes, rows, width] = shape.map(|it| it as i64);
        let options = (Kind::Float, place(device));
        let sum = tch::Tensor::zeros([n, classes, rows, width], options);
        Self {
            sum,
            count: tch::Tensor::zeros([1, 1, rows, width], options),
            device: device.clone(),
        }
    }

    /// Adds the logits of the window that begins at a column.
    pub fn add(&mut self, left: usize, logits: &Tensor<4>) {
        let logits = to_tch(logits);
        let columns = logits.size()[3];
        let _ = self.sum.narrow(3, left as i64, columns).g_add_(&logits);
        let _ = self.count.narrow(3, left as i64, columns).g_add_scalar_(1.0);
    }

    /// The means of the first rows `[n, c, rows, w]`, which no later window reaches; the others
    /// become the first.
    pub fn finish(&mut self, rows: usize) -> Tensor<4> {
        let finished = rows as i64;
        let kept = self.sum.size()[2] - finished;
        let means = self.sum.narrow(2, 0, finished) / self.count.narrow(2, 0, finished);
        for part in [&mut self.sum, &mut self.count] {
            let next = part.zeros_like();
            next.narrow(2, 0, kept).copy_(&part.narrow(2, finished, kept));
            *part = next;
        }
        from_tch(means, &self.device)
    }
}

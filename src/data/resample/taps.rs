//! Resizing by weighted sums of several pixels: OpenCV's `INTER_CUBIC`, `INTER_LANCZOS4` and, to
//! smaller pictures, `INTER_AREA`.

use std::collections::VecDeque;
use std::f64::consts::PI;

use super::Interpolation;

/// What one output row or column is made of.
#[derive(Debug, Clone)]
pub(super) struct Taps {
    /// Source rows or columns in ascending order, with their weights. What lies outside is the edge
    /// again.
    parts: Vec<(usize, f32)>,
}

impl Taps {
    /// Those of output `index`, where `step` source pixels go into one output pixel.
    pub(super) fn new(method: Interpolation, index: usize, step: f64, source: usize) -> Self {
        let parts = if method == Interpolation::Area {
            covered(index, step, source)
        } else {
            around(method, index, step, source)
        };
        Self { parts }
    }

    pub(super) fn first(&self) -> usize {
        self.parts[0].0
    }

    pub(super) fn last(&self) -> usize {
        self.parts[self.parts.len() - 1].0
    }
}

/// Four or eight pixels around the place, with weights in 2048ths.
fn around(method: Interpolation, index: usize, step: f64, source: usize) -> Vec<(usize, f32)> {
    let at = ((index as f64 + 0.5) * step - 0.5) as f32;
    let (before, past) = (at.floor() as i64, at - at.floor());
    let weights = if method == Interpolation::Lanczos {
        lanczos(past).to_vec()
    } else {
        cubic(past).to_vec()
    };
    let left = before + 1 - weights.len() as i64 / 2;
    let fixed = weights.iter().map(|weight| (weight * 2048.0).round_ties_even());
    fixed
        .enumerate()
        .map(|(tap, weight)| ((left + tap as i64).clamp(0, source as i64 - 1) as usize, weight))
        .collect()
}

/// Keys' cubic with `a = -0.75`, at a place `past` the second of four pixels.
fn cubic(past: f32) -> [f32; 4] {
    const A: f32 = -0.75;
    let near = |distance: f32| ((A + 2.0) * distance - (A + 3.0)) * distance * distance + 1.0;
    let far = |distance: f32| ((A * distance - 5.0 * A) * distance + 8.0 * A) * distance - 4.0 * A;
    let (first, second, third) = (far(past + 1.0), near(past), near(1.0 - past));
    [first, second, third, 1.0 - first - second - third]
}

/// Lanczos' window of four pixels to each side, at a place `past` the fourth of eight, summing to
/// 1.
fn lanczos(past: f32) -> [f32; 8] {
    let sinc = |x: f64| if x.abs() < 1e-6 { 1.0 } else { (PI * x).sin() / (PI * x) };
    let weights: [f64; 8] = std::array::from_fn(|tap| {
        let distance = f64::from(past) + 3.0 - tap as f64;
        sinc(distance) * sinc(distance / 4.0)
    });
    let sum: f64 = weights.iter().sum();
    weights.map(|it| (it / sum) as f32)
}

/// The pixels that an output pixel covers, each by the share of it.
fn covered(index: usize, step: f64, source: usize) -> Vec<(usize, f32)> {
    /// Shares below this are rounding.
    const LEAST: f64 = 1e-3;
    let from = index as f64 * step;
    let to = from + step;
    let width = step.min(source as f64 - from);
    let last = (to.floor() as usize).min(source - 1);
    let first = (from.ceil() as usize).min(last);
    let mut parts = Vec::with_capacity(last + 2 - first);
    if first as f64 - from > LEAST {
        parts.push((first - 1, ((first as f64 - from) / width) as f32));
    }
    parts.extend((first..last).map(|at| (at, (1.0 / width) as f32)));
    if to - last as f64 > LEAST {
        parts.push((last, ((to - last as f64).min(1.0).min(width) / width) as f32));
    }
    parts
}

/// Source rows on their way to output rows.
pub(super) struct Sums {
    rows: Vec<Taps>,
    columns: Vec<Taps>,
    /// Source rows that are still needed, resized horizontally, with their places.
    lines: VecDeque<(usize, Vec<f32>)>,
    /// What the weights of a pixel sum to.
    unit: f32,
}

impl Sums {
    pub(super) fn new(method: Interpolation, rows: Vec<Taps>, columns: Vec<Taps>) -> Self {
        let unit = if method == Interpolation::Area { 1.0 } else { 2048.0 * 2048.0 };
        Self { rows, columns, lines: VecDeque::new(), unit }
    }

    /// Takes source row `y` and makes the output rows that end with it, from `next` on.
    pub(super) fn push<const C: usize>(
        &mut self,
        y: usize,
        row: &[u8],
        swap: bool,
        next: &mut usize,
        mut make: impl FnMut(usize, &[f32], f32),
    ) {
        let Self { rows, columns, lines, unit } = self;
        if rows.get(*next).is_none_or(|taps| y < taps.first()) {
            return;
        }
        let mut line = vec![0.0; columns.len() * C];
        for (to, taps) in line.chunks_exact_mut(C).zip(columns.iter()) {
            for &(at, weight) in &taps.parts {
                let pixel = &row[at * C..][..C];
                for (channel, to) in to.iter_mut().enumerate() {
                    *to += weight * f32::from(pixel[if swap { C - 1 - channel } else { channel }]);
                }
            }
        }
        lines.push_back((y, line));
        let mut sum = vec![0.0_f32; columns.len() * C];
        while let Some(taps) = rows.get(*next).filter(|taps| taps.last() == y) {
            sum.fill(0.0);
            for &(at, weight) in &taps.parts {
                let Some((_, line)) = lines.iter().find(|it| it.0 == at) else { continue };
                sum.iter_mut().zip(line).for_each(|(sum, value)| *sum += weight * value);
            }
            make(*next, &sum, *unit);
            *next += 1;
            let needed = rows.get(*next).map_or(usize::MAX, Taps::first);
            while lines.front().is_some_and(|it| it.0 < needed) {
                lines.pop_front();
            }
        }
    }
}

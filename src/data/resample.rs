//! Resizing, cropping and flipping in one pass over the rows of a source, in the order in which a
//! decoder yields them.
//!
//! A [`ResamplePlan`] says which pixels are wanted; a [`Resampler`] takes source rows from the top and
//! fills the output. Only rows and columns that reach the output are computed, and no resized
//! picture exists besides it. The arithmetic is OpenCV's for 8-bit pictures (`cv::resize`), so
//! results equal resizing everything first, byte for byte.

mod taps;

use std::ops::Range;

use pulp::Arch;
use serde::Deserialize;

use self::taps::{Sums, Taps};
use super::Raster;

/// How a resize finds the value between pixels: the methods of mmcv's cv2 backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    Nearest,
    /// Two by two pixels, without antialiasing.
    #[default]
    Bilinear,
    /// Four by four pixels.
    Bicubic,
    /// To a smaller picture, the mean of the pixels that each covers; to a larger one, much like
    /// the nearest.
    Area,
    /// Eight by eight pixels.
    Lanczos,
}

/// A rectangle of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rect {
    pub top: usize,
    pub left: usize,
    pub height: usize,
    pub width: usize,
}

impl Rect {
    pub(super) fn whole((height, width): (usize, usize)) -> Self {
        Self { top: 0, left: 0, height, width }
    }
}

/// Which pixels to make: the source, resized to `scaled`, then cut to `window`, then mirrored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ResamplePlan {
    /// Height and width of the source.
    pub(super) source: (usize, usize),
    /// Height and width that the source is resized to.
    pub(super) scaled: (usize, usize),
    /// What is kept of the resized picture.
    pub(super) window: Rect,
    pub(super) flip_horizontal: bool,
    pub(super) flip_vertical: bool,
    pub(super) interpolation: Interpolation,
}

impl ResamplePlan {
    /// The source rows that the output depends on; the decoder may stop after the last.
    pub(super) fn rows(&self) -> Range<usize> {
        let Rect { top, height, .. } = self.window;
        if height == 0 {
            return 0..0;
        }
        let bottom = top + height - 1;
        if self.scaled == self.source {
            return top..bottom + 1;
        }
        let source = self.source.0;
        let step = step(source, self.scaled.0);
        match self.method() {
            Interpolation::Nearest => nearest(top, step, source)..nearest(bottom, step, source) + 1,
            Interpolation::Bilinear => self.row_tap(top).top..self.row_tap(bottom).bottom + 1,
            method => {
                Taps::new(method, top, step, source).first()
                    ..Taps::new(method, bottom, step, source).last() + 1
            }
        }
    }

    /// What is computed: `area` to a larger picture is a bilinear with places of its own.
    fn method(&self) -> Interpolation {
        let larger = self.scaled.0 > self.source.0 || self.scaled.1 > self.source.1;
        if self.interpolation == Interpolation::Area && larger {
            Interpolation::Bilinear
        } else {
            self.interpolation
        }
    }

    fn row_tap(&self, index: usize) -> RowTap {
        row_tap(self.position(index, self.source.0, self.scaled.0), self.source.0)
    }

    /// The pixel before an output pixel's place and how far the place is past it.
    fn position(&self, index: usize, source: usize, scaled: usize) -> (i64, f32) {
        let step = step(source, scaled);
        if self.interpolation == Interpolation::Area {
            let before = (index as f64 * step).floor();
            let past =
                ((index as f64 + 1.0) - (before + 1.0) * (scaled as f64 / source as f64)) as f32;
            return (before as i64, if past <= 0.0 { 0.0 } else { past - past.floor() });
        }
        let at = ((index as f64 + 0.5) * step - 0.5) as f32;
        let before = at.floor();
        (before as i64, at - before)
    }
}

/// The order of the three colour channels in a decoder's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// As the output has them.
    Same,
    /// Red, green, blue: to be reversed on the way.
    Reversed,
}

/// Takes the rows of a source, makes the picture of a [`ResamplePlan`].
pub(super) struct Resampler<const C: usize> {
    plan: ResamplePlan,
    order: Order,
    arch: Arch,
    method: Method,
    /// The output row, before any vertical flip, that is to be made next.
    next: usize,
    output: Raster<C>,
}

enum Method {
    Copy,
    Nearest {
        /// For each output row the source row.
        rows: Vec<usize>,
        /// For each output column the byte offset in a source row.
        columns: Vec<u32>,
    },
    Bilinear {
        rows: Vec<RowTap>,
        columns: Vec<ColumnTap>,
        /// The last two source rows, resized horizontally: those of even and of odd index.
        /// Sixteenths of 11-bit fixed point.
        lines: [Vec<i16>; 2],
    },
    Sums(Sums),
}

/// An output column is `left` of the pixel at `offset` and `right` of the one after it, in 2048ths.
#[derive(Debug, Clone, Copy)]
struct ColumnTap {
    offset: u32,
    left: i16,
    right: i16,
}

/// An output row is `above` of source row `top` and `below` of source row `bottom`, in 2048ths.
#[derive(Debug, Clone, Copy)]
struct RowTap {
    top: usize,
    bottom: usize,
    above: i16,
    below: i16,
}

impl<const C: usize> Resampler<C> {
    pub(super) fn new(plan: ResamplePlan, order: Order) -> Self {
        let Rect { top, left, height, width } = plan.window;
        let (source_height, source_width) = plan.source;
        let method = if plan.scaled == plan.source {
            Method::Copy
        } else if plan.method() == Interpolation::Nearest {
            let steps = (step(source_height, plan.scaled.0), step(source_width, plan.scaled.1));
            let rows = (top..top + height).map(|y| nearest(y, steps.0, source_height)).collect();
            let mut columns: Vec<u32> = (left..left + width)
                .map(|x| (nearest(x, steps.1, source_width) * C) as u32)
                .collect();
            if plan.flip_horizontal {
                columns.reverse();
            }
            Method::Nearest { rows, columns }
        } else if plan.method() == Interpolation::Bilinear {
            let rows = (top..top + height).map(|y| plan.row_tap(y)).collect();
            let place = |x| plan.position(x, source_width, plan.scaled.1);
            let mut columns: Vec<ColumnTap> =
                (left..left + width).map(|x| column_tap::<C>(place(x), source_width)).collect();
            if plan.flip_horizontal {
                columns.reverse();
            }
            Method::Bilinear { rows, columns, lines: [vec![0; width * C], vec![0; width * C]] }
        } else {
            let steps = (step(source_height, plan.scaled.0), step(source_width, plan.scaled.1));
            let method = plan.interpolation;
            let rows =
                (top..top + height).map(|y| Taps::new(method, y, steps.0, source_height)).collect();
            let mut columns: Vec<Taps> =
                (left..left + width).map(|x| Taps::new(method, x, steps.1, source_width)).collect();
            if plan.flip_horizontal {
                columns.reverse();
            }
            Method::Sums(Sums::new(method, rows, columns))
        };
        let output = Raster { height, width, data: vec![0; height * width * C] };
        Self { plan, order, arch: Arch::new(), method, next: 0, output }
    }

    /// Takes source row `y`. Rows come in ascending order; those outside [`ResamplePlan::rows`] may be left
    /// out.
    pub(super) fn push(&mut self, y: usize, row: &[u8]) {
        let Self { plan, order, arch, method, next, output } = self;
        let swap = *order == Order::Reversed;
        let (height, width) = output.shape();
        let place = |index: usize| if plan.flip_vertical { height - 1 - index } else { index };
        match method {
            Method::Copy => {
                let Rect { top, left, .. } = plan.window;
                if (top..top + height).contains(&y) {
                    let from = &row[left * C..(left + width) * C];
                    copy_row::<C>(from, output.row_mut(place(y - top)), plan.flip_horizontal, swap);
                }
            }
            Method::Nearest { rows, columns } => {
                let first = *next;
                while *next < height && rows[*next] == y {
                    if *next == first {
                        gather_row::<C>(row, columns, output.row_mut(place(first)), swap);
                    } else {
                        let (from, to) = (place(first) * width * C, place(*next) * width * C);
                        output.data.copy_within(from..from + width * C, to);
                    }
                    *next += 1;
                }
            }
            Method::Bilinear { rows, columns, lines } => {
                if *next == height || y < rows[*next].top {
                    return;
                }
                let line = &mut lines[y & 1][..];
                // A column of one pixel has no right neighbour: it stands for both.
                let doubled;
                let row = if plan.source.1 == 1 {
                    doubled = [row, row].concat();
                    &doubled
                } else {
                    row
                };
                if swap {
                    arch.dispatch(|| blend_columns::<C, true>(row, columns, line));
                } else {
                    arch.dispatch(|| blend_columns::<C, false>(row, columns, line));
                }
                while *next < height && rows[*next].bottom == y {
                    let tap = rows[*next];
                    let (top, bottom) = (&lines[tap.top & 1][..], &lines[tap.bottom & 1][..]);
                    let to = output.row_mut(place(*next));
                    arch.dispatch(|| blend_rows(top, bottom, tap, to));
                    *next += 1;
                }
            }
            Method::Sums(sums) => sums.push::<C>(y, row, swap, next, |index, sum, unit| {
                let to = output.row_mut(place(index));
                to.iter_mut()
                    .zip(sum)
                    .for_each(|(to, sum)| *to = (sum / unit).round_ties_even() as u8);
            }),
        }
    }

    pub(super) fn finish(self) -> Raster<C> {
        self.output
    }
}

/// Source pixels an output pixel, computed as OpenCV does so that the last bit agrees.
fn step(source: usize, scaled: usize) -> f64 {
    1.0 / (scaled as f64 / source as f64)
}

fn nearest(index: usize, step: f64, source: usize) -> usize {
    ((index as f64 * step).floor() as usize).min(source - 1)
}

fn weights(fraction: f32) -> (i16, i16) {
    let fixed = |weight: f32| (weight * 2048.0).round_ties_even() as i16;
    (fixed(1.0 - fraction), fixed(fraction))
}

fn row_tap((before, fraction): (i64, f32), source: usize) -> RowTap {
    let (above, below) = weights(fraction);
    let clip = |row: i64| row.clamp(0, source as i64 - 1) as usize;
    RowTap { top: clip(before), bottom: clip(before + 1), above, below }
}

fn column_tap<const C: usize>((before, fraction): (i64, f32), source: usize) -> ColumnTap {
    let last = source as i64 - 1;
    let (column, left, right) = if before < 0 {
        (0, 2048, 0)
    } else if before >= last {
        // The last pixel alone, read as the right one of the last pair (of a doubled row where
        // there is but one column).
        ((last - 1).max(0), 0, 2048)
    } else {
        let (left, right) = weights(fraction);
        (before, left, right)
    };
    ColumnTap { offset: (column as usize * C) as u32, left, right }
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled anew for the instruction set that runs it")]
fn blend_columns<const C: usize, const SWAP: bool>(
    row: &[u8],
    columns: &[ColumnTap],
    line: &mut [i16],
) {
    for (to, tap) in line.chunks_exact_mut(C).zip(columns) {
        let pair = &row[tap.offset as usize..][..2 * C];
        for channel in 0..C {
            let from = if SWAP { C - 1 - channel } else { channel };
            let sum = i32::from(pair[from]) * i32::from(tap.left)
                + i32::from(pair[C + from]) * i32::from(tap.right);
            to[channel] = (sum >> 4) as i16;
        }
    }
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled anew for the instruction set that runs it")]
fn blend_rows(top: &[i16], bottom: &[i16], tap: RowTap, to: &mut [u8]) {
    for ((to, &top), &bottom) in to.iter_mut().zip(top).zip(bottom) {
        let above = ((i32::from(top) * i32::from(tap.above)) >> 16) as i16;
        let below = ((i32::from(bottom) * i32::from(tap.below)) >> 16) as i16;
        *to = ((above + below + 2) >> 2) as u8;
    }
}

fn copy_row<const C: usize>(from: &[u8], to: &mut [u8], flip: bool, swap: bool) {
    if !flip && !swap {
        to.copy_from_slice(from);
        return;
    }
    let put = |to: &mut [u8], from: &[u8]| {
        for channel in 0..C {
            to[channel] = from[if swap { C - 1 - channel } else { channel }];
        }
    };
    if flip {
        to.chunks_exact_mut(C).zip(from.chunks_exact(C).rev()).for_each(|(to, from)| put(to, from));
    } else {
        to.chunks_exact_mut(C).zip(from.chunks_exact(C)).for_each(|(to, from)| put(to, from));
    }
}

fn gather_row<const C: usize>(row: &[u8], columns: &[u32], to: &mut [u8], swap: bool) {
    for (to, &offset) in to.chunks_exact_mut(C).zip(columns) {
        let from = &row[offset as usize..][..C];
        for channel in 0..C {
            to[channel] = from[if swap { C - 1 - channel } else { channel }];
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resized<const C: usize>(
        source: &Raster<C>,
        scaled: (usize, usize),
        interpolation: Interpolation,
    ) -> Raster<C> {
        let window = Rect::whole(scaled);
        let plan = ResamplePlan {
            source: source.shape(),
            scaled,
            window,
            flip_horizontal: false,
            flip_vertical: false,
            interpolation,
        };
        let mut resampler = Resampler::new(plan, Order::Same);
        plan.rows().for_each(|y| resampler.push(y, source.row(y)));
        resampler.finish()
    }

    /// The definition, in `f64`: pixel centres at halves, no antialiasing, edges repeated.
    fn bilinear(source: &Raster<1>, (height, width): (usize, usize), y: usize, x: usize) -> f64 {
        let place = |index: usize, from: usize, to: usize| {
            let at = ((index as f64 + 0.5) * from as f64 / to as f64 - 0.5)
                .clamp(0.0, from as f64 - 1.0);
            (at.floor() as usize, (at.floor() as usize + 1).min(from - 1), at.fract())
        };
        let (top, bottom, down) = place(y, source.height, height);
        let (left, right, along) = place(x, source.width, width);
        let value = |y, x| f64::from(source.pixel(y, x)[0]);
        let row = |y| value(y, left) * (1.0 - along) + value(y, right) * along;
        row(top) * (1.0 - down) + row(bottom) * down
    }

    fn label() -> impl Strategy<Value = Raster<1>> {
        (1..40_usize, 1..40_usize).prop_flat_map(|(height, width)| {
            proptest::collection::vec(any::<u8>(), height * width).prop_map(move |data| Raster {
                height,
                width,
                data,
            })
        })
    }

    proptest! {
        #[test]
        fn bilinear_is_the_definition_to_one_grey_level(source in label(), height in 1..60_usize, width in 1..60_usize) {
            let result = resized(&source, (height, width), Interpolation::Bilinear);
            for y in 0..height {
                for x in 0..width {
                    let (found, exact) = (f64::from(result.pixel(y, x)[0]), bilinear(&source, (height, width), y, x));
                    prop_assert!((found - exact).abs() <= 1.0, "({y}, {x}): {found} for {exact}");
                }
            }
        }

        #[test]
        fn nearest_takes_the_pixel_that_the_rounded_down_place_is_in(source in label(), height in 1..60_usize, width in 1..60_usize) {
            let result = resized(&source, (height, width), Interpolation::Nearest);
            // Whole numbers where the place is exact; a place within rounding of a border may be on
            // either side of it.
            let candidates = |index: usize, from: usize, to: usize| {
                let exact = index * from / to;
                let on_border = (index * from).is_multiple_of(to);
                (exact.saturating_sub(usize::from(on_border)), exact)
            };
            for y in 0..height {
                for x in 0..width {
                    let (rows, columns) = (candidates(y, source.height, height), candidates(x, source.width, width));
                    let found = result.pixel(y, x);
                    let known = [(rows.0, columns.0), (rows.0, columns.1), (rows.1, columns.0), (rows.1, columns.1)];
                    let one = known.iter().any(|(y, x)| source.pixel(*y, *x) == found);
                    prop_assert!(one, "({y}, {x})");
                }
            }
        }
    }

    #[test]
    fn a_picture_of_one_value_keeps_it() {
        let source = Raster::<3>::filled(7, 5, 131);
        for shape in [(1, 1), (7, 5), (50, 3), (3, 50)] {
            for method in [
                Interpolation::Bilinear,
                Interpolation::Bicubic,
                Interpolation::Area,
                Interpolation::Lanczos,
            ] {
                assert_eq!(
                    resized(&source, shape, method),
                    Raster::filled(shape.0, shape.1, 131),
                    "{method:?}"
                );
            }
        }
    }
}

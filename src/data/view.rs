//! A picture that was resized, cropped and flipped on paper only, until someone needs its pixels.
//!
//! Transforms change the view's geometry in constant time. Rendering it decodes no row below the
//! last one needed and resizes nothing outside the crop. A transform that cannot be put on top of
//! what is planned already (a second resize) renders first, so the result is always that of the
//! transforms one after the other.

use std::path::PathBuf;
use std::sync::Arc;

use super::codec::Encoded;
use super::image::room;
use super::resample::{Order, ResamplePlan, Resampler};
use super::{DataError, FlipDirection, Interpolation, Raster, Rect};

/// A picture of `C` channels with its geometry still to be carried out.
#[derive(Debug, Clone)]
pub struct View<const C: usize> {
    source: Source<C>,
    plan: ResamplePlan,
}

#[derive(Debug, Clone)]
enum Source<const C: usize> {
    /// A file whose pixels were not decoded.
    File(Arc<Encoded>),
    Raster(Arc<Raster<C>>),
}

impl<const C: usize> From<Raster<C>> for View<C> {
    fn from(raster: Raster<C>) -> Self {
        let plan = whole(raster.shape());
        Self { source: Source::Raster(Arc::new(raster)), plan }
    }
}

impl View<3> {
    pub(super) fn of_file(file: Encoded) -> Self {
        let plan = whole(file.shape());
        Self { source: Source::File(Arc::new(file)), plan }
    }
}

fn whole(shape: (usize, usize)) -> ResamplePlan {
    ResamplePlan {
        source: shape,
        scaled: shape,
        window: Rect::whole(shape),
        flip_horizontal: false,
        flip_vertical: false,
        interpolation: Interpolation::Bilinear,
    }
}

impl<const C: usize> View<C> {
    /// Height and width with the geometry carried out.
    pub fn shape(&self) -> (usize, usize) {
        (self.plan.window.height, self.plan.window.width)
    }

    /// Resizes to `height` and `width`, both at least 1.
    pub fn resize(
        &mut self,
        (height, width): (usize, usize),
        interpolation: Interpolation,
    ) -> Result<(), DataError> {
        if self.shape() == (height, width) {
            return Ok(());
        }
        if self.plan != whole(self.plan.source) {
            *self = self.render()?.into();
        }
        self.plan.scaled = (height, width);
        self.plan.window = Rect::whole((height, width));
        self.plan.interpolation = interpolation;
        Ok(())
    }

    /// Keeps the part of `rect` that lies within the picture.
    pub fn crop(&mut self, rect: Rect) {
        self.plan = self.cropped(rect);
    }

    /// Mirrors the picture.
    pub fn flip(&mut self, direction: FlipDirection) {
        self.plan.flip_horizontal ^=
            matches!(direction, FlipDirection::Horizontal | FlipDirection::Diagonal);
        self.plan.flip_vertical ^=
            matches!(direction, FlipDirection::Vertical | FlipDirection::Diagonal);
    }

    /// The pixels.
    pub fn render(&self) -> Result<Raster<C>, DataError> {
        self.render_plan(self.plan)
    }

    /// The pixels of a crop; the view stays as it is.
    pub fn render_crop(&self, rect: Rect) -> Result<Raster<C>, DataError> {
        self.render_plan(self.cropped(rect))
    }

    /// The pixels, without a copy where the view is the only owner of just these.
    pub fn into_raster(self) -> Result<Raster<C>, DataError> {
        if self.plan == whole(self.plan.source)
            && let Source::Raster(raster) = self.source
        {
            return Ok(Arc::unwrap_or_clone(raster));
        }
        self.render()
    }

    fn cropped(&self, rect: Rect) -> ResamplePlan {
        let mut plan = self.plan;
        let Rect { top, left, height, width } = plan.window;
        let kept = |start: usize, length: usize, size: usize| {
            let start = start.min(size);
            (start, length.min(size - start))
        };
        let (mut y, rows) = kept(rect.top, rect.height, height);
        let (mut x, columns) = kept(rect.left, rect.width, width);
        // The window is cut before the flip: what is at the top of a flipped picture is at the
        // bottom of the window.
        if plan.flip_vertical {
            y = height - y - rows;
        }
        if plan.flip_horizontal {
            x = width - x - columns;
        }
        plan.window = Rect { top: top + y, left: left + x, height: rows, width: columns };
        plan
    }

    fn render_plan(&self, plan: ResamplePlan) -> Result<Raster<C>, DataError> {
        room::<C>(plan.window.height, plan.window.width).map_err(|reason| {
            let path = match &self.source {
                Source::File(file) => file.path().to_owned(),
                // The loader knows of which entry it is.
                Source::Raster(_) => PathBuf::new(),
            };
            DataError::OutOfMemory { what: "image", path, reason }
        })?;
        match &self.source {
            Source::File(file) => {
                let mut resampler = Resampler::new(plan, file.order());
                file.decode(plan.rows(), &mut |y, row| resampler.push(y, row))?;
                Ok(resampler.finish())
            }
            Source::Raster(raster) => {
                let mut resampler = Resampler::new(plan, Order::Same);
                plan.rows().for_each(|y| resampler.push(y, raster.row(y)));
                Ok(resampler.finish())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One step that a transform may ask for.
    #[derive(Debug, Clone)]
    enum Step {
        Resize((usize, usize), Interpolation),
        Crop(Rect),
        Flip(FlipDirection),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let interpolation = prop_oneof![
            Just(Interpolation::Bilinear),
            Just(Interpolation::Nearest),
            Just(Interpolation::Bicubic),
            Just(Interpolation::Area),
            Just(Interpolation::Lanczos)
        ];
        let direction = prop_oneof![
            Just(FlipDirection::Horizontal),
            Just(FlipDirection::Vertical),
            Just(FlipDirection::Diagonal)
        ];
        let rect = (0..20_usize, 0..20_usize, 1..24_usize, 1..24_usize);
        let step = prop_oneof![
            ((1..24_usize, 1..24_usize), interpolation)
                .prop_map(|(shape, how)| Step::Resize(shape, how)),
            rect.prop_map(|(top, left, height, width)| Step::Crop(Rect {
                top,
                left,
                height,
                width
            })),
            direction.prop_map(Step::Flip),
        ];
        proptest::collection::vec(step, 0..6)
    }

    fn apply<const C: usize>(view: &mut View<C>, step: &Step) {
        match step {
            Step::Resize(shape, how) => view.resize(*shape, *how).expect("nothing to decode"),
            Step::Crop(rect) => {
                // Transforms keep at least a pixel.
                let (height, width) = view.shape();
                view.crop(Rect {
                    top: rect.top.min(height - 1),
                    left: rect.left.min(width - 1),
                    ..*rect
                });
            }
            Step::Flip(direction) => view.flip(*direction),
        }
    }

    fn raster<const C: usize>() -> impl Strategy<Value = Raster<C>> {
        (1..16_usize, 1..16_usize).prop_flat_map(|(height, width)| {
            proptest::collection::vec(any::<u8>(), height * width * C)
                .prop_map(move |data| Raster { height, width, data })
        })
    }

    fn planned_equals_carried_out<const C: usize>(raster: Raster<C>, steps: &[Step]) {
        let mut planned = View::from(raster.clone());
        let mut carried_out = raster;
        for step in steps {
            apply(&mut planned, step);
            let mut view = View::from(carried_out);
            apply(&mut view, step);
            carried_out = view.into_raster().expect("nothing to decode");
        }
        assert_eq!(planned.shape(), carried_out.shape());
        assert_eq!(planned.render().expect("nothing to decode"), carried_out);
    }

    proptest! {
        #[test]
        fn what_is_planned_and_rendered_once_equals_every_step_carried_out(image in raster::<3>(), steps in steps()) {
            planned_equals_carried_out(image, &steps);
        }

        #[test]
        fn label_maps_too(label in raster::<1>(), steps in steps()) {
            planned_equals_carried_out(label, &steps);
        }
    }

    #[test]
    fn a_flip_mirrors_and_a_crop_counts_from_the_flipped_corner() {
        let mut view =
            View::from(Raster::<1> { height: 2, width: 3, data: vec![1, 2, 3, 4, 5, 6] });
        view.flip(FlipDirection::Horizontal);
        view.crop(Rect { top: 0, left: 0, height: 2, width: 2 });
        assert_eq!(view.render().expect("nothing to decode").data, [3, 2, 6, 5]);
    }
}

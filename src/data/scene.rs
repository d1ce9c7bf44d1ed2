//! Drawn scenes for a dataset that needs no download: overlapping shapes, each filled with a
//! texture, under uneven light.
//!
//! The texture is the class. Colours are drawn at random for every shape, so a model has to look at
//! neighbourhoods. Only operations with exactly one right result are used (no sines, no powers): a
//! seed gives the same bytes on every machine.

use rand::Rng;
use rand_pcg::Pcg64;

use super::seed::{Purpose, stream};
use super::{LabelMap, Raster};

/// The textures, in the order of their labels, which count from 1; 0 is the outline between shapes.
pub const CLASSES: [&str; 6] = ["stripes", "dots", "checker", "gradient", "noise", "smooth"];

/// A colour for each class, to paint label maps with.
pub const PALETTE: [[u8; 3]; 6] =
    [[220, 20, 60], [250, 170, 30], [70, 130, 180], [107, 142, 35], [153, 50, 204], [90, 90, 90]];

/// Unit vectors of rational coordinates, an eighth of a turn covered about evenly; signs and swaps
/// give the others.
const DIRECTIONS: [(f64, f64); 5] = [
    (1.0, 0.0),
    (40.0 / 41.0, 9.0 / 41.0),
    (12.0 / 13.0, 5.0 / 13.0),
    (4.0 / 5.0, 3.0 / 5.0),
    (21.0 / 29.0, 20.0 / 29.0),
];

/// Draws scene `number` of `seed`: red, green, blue, and the label map.
pub fn draw(seed: u64, number: u64, height: usize, width: usize) -> (Raster<3>, LabelMap) {
    let rng = &mut stream(seed, Purpose::Scene, [number, height as u64, width as u64]);
    let extent = (height as f64, width as f64);
    let background = rng.random_range(0..CLASSES.len());
    let mut shapes =
        vec![Shape { outline: Outline::Everywhere, fill: Fill::draw(rng, background) }];
    for _ in 0..rng.random_range(3..=4) {
        let class = (background + rng.random_range(1..CLASSES.len())) % CLASSES.len();
        shapes.push(Shape { outline: Outline::draw(rng, extent), fill: Fill::draw(rng, class) });
    }
    let light = Light::draw(rng, extent);

    let mut image = Raster::filled(height, width, 0);
    let mut label = LabelMap::filled(height, width, 0);
    for y in 0..height {
        for x in 0..width {
            let at = (y as f64 + 0.5, x as f64 + 0.5);
            // The uppermost shape is seen. Within a pixel of its edge there is the outline.
            let seen = shapes.iter().rev().find_map(|shape| match shape.outline.depth(at) {
                depth if depth >= 1.0 => Some(Some(&shape.fill)),
                depth if depth >= -1.0 => Some(None),
                _ => None,
            });
            let (colour, class) = match seen.flatten() {
                Some(fill) => (fill.colour(at), fill.class as u8 + 1),
                None => ([24.0; 3], 0),
            };
            label.data[y * width + x] = class;
            let brightness = light.at(at);
            for (channel, value) in colour.into_iter().enumerate() {
                let grain = f64::from(rng.random_range(-6_i32..=6) + rng.random_range(-6_i32..=6));
                image.data[(y * width + x) * 3 + channel] =
                    (value * brightness + grain).clamp(0.0, 255.0) as u8;
            }
        }
    }
    (image, label)
}

struct Shape {
    outline: Outline,
    fill: Fill,
}

/// A place and a turn: coordinates of its own.
struct Pose {
    origin: (f64, f64),
    axis: (f64, f64),
}

impl Pose {
    fn draw(rng: &mut Pcg64, origin: (f64, f64)) -> Self {
        let (mut a, mut b) = DIRECTIONS[rng.random_range(0..DIRECTIONS.len())];
        if rng.random() {
            (a, b) = (b, a);
        }
        if rng.random() {
            b = -b;
        }
        Self { origin, axis: (a, b) }
    }

    fn local(&self, at: (f64, f64)) -> (f64, f64) {
        let (y, x) = (at.0 - self.origin.0, at.1 - self.origin.1);
        (x * self.axis.0 + y * self.axis.1, y * self.axis.0 - x * self.axis.1)
    }
}

enum Outline {
    Everywhere,
    Disc { centre: (f64, f64), radius: f64 },
    Rectangle { pose: Pose, half: (f64, f64) },
    Triangle { pose: Pose, size: f64 },
}

impl Outline {
    fn draw(rng: &mut Pcg64, extent: (f64, f64)) -> Self {
        let short = extent.0.min(extent.1);
        let centre = (extent.0 * rng.random_range(0.1..0.9), extent.1 * rng.random_range(0.1..0.9));
        let size = short * rng.random_range(0.22..0.36);
        match rng.random_range(0..3) {
            0 => Self::Disc { centre, radius: size },
            1 => Self::Rectangle {
                pose: Pose::draw(rng, centre),
                half: (size, size * rng.random_range(0.6..1.0)),
            },
            _ => Self::Triangle { pose: Pose::draw(rng, centre), size: size * 0.75 },
        }
    }

    /// How far inside a point is, in pixels; negative outside.
    fn depth(&self, at: (f64, f64)) -> f64 {
        match self {
            Self::Everywhere => f64::INFINITY,
            Self::Disc { centre, radius } => {
                let (y, x) = (at.0 - centre.0, at.1 - centre.1);
                radius - (x * x + y * y).sqrt()
            }
            Self::Rectangle { pose, half } => {
                let (u, v) = pose.local(at);
                (half.0 - u.abs()).min(half.1 - v.abs())
            }
            Self::Triangle { pose, size } => {
                let (u, v) = pose.local(at);
                // Three sides at `size` from the centre, about a third of a turn apart.
                let slanted = |u: f64| u * (13.0 / 15.0) - v * 0.5;
                (size - v).min(size - slanted(u)).min(size - slanted(-u)).min(1.6 * size + v)
            }
        }
    }
}

/// A texture between two colours.
struct Fill {
    class: usize,
    pose: Pose,
    /// Pixels from one repetition to the next.
    period: f64,
    colours: [[f64; 3]; 2],
    seed: u64,
}

impl Fill {
    fn draw(rng: &mut Pcg64, class: usize) -> Self {
        let origin = (rng.random_range(0.0..64.0), rng.random_range(0.0..64.0));
        let period = match CLASSES[class] {
            "stripes" => rng.random_range(8.0..12.0),
            "dots" => rng.random_range(9.0..13.0),
            "checker" => rng.random_range(14.0..18.0),
            "gradient" => rng.random_range(56.0..72.0),
            _ => 1.0,
        };
        let colours = loop {
            let colours: [[f64; 3]; 2] = std::array::from_fn(|_| {
                std::array::from_fn(|_| f64::from(rng.random_range(30_u8..=225)))
            });
            let [dark, bright] = colours.map(|colour| colour.iter().sum::<f64>() / 3.0);
            if (dark - bright).abs() > 80.0 {
                break colours;
            }
        };
        Self { class, pose: Pose::draw(rng, origin), period, colours, seed: rng.random() }
    }

    fn colour(&self, at: (f64, f64)) -> [f64; 3] {
        let (u, v) = self.pose.local(at);
        let (u, v) = (u / self.period, v / self.period);
        // Where in its repetition a coordinate is, from 0 to 1.
        let phase = |coordinate: f64| coordinate - coordinate.floor();
        let share = match CLASSES[self.class] {
            "stripes" => f64::from(phase(u) < 0.5),
            "dots" => {
                let (u, v) = (phase(u) - 0.5, phase(v) - 0.5);
                f64::from(u * u + v * v < 0.09)
            }
            "checker" => f64::from((phase(u) < 0.5) != (phase(v) < 0.5)),
            "gradient" => 2.0 * phase(u).min(1.0 - phase(u)),
            "noise" => self.grain(at),
            _ => 0.0,
        };
        std::array::from_fn(|channel| {
            self.colours[0][channel] * (1.0 - share) + self.colours[1][channel] * share
        })
    }

    /// A value of its own for every two by two pixels, from 0 to 1.
    fn grain(&self, at: (f64, f64)) -> f64 {
        let cell = (((at.0 as u64) / 2) << 32) | ((at.1 as u64) / 2);
        let mut hash = (self.seed ^ cell).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        f64::from((hash >> 40) as u32) / f64::from(1_u32 << 24)
    }
}

/// Brighter on one side than on the other.
struct Light {
    pose: Pose,
    slope: f64,
}

impl Light {
    fn draw(rng: &mut Pcg64, extent: (f64, f64)) -> Self {
        let slope = rng.random_range(-0.3..0.3) / extent.0.max(extent.1);
        Self { pose: Pose::draw(rng, (extent.0 / 2.0, extent.1 / 2.0)), slope }
    }

    fn at(&self, at: (f64, f64)) -> f64 {
        1.0 + self.slope * self.pose.local(at).0
    }
}

//! Sizes as configs write them: one number or two, and the arithmetic that turns a scale into a size as mmcv does.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

/// Two values; a config may write one number for both.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Size2<T>(pub T, pub T);

impl<'de> Deserialize<'de> for Size2<usize> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pixels;
        impl<'de> Visitor<'de> for Pixels {
            type Value = Size2<usize>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of pixels, or two of them")
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
                Ok(Size2(value as usize, value as usize))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
                let value = usize::try_from(value).map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))?;
                Ok(Size2(value, value))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                two(seq, &self)
            }
        }
        deserializer.deserialize_any(Pixels)
    }
}

impl<'de> Deserialize<'de> for Size2<f64> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Factors;
        impl<'de> Visitor<'de> for Factors {
            type Value = Size2<f64>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a factor, or two of them")
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
                Ok(Size2(value, value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
                self.visit_f64(value as f64)
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
                self.visit_f64(value as f64)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                two(seq, &self)
            }
        }
        deserializer.deserialize_any(Factors)
    }
}

fn two<'de, A: SeqAccess<'de>, T: Deserialize<'de>>(mut seq: A, expected: &dyn de::Expected) -> Result<Size2<T>, A::Error> {
    let first = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(0, expected))?;
    let second = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(1, expected))?;
    if seq.next_element::<de::IgnoredAny>()?.is_some() {
        return Err(de::Error::invalid_length(3, expected));
    }
    Ok(Size2(first, second))
}

/// `(width, height)` times a factor each, rounded half up: mmcv's `_scale_size`.
pub(super) fn scaled((width, height): (usize, usize), factor: (f64, f64)) -> (usize, usize) {
    ((width as f64 * factor.0 + 0.5) as usize, (height as f64 * factor.1 + 0.5) as usize)
}

/// The largest size of `(width, height)`'s ratio whose long edge and short edge lie within those of `scale`: mmcv's
/// `rescale_size`.
pub fn rescaled((width, height): (usize, usize), scale: (usize, usize)) -> (usize, usize) {
    let long = scale.0.max(scale.1) as f64 / width.max(height) as f64;
    let short = scale.0.min(scale.1) as f64 / width.min(height) as f64;
    let factor = long.min(short);
    scaled((width, height), (factor, factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Reference values from mmcv 2.1's rescale_size.
    #[test]
    fn a_scale_bounds_the_long_and_the_short_edge() {
        assert_eq!(rescaled((683, 512), (2048, 512)), (683, 512));
        assert_eq!(rescaled((2048, 1024), (1024, 4096)), (2048, 1024));
        assert_eq!(rescaled((500, 375), (1331, 332)), (443, 332));
        assert_eq!(rescaled((375, 500), (1331, 332)), (332, 443));
        assert_eq!(rescaled((100, 10), (200, 200)), (200, 20));
    }

    #[test]
    fn one_number_stands_for_both() {
        let parse = |text: &str| serde_json::from_str::<Size2<usize>>(text);
        assert_eq!(parse("7").expect("one"), Size2(7, 7));
        assert_eq!(parse("[7, 8]").expect("two"), Size2(7, 8));
        for wrong in ["[7]", "[7, 8, 9]", "-1", "\"7\"", "1.5"] {
            let error = parse(wrong).expect_err(wrong).to_string();
            assert!(error.contains("a number of pixels, or two of them"), "{wrong}: {error}");
        }
    }
}

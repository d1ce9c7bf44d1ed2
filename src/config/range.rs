//! Ranges of numbers: a value that no run could use is refused where it is written, with its key
//! path and its line, not where it is first divided by. `#[serde(deserialize_with =
//! "config::positive")]` on a field says which it takes.

use serde::de::{Deserialize, Deserializer, Error, Unexpected};

use super::field::{OneOrMany, Pair};

/// Numbers, one or several.
pub(crate) trait Numbers {
    /// The first that is not `good`.
    fn first_outside(&self, good: fn(f64) -> bool) -> Option<f64>;
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Numbers for $type {
            fn first_outside(&self, good: fn(f64) -> bool) -> Option<f64> {
                Some(*self as f64).filter(|it| !good(*it))
            }
        }
    )*};
}
numbers!(usize, u64, i64);

impl Numbers for f64 {
    fn first_outside(&self, good: fn(f64) -> bool) -> Option<f64> {
        Some(*self).filter(|it| !good(*it))
    }
}

impl<T: Numbers> Numbers for Option<T> {
    fn first_outside(&self, good: fn(f64) -> bool) -> Option<f64> {
        self.as_ref().and_then(|it| it.first_outside(good))
    }
}

impl<T: Numbers> Numbers for Vec<T> {
    fn first_outside(&self, good: fn(f64) -> bool) -> Option<f64> {
        self.iter().find_map(|it| it.first_outside(good))
    }
}

impl<T: Numbers> Numbers for OneOrMany<T> {
    fn first_outside(&self, good: fn(f64) -> bool) -> Option<f64> {
        self.0.first_outside(good)
    }
}

impl<T: Numbers, const N: usize> Numbers for [T; N] {
    fn first_outside(&self, good: fn(f64) -> bool) -> Option<f64> {
        self.iter().find_map(|it| it.first_outside(good))
    }
}

impl<T: Numbers> Numbers for Pair<T> {
    fn first_outside(&self, good: fn(f64) -> bool) -> Option<f64> {
        self.0.first_outside(good)
    }
}

impl<T: Numbers> Numbers for (T, T) {
    fn first_outside(&self, good: fn(f64) -> bool) -> Option<f64> {
        self.0.first_outside(good).or_else(|| self.1.first_outside(good))
    }
}

/// Defines how a field is read whose numbers lie in a range.
macro_rules! ranges {
    ($($(#[$doc:meta])* $name:ident: $wanted:literal, $good:expr;)*) => {$(
        $(#[$doc])*
        pub(crate) fn $name<'de, D: Deserializer<'de>, T: Deserialize<'de> + Numbers>(deserializer: D) -> Result<T, D::Error> {
            within(deserializer, $wanted, $good)
        }
    )*};
}

ranges! {
    /// Counts and sizes.
    positive: "a whole number, 1 or more", |it| it >= 1.0;
    /// Intervals of what need not happen at all.
    positive_or_never: "a whole number, 1 or more, or -1 for never", |it| it >= 1.0 || it == -1.0;
    /// Counts of what may all stay.
    positive_or_all: "a whole number, 1 or more, or -1 for all", |it| it >= 1.0 || it == -1.0;
    /// Edges of pictures.
    side: "a whole number of pixels from 1 to 1000000", |it| (1.0..=1e6).contains(&it);
    /// Factors and lengths.
    above_zero: "a finite number above 0", |it| it > 0.0 && it.is_finite();
    /// Rates and weights.
    not_negative: "a finite number, 0 or more", |it| it >= 0.0 && it.is_finite();
    /// Probabilities and shares.
    share: "a number from 0 to 1", |it| (0.0..=1.0).contains(&it);
    /// Probabilities of what may be left out.
    share_or_none: "a number from 0 to 1, or below 0 for none", |it| it <= 1.0;
    /// Decays of running means.
    below_one: "a number, 0 or more and below 1", |it| (0.0..1.0).contains(&it);
    /// Numbers of either sign.
    finite: "a finite number", f64::is_finite;
}

/// A setting of mmengine's that has no place here: null, or left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotOffered;

impl<'de> Deserialize<'de> for NotOffered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> serde::de::Visitor<'de> for Any {
            type Value = NotOffered;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("null: this setting of mmengine's is not offered")
            }

            /// Where files lie on this machine is what is offered.
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<NotOffered, A::Error> {
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    if key != "backend" || !["disk", "local"].contains(&value.as_str()) {
                        return Err(A::Error::invalid_value(
                            Unexpected::Str(&value),
                            &"the backend local: others are not offered",
                        ));
                    }
                }
                Ok(NotOffered)
            }

            fn visit_unit<E: Error>(self) -> Result<NotOffered, E> {
                Ok(NotOffered)
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut access: A,
            ) -> Result<NotOffered, A::Error> {
                match access.next_element::<serde::de::IgnoredAny>()? {
                    None => Ok(NotOffered),
                    Some(_) => Err(A::Error::invalid_type(Unexpected::Seq, &self)),
                }
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A switch that can only be off.
pub(crate) fn only_false<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    if bool::deserialize(deserializer)? {
        return Err(D::Error::custom("true is not offered here; leave it out"));
    }
    Ok(false)
}

/// Switches that can only be off.
pub(crate) fn all_false<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<bool>, D::Error> {
    let switches = Vec::<bool>::deserialize(deserializer)?;
    if switches.contains(&true) {
        return Err(D::Error::custom("true is not offered here; leave it out"));
    }
    Ok(switches)
}

fn within<'de, D: Deserializer<'de>, T: Deserialize<'de> + Numbers>(
    deserializer: D,
    wanted: &'static str,
    good: fn(f64) -> bool,
) -> Result<T, D::Error> {
    let value = T::deserialize(deserializer)?;
    match value.first_outside(good) {
        None => Ok(value),
        Some(outside) if outside.fract() == 0.0 && outside.abs() < 1e15 => {
            Err(D::Error::invalid_value(Unexpected::Signed(outside as i64), &wanted))
        }
        Some(outside) => Err(D::Error::invalid_value(Unexpected::Float(outside), &wanted)),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use crate::config::{Pair, parse_str};

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only their ranges matter")]
    struct Settings {
        #[serde(default, deserialize_with = "super::positive")]
        batch_size: usize,
        #[serde(default, deserialize_with = "super::side")]
        crop_size: Option<Pair<usize>>,
        #[serde(default, deserialize_with = "super::not_negative")]
        lr: f64,
        #[serde(default, deserialize_with = "super::share")]
        prob: Vec<f64>,
        #[serde(default)]
        num_workers: usize,
    }

    #[test]
    fn numbers_outside_their_range_are_named_all_at_once_with_their_places() {
        let text =
            "batch_size: 0\nlr: .nan\ncrop_size: [512, 0]\nprob: [0.5, 1.5]\nnum_workers: -1";
        insta::assert_snapshot!(
            parse_str::<Settings>(text).expect_err("nothing of it can be used")
        );
        assert!(
            parse_str::<Settings>(
                "batch_size: 1\nlr: 0\ncrop_size: 3\nprob: [0, 1]\nnum_workers: 0"
            )
            .is_ok()
        );
    }

    #[test]
    fn another_fault_is_told_beside_them_or_alone() {
        let error =
            parse_str::<Settings>("batch_size: 0\nlr: fast").expect_err("two faults").to_string();
        assert!(error.contains("batch_size") && error.contains("lr: expected a number"), "{error}");
    }
}

//! Smoothed scalars: the mean of the last few values of each name, as mmengine's LogProcessor keeps
//! them.

use std::collections::VecDeque;

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize};

/// The last values of each scalar. It is part of a checkpoint, so that log lines after a resume
/// equal those of an unbroken run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Window {
    size: usize,
    #[serde(deserialize_with = "null_is_no_number")]
    values: IndexMap<String, VecDeque<f64>>,
}

/// JSON has no word for a value that is not a number, such as the accuracy of a batch without a
/// labelled pixel: it becomes `null`.
fn null_is_no_number<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<IndexMap<String, VecDeque<f64>>, D::Error> {
    let values = IndexMap::<String, VecDeque<Option<f64>>>::deserialize(from)?;
    let number = |value: Option<f64>| value.unwrap_or(f64::NAN);
    Ok(values
        .into_iter()
        .map(|(name, values)| (name, values.into_iter().map(number).collect()))
        .collect())
}

impl Window {
    /// A window over the last `size` values (mmengine's `window_size`, 10 by default).
    pub(crate) fn new(size: usize) -> Self {
        Self { size: size.max(1), values: IndexMap::new() }
    }

    pub(crate) fn push(&mut self, name: &str, value: f64) {
        if !self.values.contains_key(name) {
            self.values.insert(name.to_owned(), VecDeque::with_capacity(self.size));
        }
        let values = &mut self.values[name];
        if values.len() == self.size {
            values.pop_front();
        }
        values.push_back(value);
    }

    /// The mean over the window; `None` for a name that was never pushed.
    pub(crate) fn mean(&self, name: &str) -> Option<f64> {
        let values = self.values.get(name)?;
        Some(values.iter().sum::<f64>() / values.len() as f64)
    }

    /// Names in the order of their first value.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_values_count() {
        let mut window = Window::new(2);
        assert_eq!(window.mean("loss"), None);
        for value in [100.0, 1.0, 2.0] {
            window.push("loss", value);
        }
        assert_eq!(window.mean("loss"), Some(1.5));
    }

    #[test]
    fn a_window_survives_its_text_form_to_the_last_bit() {
        let mut window = Window::new(3);
        window.push("loss", 0.1 + 0.2);
        let text = serde_json::to_string(&window).expect("serializes");
        assert_eq!(serde_json::from_str::<Window>(&text).expect("parses"), window);
        window.push("acc_seg", f64::NAN);
        let text = serde_json::to_string(&window).expect("serializes");
        let back = serde_json::from_str::<Window>(&text).expect("parses");
        assert!(
            back.mean("acc_seg").is_some_and(f64::is_nan)
                && back.mean("loss") == window.mean("loss")
        );
    }
}

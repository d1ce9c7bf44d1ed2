//! `class_weight`: a factor for each class, written out or in a file, as mmseg reads them.

use std::fmt;
use std::path::Path;

use serde::de::{self, Deserializer, SeqAccess, Visitor};

use crate::ops::{self, Constant};

/// Reads a list of numbers, or the path of a file with one: `.npy`, `.json`, `.yaml`. The file is
/// read with the config, so that a wrong one is told before anything is built or queued.
pub(super) fn read<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Constant>, D::Error> {
    struct ListOrFile;
    impl<'de> Visitor<'de> for ListOrFile {
        type Value = Option<Constant>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of numbers, or a file with one (.npy, .json, .yaml)")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut values = Vec::new();
            while let Some(value) = access.next_element::<f32>()? {
                values.push(value);
            }
            Ok(Some(values.into()))
        }

        fn visit_str<E: de::Error>(self, path: &str) -> Result<Self::Value, E> {
            from_file(Path::new(path)).map(|it| Some(it.into())).map_err(E::custom)
        }
    }
    deserializer.deserialize_any(ListOrFile)
}

fn from_file(path: &Path) -> Result<Vec<f32>, String> {
    let shown = path.display();
    let text =
        || std::fs::read_to_string(path).map_err(|error| format!("cannot read {shown}: {error}"));
    let wrong = |error: &dyn fmt::Display| format!("{shown} holds no list of numbers: {error}");
    match path.extension().and_then(|it| it.to_str()) {
        Some("npy") => {
            std::fs::metadata(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
            let (shape, values) = ops::read_npy(path).map_err(|error| wrong(&error))?;
            if shape.len() != 1 {
                return Err(format!(
                    "{shown} holds an array of the shape {shape:?}; expected one number for each \
                     class"
                ));
            }
            Ok(values)
        }
        Some("json") => serde_json::from_str(&text()?).map_err(|error| wrong(&error)),
        Some("yaml" | "yml") => serde_yaml::from_str(&text()?).map_err(|error| wrong(&error)),
        _ => Err(format!(
            "{shown} is no file of class weights that is read: write them as .npy, .json or .yaml, \
             or as a list"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::LossConfig;
    use crate::config::parse_str;

    /// The weights that a loss has, or the error.
    fn weights(path: &std::path::Path) -> Result<String, String> {
        let text = format!("{{type: CrossEntropyLoss, class_weight: {}}}", path.display());
        let loss: LossConfig = parse_str(&text).map_err(|it| it.to_string())?;
        let told = format!("{loss:?}");
        let start = told.find("class_weight: ").expect("the weights") + 14;
        Ok(told[start..].split(')').next().unwrap_or_default().to_owned())
    }

    #[test]
    fn weights_are_read_from_files_of_every_kind() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("a.json"), "[0.5, 2, 1]").expect("writes");
        std::fs::write(file("a.yaml"), "- 0.5\n- 2\n- 1\n").expect("writes");
        tch::Tensor::from_slice(&[0.5_f64, 2.0, 1.0]).write_npy(file("a.npy")).expect("writes");
        for name in ["a.json", "a.yaml", "a.npy"] {
            assert_eq!(weights(&file(name)).expect(name), "Some([0.5, 2.0, 1.0]", "{name}");
        }
    }

    #[test]
    fn files_that_hold_none_are_named_with_the_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("a.json"), "{\"road\": 1}").expect("writes");
        std::fs::write(file("b.npy"), "no array").expect("writes");
        tch::Tensor::from_slice(&[1.0_f32; 4])
            .view([2, 2])
            .write_npy(file("c.npy"))
            .expect("writes");
        let told = [
            ("a.json", "holds no list of numbers"),
            ("b.npy", "holds no list of numbers"),
            ("c.npy", "expected one number for each class"),
            ("d.npy", "cannot read"),
            ("e.pkl", "write them as .npy, .json or .yaml"),
        ];
        for (name, words) in told {
            let error = weights(&file(name)).expect_err(name);
            assert!(error.contains("class_weight: ") && error.contains(words), "{error}");
        }
    }
}

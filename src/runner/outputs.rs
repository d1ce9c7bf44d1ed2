//! Where a pass writes what it makes of each image: below an output folder as the image lies below
//! its image folder, so that `a/1.jpg` and `b/1.jpg` do not overwrite each other, and never over a
//! file of a dataset.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::data::Dataset;
use crate::exit::{Exit, Failure};
use crate::experiment::Experiment;

/// The name of each entry's files.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    names: Vec<PathBuf>,
}

impl Outputs {
    /// In a flat folder the names are mmseg's. Joined datasets that share names get a folder each,
    /// named by their number.
    pub(super) fn of(dataset: &Dataset) -> Result<Self, Failure> {
        let named = |index: usize| {
            let (part, path) = dataset.below(index);
            (part, inside(&path).with_extension("png"))
        };
        let names: Vec<PathBuf> = (0..dataset.len()).map(|index| named(index).1).collect();
        if distinct(&names, dataset).is_ok() {
            return Ok(Self { names });
        }
        let names: Vec<PathBuf> = (0..dataset.len())
            .map(named)
            .map(|(part, name)| Path::new(&part.to_string()).join(name))
            .collect();
        distinct(&names, dataset)?;
        Ok(Self { names })
    }

    /// The path of entry `index`'s PNG below an output folder.
    pub(super) fn name(&self, index: usize) -> &Path {
        &self.names[index]
    }

    /// Refuses a `folder` (that `asked` asked for) in which files of a dataset would be
    /// overwritten.
    pub(super) fn spare(
        &self,
        asked: &str,
        folder: &Path,
        dataset: &Dataset,
        experiment: &Experiment,
    ) -> Result<(), Failure> {
        // What is not there yet holds nothing that could be lost.
        let Ok(place) = fs::canonicalize(folder) else { return Ok(()) };
        let refuse = |why: String| {
            let message = format!("{asked} {}: {why}; choose another folder", folder.display());
            Err(Failure::new(Exit::CannotWrite, message))
        };
        for (key, what, path) in experiment.dataset_folders() {
            if fs::canonicalize(&path).is_ok_and(|it| it == place) {
                return refuse(format!(
                    "this is the {what} of {key}, whose files would be overwritten or joined by \
                     others"
                ));
            }
        }
        let mut folders = Folders::default();
        let targets: HashSet<_> =
            self.names.iter().filter_map(|name| folders.entry(&folder.join(name))).collect();
        for index in 0..dataset.len() {
            let (image, label) = dataset.paths(index);
            for path in std::iter::once(image).chain(label) {
                if folders.entry(&path).is_some_and(|it| targets.contains(&it)) {
                    return refuse(format!(
                        "{} of the dataset would be overwritten",
                        path.display()
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Folders by the path that they have without links.
#[derive(Default)]
struct Folders {
    known: HashMap<PathBuf, Option<PathBuf>>,
}

impl Folders {
    /// The place in a folder that `path` names; `None` where the folder is not there.
    fn entry(&mut self, path: &Path) -> Option<(PathBuf, OsString)> {
        let folder = path.parent()?;
        if !self.known.contains_key(folder) {
            self.known.insert(folder.to_owned(), fs::canonicalize(folder).ok());
        }
        Some((self.known[folder].clone()?, path.file_name()?.to_owned()))
    }
}

/// The path without what leads out of a folder: a list of names may hold `../` and whole paths.
fn inside(path: &Path) -> PathBuf {
    path.components().filter(|it| matches!(it, Component::Normal(_))).collect()
}

/// Refuses two images of one name. An image that comes several times is written several times, the
/// same each time.
fn distinct(names: &[PathBuf], dataset: &Dataset) -> Result<(), Failure> {
    let mut taken: HashMap<&Path, PathBuf> = HashMap::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let image = dataset.paths(index).0;
        if let Some(other) = taken.insert(name, image.clone())
            && other != image
        {
            let (first, second, name) = (other.display(), image.display(), name.display());
            let message =
                format!("{first} and {second} would both be written as {name}; rename one of them");
            return Err(Failure::new(Exit::Data, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_the_folder() {
        assert_eq!(inside(Path::new("../a/./b.jpg")), Path::new("a/b.jpg"));
        assert_eq!(inside(Path::new("/data/b.jpg")), Path::new("data/b.jpg"));
    }
}

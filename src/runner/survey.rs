//! What a run says about its files before it begins.

use crate::data::{DataError, Dataset};
use crate::dist::Group;

/// Looks at all datasets of a run. Rank 0 looks for all.
pub struct Survey<'a> {
    group: &'a Group,
    absent: Vec<String>,
}

impl<'a> Survey<'a> {
    pub fn new(group: &'a Group) -> Self {
        Self { group, absent: Vec::new() }
    }

    /// Warns of files that are left out and of label maps that hardly mean what the config says. A label that no class has is an error.
    pub fn look(&mut self, key: &str, dataset: &Dataset) -> Result<(), DataError> {
        if self.group.is_main() {
            let survey = dataset.survey()?;
            survey.told.iter().for_each(|told| tracing::warn!("{key}: {told}"));
            self.absent.extend(survey.absent);
        }
        Ok(())
    }

    /// Files that are missing are one error, of all datasets.
    pub fn end(self) -> Result<(), DataError> {
        if self.absent.is_empty() { Ok(()) } else { Err(DataError::Absent(self.absent)) }
    }
}

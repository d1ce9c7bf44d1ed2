//! What a run says about its files before it begins.

use crate::data::dataset::{self, Look};
use crate::data::{DataError, Dataset};
use crate::dist::Group;

/// Looks at all datasets of a run. Rank 0 looks for all.
pub(super) struct Survey<'a> {
    group: &'a Group,
    faults: dataset::Survey,
}

impl<'a> Survey<'a> {
    pub(super) fn new(group: &'a Group) -> Self {
        Self { group, faults: dataset::Survey::default() }
    }

    /// Warns of files that are left out and of label maps that hardly mean what the config says.
    pub(super) fn look(&mut self, key: &str, dataset: &Dataset) -> Result<(), DataError> {
        if self.group.is_main() {
            let survey = dataset.survey(Look::Some)?;
            survey.told.iter().for_each(|told| tracing::warn!("{key}: {told}"));
            self.faults.take_faults(survey);
        }
        Ok(())
    }

    /// Files that are missing or cannot be used are one error, of all datasets.
    pub(super) fn end(self) -> Result<(), DataError> {
        self.faults.outcome()
    }
}

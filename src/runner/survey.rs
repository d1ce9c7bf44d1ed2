//! What a run says about its files before it begins.

use crate::data::Dataset;
use crate::dist::Group;

/// Warns of files that are left out and of label maps that hardly mean what the config says. Rank 0 looks for all.
pub fn survey(key: &str, dataset: &Dataset, group: &Group) -> anyhow::Result<()> {
    if group.is_main() {
        for told in dataset.survey()? {
            tracing::warn!("{key}: {told}");
        }
    }
    Ok(())
}

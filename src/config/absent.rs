//! What mmseg has and segslurm has not, as docs/mmseg.md says it: a type of mmseg's that is refused
//! is no slip of the keyboard.

const TABLES: &str = include_str!("../../docs/mmseg.md");

/// What is to be said of a type that mmseg has and that is not here: nothing, or what to write
/// instead. `None` for other names.
pub(super) fn note(name: &str) -> Option<String> {
    let note = TABLES.lines().find_map(|line| {
        let (row, rest) = line.strip_prefix("| `")?.split_once("` | no | ")?;
        (row == name).then(|| rest.trim_end_matches('|').trim())
    })?;
    Some(if note.is_empty() { String::new() } else { format!(": {note}") })
}

/// What to write in place of a class of one's own, which no name here is like.
pub(super) fn instead(types: &[&str]) -> &'static str {
    if types.contains(&"BaseSegDataset") {
        "; classes of your own in Python are not run: write `BaseSegDataset` with the class's \
         metainfo, img_suffix and seg_map_suffix"
    } else {
        "; classes of your own in Python are not run; docs/models.md, \"Components of your own\", \
         shows how to write them in Rust"
    }
}

#[cfg(test)]
mod tests {
    use super::note;

    #[test]
    fn what_is_refused_has_its_note() {
        assert_eq!(
            note("CheckpointHook").as_deref(),
            Some(": it stands in `default_hooks.checkpoint`")
        );
        assert_eq!(note("DVCLiveVisBackend").as_deref(), Some(""));
        assert_eq!(note("PSPHead"), None);
        assert_eq!(note("Wandb"), None);
    }
}

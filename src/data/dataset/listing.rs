//! Which files a folder holds. Names are bytes to the system, so none is left out for not being
//! UTF-8; and what looks like a picture but does not end as asked is remembered, so that nobody
//! trains on less than he thinks.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::data::DataError;
use crate::text;

/// What a folder holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Paths below the folder of the files that end as asked, without that end, in order.
    pub(super) names: Vec<OsString>,
    /// Paths below the folder of pictures that end otherwise.
    pub(super) overlooked: Vec<PathBuf>,
    /// Paths below the folder that end as asked and are links to nothing.
    pub(super) dangling: Vec<PathBuf>,
}

/// How pictures' names end, in small letters.
pub(super) const PICTURES: [&[u8]; 7] =
    [b".jpg", b".jpeg", b".png", b".bmp", b".tif", b".tiff", b".webp"];

/// The files below `dir` that end in `suffix`. Hidden ones are left out, and so is the folder
/// `except`; pictures that end in `other` are not counted as overlooked.
pub(super) fn found(
    what: &'static str,
    dir: &Path,
    suffix: &OsStr,
    other: Option<&str>,
    except: Option<&Path>,
) -> Result<Found, DataError> {
    let mut found = Found::default();
    let mut pending = vec![PathBuf::new()];
    while let Some(below) = pending.pop() {
        let folder = dir.join(&below);
        let within = except.is_none_or(|except| !folder.starts_with(except));
        let unreadable =
            |source| DataError::io(what, &folder, source, "check data_root and data_prefix");
        for entry in fs::read_dir(&folder).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name();
            if name.as_bytes().starts_with(b".") {
                continue;
            }
            let path = below.join(&name);
            let kind = entry.file_type().map_err(unreadable)?;
            // A link is what it points to.
            let is_dir = kind.is_dir() || kind.is_symlink() && entry.path().is_dir();
            if is_dir && kind.is_symlink() {
                let whole = |path: &Path| fs::canonicalize(path).ok();
                if let (Some(target), Some(here)) = (whole(&entry.path()), whole(&folder))
                    && here.starts_with(&target)
                {
                    let reason = format!(
                        "is a link to {}, in which it lies itself: remove it",
                        target.display()
                    );
                    return Err(DataError::Listing { what, path: entry.path(), reason });
                }
            }
            if is_dir {
                pending.push(path);
            } else if name.as_bytes().ends_with(suffix.as_bytes()) {
                if kind.is_symlink() && !entry.path().exists() {
                    found.dangling.push(path);
                } else {
                    found.names.push(path.into_os_string());
                }
            } else if within
                && is_picture(&name, suffix)
                && !other.is_some_and(|it| name.as_bytes().ends_with(it.as_bytes()))
            {
                found.overlooked.push(path);
            }
        }
    }
    found.names.sort_unstable();
    found.overlooked.sort_unstable();
    found.dangling.sort_unstable();
    found.names.iter_mut().for_each(|name| *name = without(std::mem::take(name), suffix.len()));
    Ok(found)
}

/// Whether a file that does not end in `suffix` is a picture all the same, or ends in it but for
/// the case.
fn is_picture(name: &OsStr, suffix: &OsStr) -> bool {
    let small = name.as_bytes().to_ascii_lowercase();
    small.ends_with(&suffix.as_bytes().to_ascii_lowercase())
        || PICTURES.iter().any(|end| small.ends_with(end))
}

fn without(name: OsString, end: usize) -> OsString {
    let mut bytes = name.into_vec();
    bytes.truncate(bytes.len() - end);
    OsString::from_vec(bytes)
}

/// The lines of a file with their numbers, without the space around them; empty ones are left out.
pub(super) fn listed(path: &Path) -> Result<Vec<(usize, OsString)>, DataError> {
    let bytes = fs::read(path)
        .map_err(|source| DataError::io("list", path, source, "check data_root and ann_file"))?;
    if let Some(guess) = text::wide(&bytes) {
        let reason = text::NotUtf8 { line: 1, guess };
        return Err(DataError::Text {
            what: "list",
            path: path.to_owned(),
            line: 1,
            reason: reason.to_string(),
        });
    }
    let lines =
        text::without_mark(&bytes).split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).enumerate();
    Ok(lines
        .filter(|(_, line)| !line.is_empty())
        .map(|(index, line)| (index + 1, OsStr::from_bytes(line).to_owned()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bytes_and_pictures_that_end_otherwise_are_remembered() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("b")).expect("a folder");
        let latin = OsStr::from_bytes(b"b/caf\xe9.jpg");
        for name in [
            OsStr::new("a.jpg"),
            latin,
            OsStr::new("c.JPG"),
            OsStr::new("d.png"),
            OsStr::new("notes.txt"),
            OsStr::new(".e.jpg"),
        ] {
            fs::write(folder.path().join(name), "").expect("writes");
        }
        let all = found("image folder", folder.path(), ".jpg".as_ref(), None, None).expect("lists");
        assert_eq!(all.names, [OsStr::new("a"), OsStr::from_bytes(b"b/caf\xe9")]);
        assert_eq!(all.overlooked, [PathBuf::from("c.JPG"), PathBuf::from("d.png")]);
        let label_maps_among_them =
            found("image folder", folder.path(), ".jpg".as_ref(), Some(".png"), None)
                .expect("lists");
        assert_eq!(label_maps_among_them.overlooked, [PathBuf::from("c.JPG")]);
    }

    #[test]
    fn a_link_that_leads_back_is_named_and_one_that_leads_elsewhere_is_followed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (images, other) = (folder.path().join("images"), folder.path().join("other"));
        for dir in [&images, &other] {
            fs::create_dir(dir).expect("a folder");
        }
        fs::write(other.join("a.jpg"), "").expect("writes");
        std::os::unix::fs::symlink(&other, images.join("linked")).expect("a link");
        let found = || found("image folder", &images, ".jpg".as_ref(), None, None);
        assert_eq!(found().expect("lists").names, [OsStr::new("linked/a")]);
        std::os::unix::fs::symlink(&images, images.join("again")).expect("a link");
        let error = found().expect_err("has no end").to_string();
        assert!(
            error.contains("images/again is a link to")
                && error.contains("in which it lies itself"),
            "{error}"
        );
    }

    #[test]
    fn a_list_may_name_files_that_are_not_utf8() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let list = folder.path().join("list.txt");
        let names = |bytes: &[u8]| {
            fs::write(&list, bytes).expect("writes");
            listed(&list).expect("reads")
        };
        assert_eq!(
            names(b" a \r\n\ncaf\xe9\n"),
            [(1, "a".into()), (3, OsStr::from_bytes(b"caf\xe9").to_owned())]
        );
        assert_eq!(names(b"\xef\xbb\xbfa\n"), [(1, "a".into())]);
        fs::write(&list, b"\xff\xfea\0\n\0").expect("writes");
        assert!(
            listed(&list).expect_err("UTF-16").to_string().contains("list.txt:1: it is not UTF-8")
        );
    }
}

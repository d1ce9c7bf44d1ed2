//! The lines of a list of images, as people write them: with suffixes, with the label map in a second column, from the root of the
//! dataset, with a slash in front, from Windows. What mmseg takes is the name below the image folder, without its suffix.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::folder::with_suffix;
use super::listing::PICTURES;
use crate::data::DataError;
use crate::text;

/// Where the names of a list lead.
pub(super) struct Places<'a> {
    pub(super) img_dir: &'a Path,
    /// The image folder and the label folder below `data_root`.
    pub(super) prefixes: [Option<&'a Path>; 2],
    pub(super) img_suffix: &'a str,
    pub(super) seg_map_suffix: &'a str,
}

/// So many lines are named.
const NAMED: usize = 5;

/// The names of entries in the lines of `list`. What cannot be meant is told with its lines, all at once.
pub(super) fn names(list: &Path, lines: Vec<(usize, OsString)>, places: &Places) -> Result<Vec<OsString>, DataError> {
    let mut names = Vec::with_capacity(lines.len());
    let mut wrong: Vec<(usize, String)> = Vec::new();
    for (number, line) in lines {
        match places.name(&line) {
            Ok(name) => names.push(name),
            Err(reason) => wrong.push((number, reason)),
        }
    }
    let Some((line, reason)) = wrong.first().cloned() else { return Ok(names) };
    let others = wrong.len() - 1;
    let more: Vec<String> = wrong[1..].iter().take(NAMED - 1).map(|(line, _)| line.to_string()).collect();
    let reason = match others {
        0 => reason,
        _ => format!("{reason}; so are {others} more lines ({}{})", more.join(", "), if others >= NAMED { ", …" } else { "" }),
    };
    Err(DataError::Text { what: "list", path: list.to_owned(), line, reason })
}

impl Places<'_> {
    fn exists(&self, name: &OsStr) -> bool {
        self.img_dir.join(with_suffix(name, self.img_suffix)).exists()
    }

    fn name(&self, line: &OsStr) -> Result<OsString, String> {
        // Nearly every line of nearly every list is a plain name.
        let bytes = line.as_bytes();
        let plain = !bytes.iter().any(|it| it.is_ascii_whitespace() || *it == b'\\' || *it == b',')
            && !bytes.starts_with(b"/")
            && !bytes.starts_with(b"./")
            && line.to_str().is_some()
            && !ends_as_picture(bytes)
            && !self.prefixes.iter().flatten().any(|it| bytes.starts_with(it.as_os_str().as_bytes()));
        if plain || self.exists(line) {
            return Ok(line.to_owned());
        }
        let Some(text) = line.to_str() else {
            return Err(format!(
                "`{}` is not UTF-8 ({}), and no image has that name; save the list as UTF-8",
                line.display(),
                text::guess(bytes)
            ));
        };
        let mut columns = text.split([' ', '\t', ',']).map(str::trim).filter(|it| !it.is_empty());
        let (first, second, third) = (columns.next().unwrap_or(text), columns.next(), columns.next());
        if third.is_some() {
            return Err(format!("`{text}` has more than two columns; expected the name of an image, without its suffix"));
        }
        let name = self.tidy(first, self.img_suffix, self.prefixes[0])?;
        if let Some(second) = second {
            let label = self.tidy(second, self.seg_map_suffix, self.prefixes[1])?;
            if label != name {
                return Err(format!(
                    "`{first}` has the label map `{second}` beside it, and a label map is found by its image's name: {name}{}; name \
                     the label maps so, or set seg_map_suffix",
                    self.seg_map_suffix
                ));
            }
        }
        Ok(name.into())
    }

    /// A column as a name: with slashes, below its folder, without its suffix.
    fn tidy(&self, column: &str, suffix: &str, prefix: Option<&Path>) -> Result<String, String> {
        let slashed = column.replace('\\', "/");
        let mut name = slashed.as_str();
        name = name.strip_prefix(&format!("{}/", self.img_dir.display())).unwrap_or(name);
        if name.starts_with('/')
            && let Ok(whole) = std::fs::canonicalize(self.img_dir)
        {
            name = name.strip_prefix(&format!("{}/", whole.display())).unwrap_or(name);
        }
        name = name.trim_start_matches("./").trim_start_matches('/');
        if let Some(prefix) = prefix.and_then(|it| it.to_str()).map(|it| it.trim_matches('/')).filter(|it| !it.is_empty())
            && let Some(below) = name.strip_prefix(prefix).and_then(|it| it.strip_prefix('/'))
        {
            name = below;
        }
        if let Some(bare) = name.strip_suffix(suffix).filter(|it| !it.is_empty()) {
            return Ok(bare.to_owned());
        }
        if ends_as_picture(name.as_bytes()) {
            let which = if suffix == self.img_suffix { "img_suffix" } else { "seg_map_suffix" };
            return Err(format!("`{name}` does not end in {suffix} ({which}): set {which} to the end that the files have"));
        }
        Ok(name.to_owned())
    }
}

fn ends_as_picture(bytes: &[u8]) -> bool {
    let small = bytes.to_ascii_lowercase();
    PICTURES.iter().any(|end| small.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&[u8]]) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let img_dir = folder.path().join("images/train");
        std::fs::create_dir_all(&img_dir).expect("a folder");
        std::fs::write(img_dir.join("two words.jpg"), "").expect("writes");
        std::fs::write(img_dir.join(OsStr::from_bytes(b"caf\xe9.jpg")), "").expect("writes");
        let places = Places {
            img_dir: &img_dir,
            prefixes: [Some(Path::new("images/train")), Some(Path::new("labels/train"))],
            img_suffix: ".jpg",
            seg_map_suffix: ".png",
        };
        let lines = lines.iter().enumerate().map(|(index, it)| (index + 1, OsStr::from_bytes(it).to_owned())).collect();
        let names = names(Path::new("list.txt"), lines, &places).map_err(|it| it.to_string())?;
        Ok(names.into_iter().map(|it| it.to_string_lossy().into_owned()).collect())
    }

    #[test]
    fn lists_are_read_however_they_are_written() {
        let lines: [&[u8]; 11] = [
            b"a",
            b"b/c",
            b"a.jpg",
            b"/a",
            b"./a.jpg",
            b"sub\\a.jpg",
            b"a.jpg a.png",
            b"images/train/a.jpg\tlabels/train/a.png",
            b"a,a",
            b"two words",
            b"caf\xe9",
        ];
        let expected = ["a", "b/c", "a", "a", "a", "sub/a", "a", "a", "a", "two words", "caf\u{fffd}"];
        assert_eq!(read(&lines).expect("names"), expected);
    }

    #[test]
    fn lines_that_name_nothing_are_told_at_once() {
        let told = |lines: &[&[u8]]| read(lines).expect_err("names nothing");
        assert!(told(&[b"a", b"b.png"]).starts_with("list list.txt:2: `b.png` does not end in .jpg (img_suffix)"));
        assert!(told(&[b"a.jpg b.png"]).contains("a label map is found by its image's name: a.png"));
        assert!(told(&[b"a b c"]).contains("more than two columns"));
        assert!(told(&[b"\xb5\xc0\xc2\xb7"]).contains("it looks like GBK"));
        let many = told(&[b"a.png", b"b", b"c.png", b"d.png"]);
        assert!(many.contains("so are 2 more lines (3, 4)"), "{many}");
    }
}

//! The lines of a list of images, as people write them: with suffixes, with the label map in a
//! second column, from the root of the dataset, with a slash in front, from Windows. What mmseg
//! takes is the name below the image folder, without its suffix.

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

/// So many spaces and commas are looked for in a name.
const SEPARATORS: usize = 64;

/// So many lines are named.
const NAMED: usize = 5;

/// The names of entries in the lines of `list`. What cannot be meant is told with its lines, all at
/// once.
pub(super) fn names(
    list: &Path,
    lines: Vec<(usize, OsString)>,
    places: &Places,
) -> Result<Vec<OsString>, DataError> {
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
    let more: Vec<String> =
        wrong[1..].iter().take(NAMED - 1).map(|(line, _)| line.to_string()).collect();
    let reason = match others {
        0 => reason,
        _ => format!(
            "{reason}; so are {others} more lines ({}{})",
            more.join(", "),
            if others >= NAMED { ", …" } else { "" }
        ),
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
        let plain = !bytes.iter().any(|it| is_separator(*it) || *it == b'\\')
            && !bytes.starts_with(b"/")
            && !bytes.starts_with(b"./")
            && line.to_str().is_some()
            && !ends_as_picture(bytes)
            && !self
                .prefixes
                .iter()
                .flatten()
                .any(|it| bytes.starts_with(it.as_os_str().as_bytes()));
        if plain || self.exists(line) {
            return Ok(line.to_owned());
        }
        let (first, second) = self.columns(bytes);
        let name = self.image(first);
        if line.to_str().is_none() && !name.as_ref().is_ok_and(|it| self.exists(it)) {
            return Err(format!(
                "`{}` is not UTF-8 ({}), and no image has that name; save the list as UTF-8",
                line.display(),
                text::guess(bytes)
            ));
        }
        let name = name?;
        if second.is_empty() {
            return Ok(name);
        }
        let label = self.label(second);
        if label.as_ref().is_ok_and(|it| *it == name) {
            return Ok(name);
        }
        if second.iter().any(|it| is_separator(*it)) {
            let line = line.display();
            return Err(format!(
                "`{line}` has more than two columns; expected the name of an image, without its \
                 suffix"
            ));
        }
        label?;
        Err(format!(
            "`{}` has the label map `{}` beside it, and a label map is found by its image's name: \
             {}{}; name the label maps so, or set seg_map_suffix",
            OsStr::from_bytes(first).display(),
            OsStr::from_bytes(second).display(),
            name.display(),
            self.seg_map_suffix
        ))
    }

    /// A line's first column, and what stands behind it. Names may hold spaces and commas, so the
    /// first column is the longest that is an image's name; where none is, it ends at the first
    /// tab, or else at the first space or comma.
    fn columns<'a>(&self, line: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let split = |at: usize| {
            let behind = line[at..]
                .iter()
                .position(|it| !is_separator(*it))
                .map_or(line.len(), |it| at + it);
            (line[..at].trim_ascii_end(), &line[behind..])
        };
        let ends = || (0..line.len()).filter(|&at| is_separator(line[at]));
        let Some(end) = ends().next() else { return (line, b"") };
        let (first, second) = split(end);
        // Two files beside each other need no look at the folder.
        let two = first.ends_with(self.img_suffix.as_bytes())
            && second.ends_with(self.seg_map_suffix.as_bytes());
        if two && !second.iter().any(|it| is_separator(*it)) {
            return (first, second);
        }
        let is_image = |column: &[u8]| self.image(column).is_ok_and(|it| self.exists(&it));
        // Nobody's name has more of them.
        let tried: Vec<usize> = ends().take(SEPARATORS).chain([line.len()]).collect();
        match tried.into_iter().rev().find(|&at| is_image(split(at).0)) {
            Some(at) => split(at),
            None => split(line.iter().position(|it| *it == b'\t').unwrap_or(end)),
        }
    }

    fn image(&self, column: &[u8]) -> Result<OsString, String> {
        self.tidy(column, self.img_suffix, "img_suffix", self.prefixes[0])
    }

    fn label(&self, column: &[u8]) -> Result<OsString, String> {
        self.tidy(column, self.seg_map_suffix, "seg_map_suffix", self.prefixes[1])
    }

    /// A column as a name: with slashes, below its folder, without its suffix.
    fn tidy(
        &self,
        column: &[u8],
        suffix: &str,
        key: &str,
        prefix: Option<&Path>,
    ) -> Result<OsString, String> {
        let slashed: Vec<u8> =
            column.iter().map(|it| if *it == b'\\' { b'/' } else { *it }).collect();
        let mut name = below(&slashed, self.img_dir);
        if name.starts_with(b"/")
            && let Ok(whole) = std::fs::canonicalize(self.img_dir)
        {
            name = below(name, &whole);
        }
        while let Some(rest) = name.strip_prefix(b"./") {
            name = rest;
        }
        name = without_slashes(name);
        if let Some(prefix) = prefix {
            let prefix = prefix.as_os_str().as_bytes();
            name = below(name, Path::new(OsStr::from_bytes(without_slashes(prefix))));
        }
        let bare = name.strip_suffix(suffix.as_bytes()).filter(|it| !it.is_empty());
        if bare.is_none() && ends_as_picture(name) {
            let name = OsStr::from_bytes(name).display();
            return Err(format!(
                "`{name}` does not end in {suffix} ({key}): set {key} to the end that the files \
                 have"
            ));
        }
        Ok(OsStr::from_bytes(bare.unwrap_or(name)).to_owned())
    }
}

/// What may stand between two columns.
fn is_separator(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == b','
}

fn without_slashes(path: &[u8]) -> &[u8] {
    &path[path.iter().position(|it| *it != b'/').unwrap_or(path.len())..]
}

/// The part of a path that lies below `folder`; the path itself where it does not.
fn below<'a>(path: &'a [u8], folder: &Path) -> &'a [u8] {
    let folder = folder.as_os_str().as_bytes();
    let folder = folder.strip_suffix(b"/").unwrap_or(folder);
    if folder.is_empty() {
        return path;
    }
    path.strip_prefix(folder).and_then(|it| it.strip_prefix(b"/")).unwrap_or(path)
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
        for name in
            [&b"caf\xe9.jpg"[..], b"IMG (1).jpg", b"my holiday photo.jpg", b"a, b.jpg", b"my.jpg"]
        {
            std::fs::write(img_dir.join(OsStr::from_bytes(name)), "").expect("writes");
        }
        let places = Places {
            img_dir: &img_dir,
            prefixes: [Some(Path::new("images/train")), Some(Path::new("labels/train"))],
            img_suffix: ".jpg",
            seg_map_suffix: ".png",
        };
        let lines = lines
            .iter()
            .enumerate()
            .map(|(index, it)| (index + 1, OsStr::from_bytes(it).to_owned()))
            .collect();
        let names = names(Path::new("list.txt"), lines, &places).map_err(|it| it.to_string())?;
        Ok(names.into_iter().map(|it| it.to_string_lossy().into_owned()).collect())
    }

    #[test]
    fn lists_are_read_however_they_are_written() {
        let lines: [&[u8]; 23] = [
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
            b"caf\xe9.jpg",
            b"images/train/caf\xe9.jpg\tlabels/train/caf\xe9.png",
            b"IMG (1).jpg",
            b"IMG (1)",
            b"IMG (1).jpg\tIMG (1).png",
            b"my holiday photo.jpg my holiday photo.png",
            b"/images/train/my holiday photo.jpg",
            b"images\\train\\IMG (1).jpg, labels\\train\\IMG (1).png",
            b"a, b.jpg",
            b"a, b.jpg,a, b.png",
            b"my.jpg my.png",
            b"not there.jpg\tnot there.png",
        ];
        let names = [
            "a",
            "b/c",
            "a",
            "a",
            "a",
            "sub/a",
            "a",
            "a",
            "a",
            "two words",
            "caf\u{fffd}",
            "caf\u{fffd}",
            "caf\u{fffd}",
        ];
        let spaced = [
            "IMG (1)",
            "IMG (1)",
            "IMG (1)",
            "my holiday photo",
            "my holiday photo",
            "IMG (1)",
            "a, b",
            "a, b",
            "my",
            "not there",
        ];
        let expected = [&names[..], &spaced].concat();
        assert_eq!(read(&lines).expect("names"), expected);
    }

    #[test]
    fn lines_that_name_nothing_are_told_at_once() {
        let told = |lines: &[&[u8]]| read(lines).expect_err("names nothing");
        assert!(
            told(&[b"a", b"b.png"])
                .starts_with("list list.txt:2: `b.png` does not end in .jpg (img_suffix)")
        );
        assert!(
            told(&[b"a.jpg b.png"]).contains("a label map is found by its image's name: a.png")
        );
        assert!(told(&[b"a b c"]).contains("more than two columns"));
        assert!(told(&[b"\xb5\xc0\xc2\xb7"]).contains("it looks like GBK"));
        let many = told(&[b"a.png", b"b", b"c.png", b"d.png"]);
        assert!(many.contains("so are 2 more lines (3, 4)"), "{many}");
    }
}

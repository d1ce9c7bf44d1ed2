//! The desktop's picture viewer, for `test --show`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Opens every picture of `folder` with the desktop's viewer, `wait` apart. Without a display it
/// says so and where they are.
#[expect(clippy::disallowed_methods, reason = "here the desktop's viewer is started")]
pub(crate) fn show(
    folder: &Path,
    wait: Duration,
    variable: &dyn Fn(&str) -> Option<String>,
) -> std::io::Result<()> {
    if variable("DISPLAY").or_else(|| variable("WAYLAND_DISPLAY")).is_none() {
        tracing::warn!(
            "--show: there is no display here; the pictures are in {}",
            folder.display()
        );
        return Ok(());
    }
    for picture in pictures(folder)? {
        let opened = Command::new("xdg-open")
            .arg(&picture)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        match opened {
            Ok(status) if status.success() => std::thread::sleep(wait),
            Ok(status) => {
                tracing::warn!(
                    "--show: xdg-open ended with {status}; the pictures are in {}",
                    folder.display()
                );
                break;
            }
            Err(error) => {
                tracing::warn!(
                    "--show: cannot start xdg-open ({error}); the pictures are in {}",
                    folder.display()
                );
                break;
            }
        }
    }
    Ok(())
}

/// The pictures of a folder and of those below it, in the order of their paths.
fn pictures(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(folder) = pending.pop() {
        for path in std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|it| it == "png") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_of_images_in_several_folders_are_all_found() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["b", "a"] {
            std::fs::create_dir(folder.path().join(name)).expect("a folder");
            std::fs::write(folder.path().join(name).join("1.png"), "").expect("a picture");
        }
        std::fs::write(folder.path().join("note.txt"), "").expect("a file");
        let expected = ["a/1.png", "b/1.png"].map(|it| folder.path().join(it));
        assert_eq!(pictures(folder.path()).expect("lists"), expected);
    }
}

//! The desktop's picture viewer, for `test --show`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Opens every picture of `folder` with the desktop's viewer, `wait` apart. Without a display it says so and where they are.
pub fn show(folder: &Path, wait: Duration, variable: &dyn Fn(&str) -> Option<String>) -> std::io::Result<()> {
    if variable("DISPLAY").or_else(|| variable("WAYLAND_DISPLAY")).is_none() {
        tracing::warn!("--show: there is no display here; the pictures are in {}", folder.display());
        return Ok(());
    }
    let mut pictures: Vec<PathBuf> = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    pictures.retain(|path| path.extension().is_some_and(|it| it == "png"));
    pictures.sort();
    for picture in pictures {
        let opened = Command::new("xdg-open").arg(&picture).stdin(Stdio::null()).stdout(Stdio::null()).status();
        match opened {
            Ok(status) if status.success() => std::thread::sleep(wait),
            Ok(status) => {
                tracing::warn!("--show: xdg-open ended with {status}; the pictures are in {}", folder.display());
                break;
            }
            Err(error) => {
                tracing::warn!("--show: cannot start xdg-open ({error}); the pictures are in {}", folder.display());
                break;
            }
        }
    }
    Ok(())
}

//! `test --show`: pictures on a desktop, and a word where there is none.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::harness::{self, CONFIG, dataset, ends_in, segslurm, small, text};

fn test(checkpoint: &Path, work_dir: &Path) -> Command {
    let mut command = segslurm();
    command.args(["test", CONFIG]).arg(checkpoint).arg("--work-dir").arg(work_dir);
    command.args(["--show", "--wait-time", "0"]).args(small(dataset(), 2));
    command.env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY");
    command
}

#[test]
fn pictures_are_shown_where_there_is_a_display_and_named_where_not() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let work_dir = folder.path().join("work");
    ends_in(&mut harness::train(&work_dir, 2), 0);
    let checkpoint = work_dir.join("iter_2.safetensors");

    let output = ends_in(&mut test(&checkpoint, &folder.path().join("blind")), 0);
    assert!(
        text(&output.stdout).contains("there is no display here; the pictures are in"),
        "{}",
        text(&output.stdout)
    );

    // A viewer that keeps a list of what it was asked to open, in the place of the desktop's.
    let shown = folder.path().join("shown");
    let viewer = folder.path().join("xdg-open");
    fs::write(&viewer, format!("#!/bin/sh\necho \"$1\" >>'{}'\n", shown.display()))
        .expect("writes");
    fs::set_permissions(&viewer, fs::Permissions::from_mode(0o755)).expect("a program");
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap_or_default());
    let mut command = test(&checkpoint, &folder.path().join("seen"));
    ends_in(command.env("DISPLAY", ":0").env("PATH", path), 0);
    let shown = fs::read_to_string(&shown).expect("pictures were opened");
    let images = fs::read_dir(dataset().join("images/validation")).expect("images").count();
    assert_eq!(shown.lines().filter(|it| Path::new(it).is_file()).count(), images, "{shown}");
}

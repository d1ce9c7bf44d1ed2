//! Options of mmseg 0.x, and slips that its users' fingers make: one line says what to write today.

use std::ffi::OsString;
use std::path::Path;

/// What an option of another time is now. Underscores and dashes are alike.
const OLD: [(&str, &str); 22] = [
    ("--work-dir", "--work-dir DIR"),
    ("--resume-from", "--resume --cfg-options load_from=FILE"),
    ("--load-from", "--cfg-options load_from=FILE"),
    ("--auto-resume", "--resume"),
    ("--seed", "--cfg-options randomness.seed=N"),
    ("--diff-seed", "--cfg-options randomness.diff_rank_seed=true"),
    ("--deterministic", "--cfg-options randomness.deterministic=true"),
    ("--no-validate", "--cfg-options val_dataloader=None val_cfg=None val_evaluator=None"),
    ("--gpu-id", "CUDA_VISIBLE_DEVICES=N in front of the command"),
    ("--gpu-ids", "CUDA_VISIBLE_DEVICES=N,M in front of segslurm dist_train CONFIG 2"),
    ("--options", "--cfg-options KEY=VALUE"),
    ("--override", "--cfg-options KEY=VALUE"),
    (
        "--eval",
        "--cfg-options test_evaluator.iou_metrics=mIoU (a test always measures what test_evaluator \
         says)",
    ),
    ("--eval-options", "--cfg-options test_evaluator.KEY=VALUE"),
    ("--format-only", "--out DIR --cfg-options test_evaluator.format_only=true"),
    ("--aug-test", "--tta"),
    ("--opacity", "--cfg-options visualizer.alpha=A"),
    ("--tmpdir", "nothing: ranks exchange counts, not files"),
    ("--gpu-collect", "nothing: ranks exchange counts, not files"),
    ("--show-score-thr", "nothing: a pixel has one class"),
    ("--dist-url", "--launcher pytorch, with MASTER_ADDR and MASTER_PORT"),
    (
        "--port",
        "PORT=N in front of segslurm dist_train, or MASTER_PORT=N in front of a job on Slurm",
    ),
];

/// The line for the first such thing on a command line, if there is one.
pub(super) fn hint(arguments: &[OsString]) -> Option<String> {
    let words: Vec<String> =
        arguments.iter().skip(1).map(|it| it.to_string_lossy().into_owned()).collect();
    let command = words.first().map_or("", String::as_str);
    if !["train", "test", "dist_train", "dist_test", "slurm_train", "slurm_test", "config"]
        .contains(&command.replace('-', "_").as_str())
    {
        return None;
    }
    words.iter().enumerate().find_map(|(place, word)| {
        let name = word.split('=').next().unwrap_or(word);
        let known = OLD.iter().find(|(old, _)| *old == name.replace('_', "-"));
        if let Some((old, now)) = known.filter(|(old, _)| *old != "--work-dir" || name != *old) {
            let same = old.trim_start_matches('-')
                == now.trim_start_matches('-').split(' ').next().unwrap_or_default();
            let of = if same { "" } else { " of mmseg 0.x" };
            return Some(format!("{name}{of} is written {now}"));
        }
        let next = words.get(place + 1).filter(|it| !it.starts_with('-'));
        match (word.as_str(), next) {
            ("--resume", Some(file)) if is_checkpoint(file) => Some(format!(
                "--resume takes no file: write --resume --cfg-options load_from={file}"
            )),
            ("--cfg-options", Some(_)) => {
                let taken = words[place + 1..].iter().take_while(|it| !it.starts_with('-'));
                let config = taken.clone().find(|it| !it.contains('='))?;
                Some(format!(
                    "--cfg-options takes every word up to the next option, `{config}` too: write \
                     {command} {config} --cfg-options …, the config first"
                ))
            }
            _ => None,
        }
    })
}

fn is_checkpoint(word: &str) -> bool {
    let end = Path::new(word).extension().and_then(|it| it.to_str()).unwrap_or_default();
    word == "auto" || ["pth", "pt", "safetensors"].contains(&end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> Option<String> {
        hint(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn every_old_option_has_its_line() {
        for (old, now) in OLD.iter().filter(|(old, _)| *old != "--work-dir") {
            for name in [(*old).to_owned(), old.replace('-', "_").replacen("__", "--", 1)] {
                let line = told(&format!("segslurm train a.py {name} 3")).expect("a line");
                assert!(
                    line.starts_with(&name) && line.ends_with(now) && !line.contains('\n'),
                    "{line}"
                );
            }
        }
        assert_eq!(
            told("segslurm train a.py --work_dir w").as_deref(),
            Some("--work_dir is written --work-dir DIR")
        );
        assert_eq!(told("segslurm train a.py --work-dir w"), None);
    }

    #[test]
    fn files_behind_resume_and_configs_behind_cfg_options_are_seen() {
        let line = told("segslurm train a.py --resume w/iter_4.pth").expect("a line");
        assert_eq!(
            line,
            "--resume takes no file: write --resume --cfg-options load_from=w/iter_4.pth"
        );
        let line = told("segslurm train --cfg-options a=1 b=2 a.py").expect("a line");
        assert!(line.contains("write train a.py --cfg-options"), "{line}");
        assert_eq!(told("segslurm train a.py --cfg-options a=1 b=2"), None);
        assert_eq!(told("segslurm demo-data --seed 3"), None);
    }
}

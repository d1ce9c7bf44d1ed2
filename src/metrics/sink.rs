//! Files that scalars go to: mmengine's `scalars.json`, and TensorBoard's event files.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::events::EventFile;

/// An entry of `vis_backends`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum VisBackendConfig {
    /// `scalars.json` in the run's `vis_data`, one line of JSON a logged step.
    LocalVisBackend(LocalVisBackendConfig),
    /// TensorBoard event files in the run's `vis_data`.
    TensorboardVisBackend(TensorboardVisBackendConfig),
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LocalVisBackendConfig {
    /// Another folder than the run's `vis_data`.
    pub save_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TensorboardVisBackendConfig {
    /// Another folder than the run's `vis_data`.
    pub save_dir: Option<PathBuf>,
}

/// Where a run's scalars go.
pub(crate) struct Sink {
    backends: Vec<Backend>,
}

enum Backend {
    Local(File),
    Tensorboard(EventFile),
}

impl Sink {
    /// Opens the files of each backend below `vis_data`.
    pub(crate) fn open(backends: &[VisBackendConfig], vis_data: &Path) -> io::Result<Self> {
        let open = |backend: &VisBackendConfig| match backend {
            VisBackendConfig::LocalVisBackend(config) => {
                let folder = config.save_dir.as_deref().unwrap_or(vis_data);
                std::fs::create_dir_all(folder)?;
                File::options()
                    .create(true)
                    .append(true)
                    .open(folder.join("scalars.json"))
                    .map(Backend::Local)
            }
            VisBackendConfig::TensorboardVisBackend(config) => {
                let folder = config.save_dir.as_deref().unwrap_or(vis_data);
                std::fs::create_dir_all(folder)?;
                EventFile::create(folder).map(Backend::Tensorboard)
            }
        };
        Ok(Self { backends: backends.iter().map(open).collect::<io::Result<_>>()? })
    }

    /// Writes one logged step's scalars. `step` is the x-axis of a plot.
    pub(crate) fn write(&mut self, scalars: &Map<String, Value>, step: u64) -> io::Result<()> {
        for backend in &mut self.backends {
            match backend {
                Backend::Local(file) => {
                    let mut line = serde_json::to_vec(scalars)?;
                    line.push(b'\n');
                    file.write_all(&line)?;
                }
                Backend::Tensorboard(writer) => {
                    let values = scalars
                        .iter()
                        .filter_map(|(name, value)| Some((name.as_str(), value.as_f64()?)));
                    writer.scalars(
                        values.filter(|(name, _)| !["step", "iter", "epoch"].contains(name)),
                        step,
                    )?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_backend_writes_its_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let backends = [
            VisBackendConfig::LocalVisBackend(LocalVisBackendConfig::default()),
            VisBackendConfig::TensorboardVisBackend(TensorboardVisBackendConfig::default()),
        ];
        let mut sink = Sink::open(&backends, folder.path()).expect("opens");
        let scalars = serde_json::json!({"loss": 0.5, "step": 7});
        sink.write(scalars.as_object().expect("an object"), 7).expect("writes");
        let text = std::fs::read_to_string(folder.path().join("scalars.json")).expect("the file");
        assert_eq!(text, "{\"loss\":0.5,\"step\":7}\n");
        let files = std::fs::read_dir(folder.path()).expect("the folder").flatten();
        let events = files.filter(|entry| {
            entry.file_name().to_string_lossy().starts_with("events.out.tfevents.")
        });
        assert_eq!(events.count(), 1);
    }
}

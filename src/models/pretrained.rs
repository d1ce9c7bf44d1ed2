//! Where pretrained weights are: names that mmseg's configs use, torch's cache folder, and the way there.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use ureq::tls::{RootCerts, TlsConfig};

use super::ModelError;

/// Weights that a model wants to start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PretrainedSource {
    /// As the config names them: a path, `open-mmlab://NAME`, `torchvision://NAME` or an `https://` address.
    pub checkpoint: String,
    /// Only the file's keys that start with this are meant, and without it.
    pub prefix: Option<String>,
    /// What to put before the file's keys to get the model's: `backbone.`, or nothing for a whole model.
    pub target: String,
}

/// Names of backbones, as mmengine's `openmmlab.json` has them, and their files.
const OPEN_MMLAB: &[(&str, &str)] = &[
    ("resnet18_v1c", "resnet18_v1c-b5776b93.pth"),
    ("resnet50_v1c", "resnet50_v1c-2cccc1ad.pth"),
    ("resnet101_v1c", "resnet101_v1c-e67eebb6.pth"),
    ("detectron/resnet50_caffe", "resnet50_caffe-788b5fa3.pth"),
    ("detectron/resnet101_caffe", "resnet101_caffe-3ad79236.pth"),
    ("detectron2/resnet50_caffe", "resnet50_msra-5891d200.pth"),
    ("detectron2/resnet101_caffe", "resnet101_msra-6cc46731.pth"),
    ("resnet50_caffe", "resnet50_caffe-788b5fa3.pth"),
    ("resnet101_caffe", "resnet101_caffe-3ad79236.pth"),
];

/// torchvision's ImageNet weights.
const TORCHVISION: &[(&str, &str)] = &[
    ("resnet18", "resnet18-f37072fd.pth"),
    ("resnet34", "resnet34-b627a593.pth"),
    ("resnet50", "resnet50-0676ba61.pth"),
    ("resnet101", "resnet101-63fe2227.pth"),
    ("resnet152", "resnet152-394f9c45.pth"),
];

const OPEN_MMLAB_ADDRESS: &str = "https://download.openmmlab.com/pretrain/third_party/";
const TORCHVISION_ADDRESS: &str = "https://download.pytorch.org/models/";

/// The folder in which torch keeps checkpoints, from the variables that torch asks too: `TORCH_HOME`, `XDG_CACHE_HOME`, `HOME`.
pub fn hub_checkpoints(variable: impl Fn(&str) -> Option<String>) -> PathBuf {
    let set = |name| variable(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    let cache = || set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache"))).unwrap_or_else(|| ".cache".into());
    set("TORCH_HOME").unwrap_or_else(|| cache().join("torch")).join("hub/checkpoints")
}

/// A file to be had from the network.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Remote {
    address: String,
    file: String,
}

impl PretrainedSource {
    pub(super) fn new(checkpoint: &str, prefix: Option<String>, target: &str) -> Self {
        // A prefix is a level of the state dict, with or without its dot.
        let prefix = prefix.map(|it| format!("{}.", it.trim_end_matches('.')));
        Self { checkpoint: checkpoint.to_owned(), prefix, target: target.to_owned() }
    }

    fn error(&self, problem: impl Into<String>) -> ModelError {
        ModelError::Pretrained { checkpoint: self.checkpoint.clone(), problem: problem.into() }
    }

    fn remote(&self) -> Result<Option<Remote>, ModelError> {
        let listed = |scheme: &str, list: &[(&str, &str)], address: &str, name: &str| match list.iter().find(|it| it.0 == name) {
            Some((_, file)) => Ok(Some(Remote { address: format!("{address}{file}"), file: (*file).to_owned() })),
            None => {
                let names: Vec<_> = list.iter().map(|it| it.0).collect();
                Err(self.error(format!("{scheme} has no such name; expected one of {}", names.join(", "))))
            }
        };
        if let Some(name) = self.checkpoint.strip_prefix("open-mmlab://").or_else(|| self.checkpoint.strip_prefix("openmmlab://"))
        {
            return listed("open-mmlab://", OPEN_MMLAB, OPEN_MMLAB_ADDRESS, name);
        }
        if let Some(name) = self.checkpoint.strip_prefix("torchvision://") {
            return listed("torchvision://", TORCHVISION, TORCHVISION_ADDRESS, name);
        }
        if self.checkpoint.starts_with("https://") {
            let file = self.checkpoint.split(['?', '#']).next().and_then(|it| it.rsplit('/').next()).unwrap_or_default();
            if file.is_empty() {
                return Err(self.error("the address names no file"));
            }
            return Ok(Some(Remote { address: self.checkpoint.clone(), file: file.to_owned() }));
        }
        match self.checkpoint.split_once("://") {
            Some((scheme, _)) => {
                Err(self.error(format!("`{scheme}://` is not known; expected a path, open-mmlab://, torchvision:// or https://")))
            }
            None => Ok(None),
        }
    }

    /// Where the file is, or will be once [`fetch`](Self::fetch)ed into `cache`. Only names are looked at.
    pub fn path(&self, cache: &Path) -> Result<PathBuf, ModelError> {
        Ok(self.remote()?.map_or_else(|| PathBuf::from(&self.checkpoint), |it| cache.join(it.file)))
    }

    /// The file on this machine, fetched into `cache` if it is not there yet; its hash is checked against the one in its
    /// name. One rank per machine should call this first.
    pub fn resolve(&self, cache: &Path) -> Result<PathBuf, ModelError> {
        let path = self.path(cache)?;
        let Some(remote) = self.remote()? else {
            return if path.is_file() { Ok(path) } else { Err(self.error("there is no such file")) };
        };
        if !path.is_file() {
            self.fetch(&remote, &path)?;
        }
        Ok(path)
    }

    fn fetch(&self, remote: &Remote, path: &Path) -> Result<(), ModelError> {
        let failed = |why: String| {
            self.error(format!("{why}; fetch {} on a machine that can, and put it at {}", remote.address, path.display()))
        };
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(|it| failed(format!("cannot make {}: {it}", folder.display())))?;
        let mut part = tempfile::NamedTempFile::new_in(folder)
            .map_err(|it| failed(format!("cannot write to {}: {it}", folder.display())))?;
        tracing::info!("fetching {} to {}", remote.address, path.display());
        let mut answer = agent().get(&remote.address).call().map_err(|it| failed(format!("cannot be fetched: {it}")))?;
        io::copy(&mut answer.body_mut().as_reader(), &mut part).map_err(|it| failed(format!("broke off: {it}")))?;
        part.as_file().sync_all().map_err(|it| failed(format!("cannot be written: {it}")))?;
        check_hash(part.path(), &remote.file).map_err(|it| match it {
            ModelError::Hash { expected, found, .. } => failed(format!("came with sha256 {found}…, expected {expected}…")),
            other => other,
        })?;
        part.persist(path).map_err(|it| failed(format!("cannot be put in place: {}", it.error)))?;
        Ok(())
    }
}

/// Trusts whom the machine trusts (`SSL_CERT_FILE` included), so that a site's own authority serves too.
fn agent() -> ureq::Agent {
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    ureq::Agent::config_builder().tls_config(tls).timeout_connect(Some(Duration::from_secs(30))).build().into()
}

/// Compares the file's sha256 with the start of it that torch's naming puts into `name` (`resnet18-f37072fd.pth`); a name
/// without one passes.
fn check_hash(path: &Path, name: &str) -> Result<(), ModelError> {
    let stem = name.split('.').next().unwrap_or(name);
    let Some((_, expected)) = stem.rsplit_once('-') else { return Ok(()) };
    if expected.len() < 8 || !expected.bytes().all(|it| it.is_ascii_hexdigit()) {
        return Ok(());
    }
    let unreadable =
        |it: io::Error| ModelError::Pretrained { checkpoint: name.to_owned(), problem: format!("cannot be read: {it}") };
    let mut file = File::open(path).map_err(unreadable)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        let count = file.read(&mut buffer).map_err(unreadable)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
    }
    let found: String = hash.finalize().iter().map(|it| format!("{it:02x}")).collect();
    if found.starts_with(&expected.to_ascii_lowercase()) {
        return Ok(());
    }
    let found = found[..expected.len()].to_owned();
    Err(ModelError::Hash { path: path.to_owned(), expected: expected.to_owned(), found })
}

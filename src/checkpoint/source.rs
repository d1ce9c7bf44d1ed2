//! Where a checkpoint is: every way in which `pretrained`, `load_from`, `--resume` and `segslurm
//! test` may name one, torch's cache folder, and the way there.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use ureq::tls::{RootCerts, TlsConfig};

use super::{CheckpointError, last_checkpoint};

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
    ("resnest50", "resnest50_d2-7497a55b.pth"),
    ("resnest101", "resnest101_d2-f3b931b2.pth"),
    ("resnext50_32x4d", "resnext50-32x4d-0ab1a123.pth"),
    ("resnext101_32x4d", "resnext101_32x4d-a5af3160.pth"),
    ("resnext101_64x4d", "resnext101_64x4d-ee2c6f71.pth"),
    ("msra/hrnetv2_w18_small", "hrnetv2_w18_small-b5a04e21.pth"),
    ("msra/hrnetv2_w18", "hrnetv2_w18-00eb2006.pth"),
    ("msra/hrnetv2_w32", "hrnetv2_w32-dc9eeb4f.pth"),
    ("msra/hrnetv2_w40", "hrnetv2_w40-ed0b031c.pth"),
    ("msra/hrnetv2_w48", "hrnetv2_w48-d2186c55.pth"),
    ("contrib/mobilenet_v3_large", "mobilenet_v3_large-bc2c3fd3.pth"),
    ("contrib/mobilenet_v3_small", "mobilenet_v3_small-47085aa1.pth"),
];

/// Names of mmpretrain's backbones, as mmengine's `mmcls.json` has them, and their places.
const MMCLS: &[(&str, &str)] =
    &[("mobilenet_v2", "mobilenet_v2/mobilenet_v2_batch256_imagenet_20200708-3b2dc3af.pth")];

/// torchvision's ImageNet weights.
const TORCHVISION: &[(&str, &str)] = &[
    ("resnet18", "resnet18-f37072fd.pth"),
    ("resnet34", "resnet34-b627a593.pth"),
    ("resnet50", "resnet50-0676ba61.pth"),
    ("resnet101", "resnet101-63fe2227.pth"),
    ("resnet152", "resnet152-394f9c45.pth"),
];

const OPEN_MMLAB_ADDRESS: &str = "https://download.openmmlab.com/pretrain/third_party/";
const MMCLS_ADDRESS: &str = "https://download.openmmlab.com/mmclassification/v0/";
const TORCHVISION_ADDRESS: &str = "https://download.pytorch.org/models/";

/// Folders that names of checkpoints refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    /// In which torch keeps fetched checkpoints.
    pub hub: PathBuf,
    /// What `~` stands for.
    pub home: Option<PathBuf>,
}

impl Places {
    /// The folders of a process, from the variables that torch asks too: `TORCH_HOME`,
    /// `XDG_CACHE_HOME`, `HOME`.
    pub(crate) fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name| variable(name).filter(|it| !it.is_empty()).map(PathBuf::from);
        let home = set("HOME");
        let cache = || {
            set("XDG_CACHE_HOME")
                .or_else(|| Some(home.as_ref()?.join(".cache")))
                .unwrap_or_else(|| ".cache".into())
        };
        let hub =
            set("TORCH_HOME").unwrap_or_else(|| cache().join("torch")).join("hub/checkpoints");
        Self { hub, home }
    }
}

/// A file to be had from the network.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Remote {
    address: String,
    file: String,
}

/// A checkpoint as a config or a command line names it: a path, `open-mmlab://NAME`,
/// `torchvision://NAME` or an `https://` address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    name: String,
    location: Location,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Location {
    Path(PathBuf),
    /// The file, and its place in the cache.
    Remote(Remote, PathBuf),
}

impl Source {
    /// What a name means. Nothing is looked at but the name.
    pub(crate) fn parse(named: &Path, places: &Places) -> Result<Self, CheckpointError> {
        let name = named.to_string_lossy().into_owned();
        let source = Self { name, location: Location::Path(named.to_owned()) };
        // A path that is no text has no scheme.
        let Some(text) = named.to_str() else { return Ok(source) };
        let location = match source.remote(text)? {
            Some(remote) => {
                let cached = places.hub.join(&remote.file);
                Location::Remote(remote, cached)
            }
            None => Location::Path(source.expand(text, places)?),
        };
        Ok(Self { location, ..source })
    }

    fn error(&self, problem: impl Into<String>) -> CheckpointError {
        CheckpointError::Missing { name: self.name.clone(), problem: problem.into() }
    }

    fn remote(&self, text: &str) -> Result<Option<Remote>, CheckpointError> {
        let listed = |scheme: &str, list: &[(&str, &str)], address: &str, name: &str| match list
            .iter()
            .find(|it| it.0 == name)
        {
            Some((_, path)) => {
                let file = path.rsplit('/').next().unwrap_or(path);
                Ok(Some(Remote { address: format!("{address}{path}"), file: file.to_owned() }))
            }
            None => {
                let names: Vec<_> = list.iter().map(|it| it.0).collect();
                Err(self.error(format!(
                    "{scheme} has no such name; expected one of {}",
                    names.join(", ")
                )))
            }
        };
        if let Some(name) =
            text.strip_prefix("open-mmlab://").or_else(|| text.strip_prefix("openmmlab://"))
        {
            return listed("open-mmlab://", OPEN_MMLAB, OPEN_MMLAB_ADDRESS, name);
        }
        if let Some(name) = text.strip_prefix("torchvision://") {
            return listed("torchvision://", TORCHVISION, TORCHVISION_ADDRESS, name);
        }
        if let Some(name) = text.strip_prefix("mmcls://") {
            return listed("mmcls://", MMCLS, MMCLS_ADDRESS, name);
        }
        if text.starts_with("https://") {
            let file = text
                .split(['?', '#'])
                .next()
                .and_then(|it| it.rsplit('/').next())
                .unwrap_or_default();
            if file.is_empty() {
                return Err(self.error("the address names no file"));
            }
            return Ok(Some(Remote { address: text.to_owned(), file: file.to_owned() }));
        }
        match text.split_once("://") {
            Some((scheme, _)) => Err(self.error(format!(
                "`{scheme}://` is not known; expected a path, open-mmlab://, torchvision://, \
                 mmcls:// or https://"
            ))),
            None => Ok(None),
        }
    }

    fn expand(&self, text: &str, places: &Places) -> Result<PathBuf, CheckpointError> {
        match text.strip_prefix('~') {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                let home = places
                    .home
                    .as_ref()
                    .ok_or_else(|| self.error("`~` stands for HOME, which is not set"))?;
                Ok(home.join(rest.trim_start_matches('/')))
            }
            Some(rest) if !Path::new(text).exists() => {
                let user = rest.split('/').next().unwrap_or_default();
                Err(self.error(format!(
                    "`~{user}`: other users' folders are not looked up; write the whole path"
                )))
            }
            _ => Ok(PathBuf::from(text)),
        }
    }

    /// Whether the file comes from the network to each machine; else it is one path for all.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.location, Location::Remote(..))
    }

    /// The file on this machine: for a path the one that it means; a fetched one, if it is there
    /// already.
    pub(crate) fn local(&self) -> Result<Option<PathBuf>, CheckpointError> {
        match &self.location {
            Location::Path(path) => self.find(path).map(Some),
            Location::Remote(_, cached) => Ok(cached.is_file().then(|| cached.clone())),
        }
    }

    /// The file on this machine, fetched into the cache if it is not there yet; its hash is checked
    /// against the one in its name. One rank of a machine calls this before the others.
    pub(crate) fn fetched(&self) -> Result<PathBuf, CheckpointError> {
        if let Some(path) = self.local()? {
            return Ok(path);
        }
        match &self.location {
            Location::Remote(remote, path) => self.fetch(remote, path).map(|()| path.clone()),
            Location::Path(path) => Ok(path.clone()),
        }
    }

    /// The file that a path means: itself; the one of a folder; or the one with the other suffix
    /// beside it.
    fn find(&self, path: &Path) -> Result<PathBuf, CheckpointError> {
        if path.is_dir() {
            return self.in_folder(path);
        }
        // The file that names the newest leads to it.
        if path.file_name().is_some_and(|it| it == "last_checkpoint")
            && let Some(folder) = path.parent()
            && let Some(last) =
                last_checkpoint(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
        {
            return Ok(last);
        }
        // Also a pipe or a device: whatever can be read.
        if path.exists() {
            return Ok(path.to_owned());
        }
        let beside: Vec<PathBuf> = other_names(path);
        if let Some(found) = beside.iter().find(|it| it.is_file()) {
            tracing::info!("{} is not there: taking {} beside it", path.display(), found.display());
            return Ok(found.clone());
        }
        Err(self.error(absence(path, &beside)))
    }

    /// The checkpoint of a folder: the one that `last_checkpoint` names, or the only one. Among
    /// several it is not guessed.
    fn in_folder(&self, folder: &Path) -> Result<PathBuf, CheckpointError> {
        let mut files = checkpoints(folder)
            .map_err(|error| self.error(format!("the folder cannot be read: {error}")))?;
        let (chosen, why) = match (last_checkpoint(folder), files.len()) {
            (Some(last), _) => (last, "which last_checkpoint names"),
            (None, 1) => (files.remove(0), "the only checkpoint in it"),
            (None, 0) => return Err(self.error("it is a folder, and no checkpoint is in it")),
            (None, count) => {
                files.sort_by_key(|it| fs::metadata(it).and_then(|it| it.modified()).ok());
                let newest = files.last().map(|it| it.display().to_string()).unwrap_or_default();
                return Err(self.error(format!(
                    "it is a folder with {count} checkpoints; name one, such as the newest, \
                     {newest}"
                )));
            }
        };
        tracing::info!("{} is a folder: taking {}, {why}", folder.display(), chosen.display());
        Ok(chosen)
    }

    fn fetch(&self, remote: &Remote, path: &Path) -> Result<(), CheckpointError> {
        let failed = |why: String| {
            self.error(format!(
                "{why}; fetch {} on a machine that can, and put it at {}",
                remote.address,
                path.display()
            ))
        };
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)
            .map_err(|it| failed(format!("cannot make {}: {it}", folder.display())))?;
        let mut part = tempfile::NamedTempFile::new_in(folder)
            .map_err(|it| failed(format!("cannot write to {}: {it}", folder.display())))?;
        tracing::info!("fetching {} to {}", remote.address, path.display());
        let mut answer = agent()
            .get(&remote.address)
            .call()
            .map_err(|it| failed(format!("cannot be fetched: {it}")))?;
        io::copy(&mut answer.body_mut().as_reader(), &mut part)
            .map_err(|it| failed(format!("broke off: {it}")))?;
        part.as_file().sync_all().map_err(|it| failed(format!("cannot be written: {it}")))?;
        check_hash(part.path(), &remote.file).map_err(|it| match it {
            CheckpointError::Hash { expected, found, .. } => {
                failed(format!("came with sha256 {found}…, expected {expected}…"))
            }
            other => other,
        })?;
        part.persist(path).map_err(|it| failed(format!("cannot be put in place: {}", it.error)))?;
        Ok(())
    }
}

/// Suffixes of checkpoints, ours first.
const SUFFIXES: [&str; 3] = ["safetensors", "pth", "pt"];

fn is_checkpoint(path: &Path) -> bool {
    path.is_file() && path.extension().is_some_and(|it| SUFFIXES.iter().any(|suffix| it == *suffix))
}

fn checkpoints(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    Ok(entries.into_iter().map(|it| it.path()).filter(|it| is_checkpoint(it)).collect())
}

/// The same name with the other suffixes of checkpoints: in place of its own, or behind it where
/// its own is none of them (a dot may be part of a name).
fn other_names(path: &Path) -> Vec<PathBuf> {
    let Some(name) = path.file_name() else { return Vec::new() };
    let suffixed = path.extension().is_some_and(|it| SUFFIXES.iter().any(|suffix| it == *suffix));
    let stem = if suffixed { path.file_stem().unwrap_or(name) } else { name };
    let with = |suffix: &str| {
        let mut name = stem.to_owned();
        name.push(format!(".{suffix}"));
        path.with_file_name(name)
    };
    SUFFIXES.into_iter().map(with).filter(|it| it != path).collect()
}

/// Why there is no file at `path`: what was looked for, where, and what is there under a name like
/// it.
fn absence(path: &Path, beside: &[PathBuf]) -> String {
    let name = |path: &Path| {
        path.file_name().map(|it| it.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut told = if folder.is_dir() {
        let tried: Vec<_> = beside.iter().map(|it| name(it)).collect();
        format!("does not exist, nor {} in {}", tried.join(" or "), folder.display())
    } else {
        let there = folder
            .ancestors()
            .find(|it| it.is_dir() && !it.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        format!(
            "does not exist: there is no folder {} ({} is there)",
            folder.display(),
            there.display()
        )
    };
    let mut near: Vec<_> =
        checkpoints(folder).unwrap_or_default().iter().map(|it| name(it)).collect();
    let wanted = name(path);
    near.sort_by(|left, right| {
        strsim::jaro_winkler(right, &wanted).total_cmp(&strsim::jaro_winkler(left, &wanted))
    });
    if !near.is_empty() {
        near.truncate(3);
        told.push_str(&format!("; checkpoints there: {}", near.join(", ")));
    }
    if path.to_string_lossy().contains('$') {
        told.push_str("; environment variables in it are not expanded");
    }
    told
}

/// Trusts whom the machine trusts (`SSL_CERT_FILE` included), so that a site's own authority serves
/// too.
fn agent() -> ureq::Agent {
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    ureq::Agent::config_builder()
        .tls_config(tls)
        .timeout_connect(Some(Duration::from_secs(30)))
        .build()
        .into()
}

/// Compares the file's sha256 with the start of it that torch's naming puts into `name`
/// (`resnet18-f37072fd.pth`); a name without one passes.
fn check_hash(path: &Path, name: &str) -> Result<(), CheckpointError> {
    let stem = name.split('.').next().unwrap_or(name);
    let Some((_, expected)) = stem.rsplit_once('-') else { return Ok(()) };
    if expected.len() < 8 || !expected.bytes().all(|it| it.is_ascii_hexdigit()) {
        return Ok(());
    }
    let unreadable = |it: io::Error| CheckpointError::Missing {
        name: name.to_owned(),
        problem: format!("cannot be read: {it}"),
    };
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
    Err(CheckpointError::Hash { path: path.to_owned(), expected: expected.to_owned(), found })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(home: &Path) -> Places {
        Places { hub: home.join("hub"), home: Some(home.to_owned()) }
    }

    fn local(name: impl AsRef<Path>, home: &Path) -> Result<Option<PathBuf>, String> {
        Source::parse(name.as_ref(), &places(home))
            .and_then(|it| it.local())
            .map_err(|it| it.to_string())
    }

    #[test]
    fn a_folder_or_another_suffix_or_the_home_leads_to_the_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let place = |name: &str| folder.path().join(name);
        for name in ["iter_4.safetensors", "iter_8.safetensors", "v1.5.pth"] {
            fs::write(place(name), "x").expect("writes");
        }
        let found = |name: &str| local(place(name), folder.path()).expect("found").expect("here");
        assert_eq!(found("iter_4.safetensors"), place("iter_4.safetensors"));
        assert_eq!(found("iter_4.pth"), place("iter_4.safetensors"));
        assert_eq!(found("iter_4"), place("iter_4.safetensors"));
        assert_eq!(found("v1.5"), place("v1.5.pth"));
        assert_eq!(local("~/iter_8.pth", folder.path()), Ok(Some(place("iter_8.safetensors"))));

        let message = local(folder.path(), folder.path()).expect_err("one of three");
        assert!(
            message.contains("a folder with 3 checkpoints") && message.contains("v1.5.pth"),
            "{message}"
        );
        // Of a work dir that was moved, the file of that name in it.
        fs::write(place("last_checkpoint"), "/elsewhere/iter_8.safetensors\n").expect("writes");
        assert_eq!(local("~", folder.path()), Ok(Some(place("iter_8.safetensors"))));
        fs::create_dir(place("one")).expect("a folder");
        assert!(
            local(place("one"), folder.path())
                .expect_err("empty")
                .contains("no checkpoint is in it")
        );
        fs::write(place("one/a.pth"), "x").expect("writes");
        assert_eq!(found("one"), place("one/a.pth"));
    }

    #[test]
    fn what_is_not_there_is_told_with_where_it_was_looked_for_and_what_is_near() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("iter_40000.safetensors"), "x").expect("writes");
        let message =
            |name: &str| local(folder.path().join(name), folder.path()).expect_err("not there");
        let told = message("iter_4000.pth");
        let words = [
            "iter_4000.safetensors or iter_4000.pt in",
            "checkpoints there: iter_40000.safetensors",
        ];
        assert!(words.iter().all(|it| told.contains(it)), "{told}");
        let told = message("work/iter_1.pth");
        assert!(
            told.contains("no folder")
                && told.contains(&format!("({} is there)", folder.path().display())),
            "{told}"
        );
        assert!(message("$HOME.pth").contains("environment variables in it are not expanded"));
        assert!(local("~nobody/x.pth", folder.path()).expect_err("a user").contains("`~nobody`"));
    }

    #[test]
    fn schemes_lead_to_the_cache_and_unknown_ones_are_named() {
        let home = Path::new("/home/me");
        let way =
            |name: &str| Source::parse(Path::new(name), &places(home)).map_err(|it| it.to_string());
        for (name, file) in [
            ("open-mmlab://resnet50_v1c", "resnet50_v1c-2cccc1ad.pth"),
            ("torchvision://resnet18", "resnet18-f37072fd.pth"),
            ("https://host/a/b.pth?x=1", "b.pth"),
        ] {
            let Location::Remote(_, cached) = way(name).expect("known").location else {
                panic!("{name} is a path")
            };
            assert_eq!(cached, home.join("hub").join(file));
        }
        for name in
            ["s3://bucket/a.pth", "http://host/a.pth", "open-mmlab://resnet5", "https://host/"]
        {
            let told = way(name).expect_err("not known");
            assert!(told.contains(name), "{told}");
        }
    }
}

//! Site profiles: what one cluster wants, kept in YAML, so that command lines are the same on every
//! cluster.
//!
//! A profile is chosen by name, or by the ClusterName that the controller reports. Profiles lie in
//! the user's folder and in `slurm/sites/` of the current one; of two with the same name the user's
//! wins.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use crate::excerpt::{line, quoted};
use crate::exit::{Exit, Exits};

use super::options::{self, OPTIONS, Row, ValueKind};

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    #[error("no site profile {name:?}: {}", if .known.is_empty() {
        format!("there is none at all in {}", list(.folders))
    } else {
        format!("found {} in {}", .known.join(", "), list(.folders))
    })]
    Unknown { name: String, known: Vec<String>, folders: Vec<PathBuf> },
    #[error("cannot read the site profile {}: {source}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {}", .path.display(), line(.message))]
    Wrong { path: PathBuf, message: String },
}

impl Exits for SiteError {
    fn exit(&self) -> Exit {
        if matches!(self, Self::Wrong { .. }) { Exit::Config } else { Exit::NoInput }
    }
}

fn list(folders: &[PathBuf]) -> String {
    folders.iter().map(|it| it.display().to_string()).collect::<Vec<_>>().join(" or ")
}

/// How a cluster wants GPUs to be asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// `--gres=gpu:8`, on every node.
    #[default]
    Gres,
    /// `--gpus-per-node=8`.
    GpusPerNode,
    /// `--gpus-per-task=1`.
    GpusPerTask,
    /// Not at all: the cluster does not manage its GPUs, CUDA_VISIBLE_DEVICES says which to use.
    None,
}

/// How GPUs are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GpuRequest {
    pub dialect: Dialect,
    /// The kind of GPU, as in `--gres=gpu:a100:8`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// How much memory one has, `80G`: a training that will hardly fit is told of before it waits.
    pub memory: Option<Bytes>,
}

/// An amount of memory as Slurm writes it, with K, M, G or T for powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Bytes(pub u64);

impl TryFrom<String> for Bytes {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let wrong = || {
            format!(
                "{} is no amount of memory: expected a number with K, M, G or T, such as 80G",
                quoted(&text)
            )
        };
        let shift = match text.bytes().last().map(|it| it.to_ascii_uppercase()) {
            Some(b'K') => 10,
            Some(b'M') => 20,
            Some(b'G') => 30,
            Some(b'T') => 40,
            _ => return Err(wrong()),
        };
        let number: u64 = text[..text.len() - 1].trim().parse().map_err(|_| wrong())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(wrong)
    }
}

/// One profile. Every key is optional.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Site {
    /// Where it was read from.
    pub path: PathBuf,
    /// What it says of options of a job, by their flags, as the flags would have it.
    options: BTreeMap<&'static str, String>,
    keys: Keys,
}

impl Deref for Site {
    type Target = Keys;

    fn deref(&self) -> &Keys {
        &self.keys
    }
}

/// What only a profile says; its other keys are [`options`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Keys {
    /// ClusterNames that this profile is for, besides the file's own name.
    pub clusters: Vec<String>,
    pub gpu: GpuRequest,
    /// The partition that `-` on the command line stands for.
    pub partition: Option<String>,
    /// Any other option of Slurm's, by its long name.
    pub slurm: BTreeMap<String, String>,
    /// Shell lines before the ranks start, such as `module load cuda`.
    pub setup: Vec<String>,
    /// The segslurm that the ranks run, where it is another one than that which submits.
    pub program: Option<PathBuf>,
    /// The network interface between nodes, for Gloo and NCCL.
    pub network_interface: Option<String>,
    /// Ports that nodes may use among each other, `20000-20999`.
    pub ports: Option<String>,
    pub template: Templates,
}

/// Templates of the site's own, relative to the profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Templates {
    pub train: Option<PathBuf>,
    pub test: Option<PathBuf>,
}

impl Site {
    /// Reads a profile; a wrong or unknown key is an error with its line.
    pub fn load(path: &Path) -> Result<Self, SiteError> {
        let text = fs::read_to_string(path)
            .map_err(|source| SiteError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// The profile in `text`, which was read from `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, SiteError> {
        let wrong = |message: String| SiteError::Wrong { path: path.to_owned(), message };
        let malformed = |error: serde_yaml::Error| wrong(error.to_string());
        // A file of comments only is an empty profile.
        let Said(options) =
            serde_yaml::from_str::<Option<Said>>(text).map_err(malformed)?.unwrap_or_default();
        let keys =
            serde_yaml::from_str::<Option<Keys>>(text).map_err(malformed)?.unwrap_or_default();
        let mut site = Self { path: path.to_owned(), options, keys };
        let folder = path.parent().unwrap_or(Path::new(""));
        for template in
            [&mut site.keys.template.train, &mut site.keys.template.test].into_iter().flatten()
        {
            *template = folder.join(&template);
        }
        if let Some(ports) = &site.ports {
            port_range(ports).map_err(|why| wrong(format!("ports: {why}")))?;
        }
        Ok(site)
    }

    /// The profile called `name`, which may also be the path of a file.
    pub fn named(name: &str, folders: &[PathBuf]) -> Result<Self, SiteError> {
        if name.contains('/') || name.ends_with(".yaml") {
            return Self::load(Path::new(name));
        }
        let candidates = profiles(folders);
        match candidates.iter().find(|(known, _)| known == name) {
            Some((_, path)) => Self::load(path),
            None => {
                let known = candidates.into_iter().map(|(known, _)| known).collect();
                Err(SiteError::Unknown { name: name.to_owned(), known, folders: folders.to_vec() })
            }
        }
    }

    /// The profile for a cluster: the one that lists its ClusterName, or is called so.
    pub fn of_cluster(cluster: &str, folders: &[PathBuf]) -> Result<Option<Self>, SiteError> {
        for (name, path) in profiles(folders) {
            let site = Self::load(&path)?;
            if name == cluster || site.clusters.iter().any(|it| it == cluster) {
                return Ok(Some(site));
            }
        }
        Ok(None)
    }

    /// The value of the option with this flag, as the flag would have it.
    pub(super) fn option(&self, flag: &str) -> Option<String> {
        self.options.get(flag).cloned()
    }
}

/// The options among a profile's keys. A key that is neither one nor of [`Keys`] is an error at its
/// line.
#[derive(Default)]
struct Said(BTreeMap<&'static str, String>);

impl<'de> Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(SaidVisitor)
    }
}

struct SaidVisitor;

impl<'de> Visitor<'de> for SaidVisitor {
    type Value = Said;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("keys and values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Said, A::Error> {
        let mut said = BTreeMap::new();
        while let Some(Key(row)) = map.next_key()? {
            match row {
                Some(row) => said.extend(map.next_value_seed(Value(row))?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Said(said))
    }
}

/// Reads the value of an option, and says which flag it is the same as.
struct Value(&'static Row);

impl<'de> DeserializeSeed<'de> for Value {
    type Value = Option<(&'static str, String)>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl Visitor<'_> for Value {
    type Value = Option<(&'static str, String)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.kind {
            ValueKind::Number(_) => "a whole number",
            ValueKind::Text(_) => "a text",
            ValueKind::Switch => "true or false",
            ValueKind::SwitchOr(_) => "true, false or a text",
        })
    }

    fn visit_bool<E: Error>(self, on: bool) -> Result<Self::Value, E> {
        let contrary =
            || OPTIONS.iter().find(|it| it.flag.strip_prefix("no-") == Some(self.0.flag));
        match (self.0.kind, on) {
            (ValueKind::Switch | ValueKind::SwitchOr(_), true) => {
                Ok(Some((self.0.flag, String::new())))
            }
            (ValueKind::Switch | ValueKind::SwitchOr(_), false) => {
                Ok(contrary().map(|it| (it.flag, String::new())))
            }
            _ => Err(E::invalid_type(Unexpected::Bool(on), &self)),
        }
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        match self.0.kind {
            ValueKind::Number(_) | ValueKind::Text(_) => {
                Ok(Some((self.0.flag, number.to_string())))
            }
            _ => Err(E::invalid_type(Unexpected::Unsigned(number), &self)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        match self.0.kind {
            ValueKind::Text(_) | ValueKind::SwitchOr(_) => Ok(Some((self.0.flag, text.to_owned()))),
            _ => Err(E::invalid_type(Unexpected::Str(text), &self)),
        }
    }
}

/// A key of a profile, with its row where it is an option.
struct Key(Option<&'static Row>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Key, E> {
        let own = fields::<Keys>();
        match options::of_site(key) {
            None if own.contains(&key) => Ok(Key(None)),
            None => {
                let known = OPTIONS
                    .iter()
                    .filter(|it| it.site)
                    .map(Row::key)
                    .chain(own.iter().map(|it| (*it).to_owned()));
                Err(E::custom(format!(
                    "unknown field `{key}`, expected one of {}",
                    known.collect::<Vec<_>>().join(", ")
                )))
            }
            row => Ok(Key(row)),
        }
    }
}

/// The names of a struct's fields, as serde hands them to a reader.
fn fields<T: serde::de::DeserializeOwned>() -> &'static [&'static str] {
    struct Listener<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Listener<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(Self::Error::custom("only listening"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            Err(Self::Error::custom("only listening"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut fields: &[&str] = &[];
    let _ = T::deserialize(Listener(&mut fields));
    fields
}

/// Whether any folder holds a profile, so that it is worth asking for the cluster's name.
pub(crate) fn any(folders: &[PathBuf]) -> bool {
    !profiles(folders).is_empty()
}

/// Names and files of all profiles; `example.yaml` shows the keys and is none.
fn profiles(folders: &[PathBuf]) -> Vec<(String, PathBuf)> {
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    for folder in folders {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(folder).into_iter().flatten().flatten().map(|it| it.path()).collect();
        paths.sort();
        for path in paths.into_iter().filter(|it| it.extension().is_some_and(|it| it == "yaml")) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if name != "example" && !found.iter().any(|(known, _)| *known == name) {
                found.push((name, path));
            }
        }
    }
    found
}

/// First and last port of `20000-20999`.
pub(crate) fn port_range(text: &str) -> Result<(u16, u16), String> {
    let ends = text
        .split_once('-')
        .and_then(|(first, last)| Some((first.trim().parse().ok()?, last.trim().parse().ok()?)));
    match ends {
        Some((first, last)) if first > 0 && first <= last => Ok((first, last)),
        _ => Err(format!(
            "{} is no range of ports: expected FIRST-LAST, such as 20000-20999",
            quoted(text)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "clusters: [big]\ngpu: \
                           {dialect: gpus-per-node, type: a100, memory: 80G}\naccount: \
                           vision\ntime: 1-00:00:00\nsetup: [module load cuda]\nrequeue: \
                           false\nports: 20000-20999\ntemplate: {train: mine.j2}\n";

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("writes");
        }
        folder
    }

    #[test]
    fn a_profile_is_found_by_its_name_its_clusters_and_its_path() {
        let folder = folder(&[
            ("one.yaml", PROFILE),
            ("example.yaml", "nonsense: ["),
            ("two.yaml", "# nothing\n"),
        ]);
        let folders = [PathBuf::from("/does/not/exist"), folder.path().to_owned()];
        let site = Site::named("one", &folders).expect("there");
        assert_eq!(
            site.gpu,
            GpuRequest {
                dialect: Dialect::GpusPerNode,
                kind: Some("a100".to_owned()),
                memory: Some(Bytes(80 << 30))
            }
        );
        assert_eq!(site.option("account"), Some("vision".to_owned()));
        assert_eq!(
            (site.option("requeue"), site.option("no-requeue")),
            (None, Some(String::new()))
        );
        let times = Site::parse("time: 90\nexclusive: true\nmem: 64G\n", Path::new("x.yaml"))
            .expect("a site");
        assert_eq!(times.option("time"), Some("90".to_owned()), "a number is a time limit too");
        assert_eq!(
            (times.option("exclusive"), times.option("mem")),
            (Some(String::new()), Some("64G".to_owned()))
        );
        assert_eq!(site.template.train, Some(folder.path().join("mine.j2")));
        assert_eq!(Site::of_cluster("big", &folders).expect("reads"), Some(site));
        assert!(Site::of_cluster("two", &folders).expect("reads").is_some());
        assert_eq!(Site::of_cluster("three", &folders).expect("reads"), None);
        assert!(Site::named(&folder.path().join("two.yaml").to_string_lossy(), &[]).is_ok());
    }

    #[test]
    fn what_is_wrong_is_named_with_file_and_line() {
        let parse =
            |text: &str| Site::parse(text, Path::new("x.yaml")).expect_err("wrong").to_string();
        let error = parse("account: a\npartion: dev\n");
        assert!(
            error.contains("x.yaml: unknown field `partion`") && error.contains("line 2"),
            "{error}"
        );
        let error = parse("account: a\ngpus_per_node: many\n");
        let expected =
            "gpus_per_node: invalid type: string \"many\", expected a whole number at line 2";
        assert!(error.contains(expected), "{error}");
        assert!(
            parse("requeue: perhaps\n")
                .contains("requeue: invalid type: string \"perhaps\", expected true or false")
        );
        assert!(parse("mem: [1]\n").contains("mem: invalid type: sequence, expected a text"));
        assert!(parse("no_requeue: true\n").contains("unknown field `no_requeue`"));
        assert!(parse("gpu: {dialect: gress}").contains("unknown variant `gress`"));
        assert!(parse("gpu: {memory: 80}").contains("expected a number with K, M, G or T"));
        assert!(parse("gpu: {memory: 99999999999T}").contains("is no amount of memory"));
        assert!(parse("ports: 5-1").contains("expected FIRST-LAST"));
        let folder = folder(&[("one.yaml", "")]);
        let error =
            Site::named("other", &[folder.path().to_owned()]).expect_err("unknown").to_string();
        assert!(error.starts_with("no site profile \"other\": found one in "), "{error}");
    }
}

//! torch's `.pth` files, read without running their pickle code, and written so that torch reads
//! them back.

use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::Path;

use pytorch_reader::{DType, PytorchError, PytorchReader};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};
use zip::write::SimpleFileOptions;

use crate::rundir;

use super::archive::Archive;
use super::error::first_bytes;
use super::pickle::{Pickle, Place};
use super::{Checkpoint, CheckpointError, DatasetMeta, Meta, tensor_of};

/// Keys under which a checkpoint's weights may be, tried in this order; a bare state dict has none.
const WEIGHTS: [&str; 2] = ["state_dict", "model"];

type Tensors = Vec<(String, Tensor)>;

/// Reads weights and classes. Files since torch 1.6 are archives; the formats before it, and whole
/// modules in an archive, are left to a crate that knows them all. (It does not say in which order
/// names are, which an optimizer's state needs.)
pub(super) fn read(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let archived = first_bytes(path)?.starts_with(b"PK");
    let found = if archived {
        read_archive(path).map_err(|problem| no_checkpoint(path, &problem))?
    } else {
        None
    };
    let (tensors, dataset_meta) = match found {
        Some(found) => found,
        None => (read_foreign(path)?, dataset_meta(path)),
    };
    if tensors.is_empty() {
        return Err(CheckpointError::damaged(path, "it holds no tensors"));
    }
    // What DistributedDataParallel writes before every name.
    let plain = |(name, tensor): (String, Tensor)| {
        (name.strip_prefix("module.").unwrap_or(&name).to_owned(), tensor)
    };
    let model = tensors.into_iter().map(plain).collect();
    Ok(Checkpoint {
        model,
        meta: Meta { dataset_meta, ..Meta::default() },
        ..Checkpoint::default()
    })
}

fn no_checkpoint(path: &Path, problem: &str) -> CheckpointError {
    CheckpointError::damaged(path, format!("it is no checkpoint of torch's ({problem})"))
}

/// `None` where the archive has no dict of tensors.
fn read_archive(path: &Path) -> Result<Option<(Tensors, DatasetMeta)>, String> {
    let mut archive = Archive::open(path)?;
    let bytes = archive.pickle()?;
    let pickle = Pickle::read(&bytes)?;
    let tensors = archive.tensors(&pickle, weights(&pickle))?;
    Ok((!tensors.is_empty()).then(|| (tensors, classes(&pickle))))
}

/// The dict of weights: under one of the known keys, or the whole.
pub(super) fn weights(pickle: &Pickle<'_>) -> Place {
    let mut below = WEIGHTS.into_iter().filter_map(|key| pickle.get(pickle.root(), key));
    let holds = |place: &Place| !pickle.entries(*place).is_empty();
    below.find(holds).unwrap_or(pickle.root())
}

/// Classes and palette: mmengine's `dataset_meta`, or mmcv's of old.
fn classes(pickle: &Pickle<'_>) -> DatasetMeta {
    let Some(meta) = pickle.get(pickle.root(), "meta") else { return DatasetMeta::default() };
    let (place, [classes, palette]) = match pickle.get(meta, "dataset_meta") {
        Some(described) => (described, ["classes", "palette"]),
        None => (meta, ["CLASSES", "PALETTE"]),
    };
    let items = |key: &str| pickle.get(place, key).map_or(&[][..], |it| pickle.items(it));
    let text = |it: &Place| pickle.text(*it).map(ToOwned::to_owned);
    let colour = |it: &Place| {
        let parts: Option<Vec<u8>> =
            pickle.items(*it).iter().map(|it| u8::try_from(pickle.int(*it)?).ok()).collect();
        parts?.try_into().ok()
    };
    let classes = items(classes).iter().map(text).collect::<Option<_>>().unwrap_or_default();
    let palette = items(palette).iter().map(colour).collect::<Option<_>>().unwrap_or_default();
    DatasetMeta { classes, palette }
}

fn read_foreign(path: &Path) -> Result<Tensors, CheckpointError> {
    let reader = open(path)?;
    let mut tensors = Vec::with_capacity(reader.len());
    for (name, tensor) in reader.tensors() {
        let bytes = tensor
            .read()
            .map_err(|error| CheckpointError::damaged(path, format!("{name}: {error}")))?;
        let kind = kind(tensor.dtype()).ok_or_else(|| {
            CheckpointError::damaged(
                path,
                format!("{name} has the type {:?}, which no model here has", tensor.dtype()),
            )
        })?;
        let tensor = tensor_of(&bytes, tensor.shape(), kind)
            .map_err(|why| CheckpointError::damaged(path, format!("{name}: {why}")))?;
        tensors.push((name.clone(), tensor));
    }
    Ok(tensors)
}

fn open(path: &Path) -> Result<PytorchReader, CheckpointError> {
    for key in WEIGHTS {
        match PytorchReader::with_top_level_key(path, key) {
            Ok(reader) if !reader.is_empty() => return Ok(reader),
            Ok(_) | Err(PytorchError::KeyNotFound(_)) => {}
            Err(error) => return Err(no_checkpoint(path, &error.to_string())),
        }
    }
    PytorchReader::new(path).map_err(|error| no_checkpoint(path, &error.to_string()))
}

fn kind(dtype: DType) -> Option<Kind> {
    Some(match dtype {
        DType::F32 => Kind::Float,
        DType::F64 => Kind::Double,
        DType::F16 => Kind::Half,
        DType::BF16 => Kind::BFloat16,
        DType::I64 => Kind::Int64,
        DType::I32 => Kind::Int,
        DType::U8 => Kind::Uint8,
        DType::Bool => Kind::Bool,
        _ => return None,
    })
}

/// Classes and palette, where the file has them in a form that can be read without running code.
fn dataset_meta(path: &Path) -> DatasetMeta {
    #[derive(Deserialize)]
    struct MetaOfMmengine {
        dataset_meta: Option<Described>,
        #[serde(rename = "CLASSES")]
        old_classes: Option<Vec<String>>,
        #[serde(rename = "PALETTE")]
        old_palette: Option<Vec<[u8; 3]>>,
    }
    #[derive(Deserialize)]
    struct Described {
        classes: Option<Vec<String>>,
        palette: Option<Vec<[u8; 3]>>,
    }
    let Ok(meta) = PytorchReader::load_config::<MetaOfMmengine, _>(path, Some("meta")) else {
        return DatasetMeta::default();
    };
    let (classes, palette) = match meta.dataset_meta {
        Some(described) => (described.classes, described.palette),
        None => (meta.old_classes, meta.old_palette),
    };
    DatasetMeta { classes: classes.unwrap_or_default(), palette: palette.unwrap_or_default() }
}

pub(super) fn write(checkpoint: &Checkpoint, path: &Path) -> Result<(), CheckpointError> {
    store(checkpoint, path).map_err(|source| CheckpointError::write(path, source))
}

fn store(checkpoint: &Checkpoint, path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = rundir::unfinished(folder)?;
    archive(checkpoint, BufWriter::new(file.as_file()))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

/// The zip that torch expects: one folder with the pickle, one stored entry a tensor (64-byte
/// aligned, so that torch can map it), the byte order and the format's version.
fn archive(checkpoint: &Checkpoint, sink: impl Write + Seek) -> io::Result<()> {
    let mut zip = zip::ZipWriter::new(sink);
    let stored = SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Stored)
        .with_alignment(64);
    zip.start_file("archive/data.pkl", stored)?;
    zip.write_all(&pickle(checkpoint)?)?;
    zip.start_file("archive/byteorder", stored)?;
    zip.write_all(b"little")?;
    for (index, tensor) in checkpoint.model.values().enumerate() {
        let tensor = tensor.to_device(Device::Cpu).contiguous();
        let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
        tensor.copy_data_u8(&mut bytes, tensor.numel());
        zip.start_file(format!("archive/data/{index}"), stored)?;
        zip.write_all(&bytes)?;
    }
    zip.start_file("archive/version", stored)?;
    zip.write_all(b"3\n")?;
    zip.finish()?.flush()
}

/// `{'meta': {'dataset_meta': {…}, 'epoch': 0, 'iter': n}, 'state_dict': {name: tensor, …}}` in
/// pickle's protocol 2, with no class but torch's own storages and the function that rebuilds a
/// tensor on one: what the default `torch.load` allows.
fn pickle(checkpoint: &Checkpoint) -> io::Result<Vec<u8>> {
    let mut pickle = PickleWriter(vec![0x80, 2]);
    let DatasetMeta { classes, palette } = &checkpoint.meta.dataset_meta;
    pickle.dict(|pickle| {
        if checkpoint.meta != Meta::default() {
            pickle.text("meta");
            pickle.dict(|pickle| {
                pickle.text("dataset_meta");
                pickle.dict(|pickle| {
                    pickle.text("classes");
                    pickle.list(classes, |pickle, class| pickle.text(class));
                    pickle.text("palette");
                    pickle.list(palette, |pickle, colour| {
                        pickle.list(colour, |pickle, &part| pickle.int(i64::from(part)));
                    });
                });
                // mmengine's own have both; runs here count in iterations.
                if let Some(iteration) = checkpoint.meta.iteration() {
                    for (name, value) in [("epoch", 0), ("iter", iteration)] {
                        pickle.text(name);
                        pickle.int(value);
                    }
                }
            });
        }
        pickle.text("state_dict");
        pickle.dict(|pickle| {
            for (index, (name, tensor)) in checkpoint.model.iter().enumerate() {
                pickle.text(name);
                pickle.tensor(index, tensor)?;
            }
            Ok::<_, io::Error>(())
        })
    })?;
    pickle.0.push(b'.');
    Ok(pickle.0)
}

/// A pickle in the making: one method a kind of value, each writing pickle's opcodes (CPython's
/// `Lib/pickletools.py`).
struct PickleWriter(Vec<u8>);

impl PickleWriter {
    fn dict<T>(&mut self, items: impl FnOnce(&mut Self) -> T) -> T {
        self.0.extend(b"}(");
        let result = items(self);
        self.0.push(b'u');
        result
    }

    fn list<T>(&mut self, items: &[T], mut item: impl FnMut(&mut Self, &T)) {
        self.0.extend(b"](");
        items.iter().for_each(|it| item(self, it));
        self.0.push(b'e');
    }

    fn tuple(&mut self, items: impl IntoIterator<Item = i64>) {
        self.0.push(b'(');
        items.into_iter().for_each(|it| self.int(it));
        self.0.push(b't');
    }

    fn text(&mut self, text: &str) {
        self.0.push(b'X');
        self.0.extend((text.len() as u32).to_le_bytes());
        self.0.extend(text.as_bytes());
    }

    fn int(&mut self, value: i64) {
        // LONG1: a length and a little-endian two's complement, for any size.
        self.0.extend([0x8a, 8]);
        self.0.extend(value.to_le_bytes());
    }

    fn global(&mut self, module: &str, name: &str) {
        self.0.extend(format!("c{module}\n{name}\n").into_bytes());
    }

    fn tensor(&mut self, index: usize, tensor: &Tensor) -> io::Result<()> {
        let storage = match tensor.kind() {
            Kind::Float => "FloatStorage",
            Kind::Double => "DoubleStorage",
            Kind::Half => "HalfStorage",
            Kind::BFloat16 => "BFloat16Storage",
            Kind::Int64 => "LongStorage",
            Kind::Int => "IntStorage",
            Kind::Uint8 => "ByteStorage",
            Kind::Bool => "BoolStorage",
            other => {
                return Err(io::Error::other(format!(
                    "a tensor of type {other:?} has no storage that torch reads"
                )));
            }
        };
        let size = tensor.size();
        let mut strides = vec![1; size.len()];
        for place in (1..size.len()).rev() {
            strides[place - 1] = strides[place] * size[place];
        }
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.0.extend(b"((");
        self.text("storage");
        self.global("torch", storage);
        self.text(&index.to_string());
        self.text("cpu");
        self.int(tensor.numel() as i64);
        self.0.extend(b"tQ");
        self.int(0);
        self.tuple(size);
        self.tuple(strides);
        // requires_grad, and no hooks.
        self.0.push(0x89);
        self.global("collections", "OrderedDict");
        self.0.extend(b")RtR");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Checkpoint {
        let mut checkpoint = Checkpoint::default();
        checkpoint.model.insert(
            "conv.weight".to_owned(),
            Tensor::from_slice(&[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0]).view([2, 3]),
        );
        checkpoint
            .model
            .insert("bn.num_batches_tracked".to_owned(), Tensor::from_slice(&[300_i64]).squeeze());
        checkpoint.meta.dataset_meta = DatasetMeta {
            classes: vec!["wall".to_owned(), "sky".to_owned()],
            palette: vec![[1, 2, 3], [255, 0, 128]],
        };
        checkpoint
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("model.pth");
        let written = example();
        written.write_pth(&path).expect("writes");
        let read = Checkpoint::read(&path).expect("reads");
        assert_eq!(read.meta.dataset_meta, written.meta.dataset_meta);
        for (name, tensor) in &written.model {
            assert_eq!(read.model[name].size(), tensor.size(), "{name}");
            assert!(read.model[name].equal(tensor), "{name}");
        }
    }

    #[test]
    fn a_cut_archive_is_an_error() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("model.pth");
        example().write_pth(&path).expect("writes");
        let whole = std::fs::read(&path).expect("the file");
        for length in [0, 3, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).expect("writes");
            assert!(Checkpoint::read(&path).is_err(), "{length} bytes");
        }
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), zip in proptest::bool::ANY) {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let path = folder.path().join("model.pth");
            let start: &[u8] = if zip { b"PK\x03\x04" } else { b"\x80\x02" };
            std::fs::write(&path, [start, &bytes].concat()).expect("writes");
            proptest::prop_assert!(Checkpoint::read(&path).is_err());
        }
    }
}

//! Our own checkpoints: safetensors, with the run's state in the header and a checksum over all
//! that the file says.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata, TensorView};
use safetensors::{SafeTensors, serialize_to_file};
use tch::{Device, Kind, Tensor};

use crate::rundir;

use super::{Checkpoint, CheckpointError, Meta, StateDict, tensor_of};

/// Stands before the name of a tensor of the optimizer's; no model has such a name.
const OPTIMIZER: &str = "optimizer.";

/// Stands before the name of a trained weight beside its average, as in mmengine's files.
const TRAINED: &str = "ema_state_dict.module.";

/// Keys of the header's metadata.
const META: &str = "segslurm";
const CHECKSUM: &str = "segslurm.crc32";

const KINDS: [(Kind, Dtype); 8] = [
    (Kind::Float, Dtype::F32),
    (Kind::Double, Dtype::F64),
    (Kind::Half, Dtype::F16),
    (Kind::BFloat16, Dtype::BF16),
    (Kind::Int64, Dtype::I64),
    (Kind::Int, Dtype::I32),
    (Kind::Uint8, Dtype::U8),
    (Kind::Bool, Dtype::BOOL),
];

struct Encoded {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn encode(name: String, tensor: &Tensor) -> io::Result<Encoded> {
    let kind = tensor.kind();
    let dtype = KINDS.iter().find(|(of, _)| *of == kind).map(|(_, dtype)| *dtype);
    let dtype = dtype.ok_or_else(|| {
        io::Error::other(format!("{name} has the type {kind:?}, which a checkpoint cannot hold"))
    })?;
    let shape = tensor.size().iter().map(|&size| size as usize).collect();
    let tensor = tensor.to_device(Device::Cpu).contiguous();
    let mut bytes = vec![0; tensor.numel() * kind.elt_size_in_bytes()];
    tensor.copy_data_u8(&mut bytes, tensor.numel());
    Ok(Encoded { name, dtype, shape, bytes })
}

/// A tensor as the checksum sees it.
struct Content<'a> {
    name: &'a str,
    dtype: Dtype,
    shape: &'a [usize],
    bytes: &'a [u8],
}

/// A checksum over the metadata (but itself) and over every tensor's name, type, shape and bytes,
/// in the order of names.
fn checksum(metadata: &HashMap<String, String>, mut tensors: Vec<Content<'_>>) -> String {
    let mut hasher = crc32fast::Hasher::new();
    let mut entries: Vec<_> = metadata.iter().filter(|(key, _)| *key != CHECKSUM).collect();
    entries.sort_unstable();
    for text in entries.into_iter().flat_map(|(key, value)| [key, value]) {
        hasher.update(&text.len().to_le_bytes());
        hasher.update(text.as_bytes());
    }
    tensors.sort_unstable_by_key(|it| it.name);
    for Content { name, dtype, shape, bytes } in tensors {
        hasher.update(format!("{name} {dtype:?} {shape:?}").as_bytes());
        hasher.update(bytes);
    }
    format!("{:08x}", hasher.finalize())
}

pub(super) fn write(checkpoint: &Checkpoint, path: &Path) -> Result<(), CheckpointError> {
    store(checkpoint, path).map_err(|source| CheckpointError::write(path, source))
}

fn store(checkpoint: &Checkpoint, path: &Path) -> io::Result<()> {
    let model = checkpoint.model.iter().map(|(name, tensor)| encode(name.clone(), tensor));
    let optimizer = checkpoint
        .optimizer
        .iter()
        .map(|(name, tensor)| encode(format!("{OPTIMIZER}{name}"), tensor));
    let trained =
        checkpoint.trained.iter().map(|(name, tensor)| encode(format!("{TRAINED}{name}"), tensor));
    let tensors: Vec<_> = model.chain(optimizer).chain(trained).collect::<io::Result<_>>()?;

    let meta = serde_json::to_string(&checkpoint.meta)?;
    let mut metadata =
        HashMap::from([(META.to_owned(), meta), ("format".to_owned(), "pt".to_owned())]);
    let contents = tensors
        .iter()
        .map(|it| Content { name: &it.name, dtype: it.dtype, shape: &it.shape, bytes: &it.bytes })
        .collect();
    metadata.insert(CHECKSUM.to_owned(), checksum(&metadata, contents));
    let views: Vec<_> = tensors
        .iter()
        .map(|it| {
            TensorView::new(it.dtype, it.shape.clone(), &it.bytes)
                .map(|view| (it.name.as_str(), view))
        })
        .collect::<Result<_, _>>()
        .map_err(io::Error::other)?;

    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Dropped on every error below, and the file with it.
    let file = rundir::unfinished(folder)?;
    serialize_to_file(views, Some(metadata), file.path()).map_err(|error| match error {
        safetensors::SafeTensorError::IoError(error) => error,
        other => io::Error::other(other),
    })?;
    File::open(file.path())?.sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

/// The longest header that is read; safetensors itself allows no longer one.
const LONGEST_HEADER: u64 = 100_000_000;

/// What a checkpoint holds besides tensors, from its header alone. A file of another length than
/// its header says is damaged; what the checksum says takes the whole file, [`read`].
pub(super) fn read_meta(path: &Path) -> Result<Meta, CheckpointError> {
    let damaged = |problem: String| CheckpointError::damaged(path, problem);
    let open = |source| CheckpointError::open(path, source);
    let mut file = File::open(path).map_err(open)?;
    let length = file.metadata().map_err(open)?.len();
    let mut size = [0; 8];
    let part = |_| damaged("it is no safetensors file, or a part of one is missing".to_owned());
    file.read_exact(&mut size).map_err(part)?;
    let size = u64::from_le_bytes(size);
    if size > LONGEST_HEADER.min(length) {
        return Err(part(io::ErrorKind::UnexpectedEof.into()));
    }
    let mut text = vec![0; size as usize];
    file.read_exact(&mut text).map_err(part)?;
    let header: Metadata = serde_json::from_slice(&text).map_err(|error| {
        damaged(format!("it is no safetensors file, or its header was changed ({error})"))
    })?;
    let expected = 8 + size + header.data_len() as u64;
    if length != expected {
        return Err(damaged(format!(
            "it has {length} bytes of the {expected} that its header speaks of"
        )));
    }
    meta(path, header.metadata().as_ref().and_then(|it| it.get(META)))
}

fn meta(path: &Path, text: Option<&String>) -> Result<Meta, CheckpointError> {
    let parsed = text.map_or_else(|| Ok(Meta::default()), |text| serde_json::from_str(text));
    parsed.map_err(|error| {
        CheckpointError::damaged(path, format!("its metadata do not parse ({error})"))
    })
}

pub(super) fn read(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let bytes = std::fs::read(path).map_err(|source| CheckpointError::open(path, source))?;
    let damaged = |problem: String| CheckpointError::damaged(path, problem);
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| {
        damaged(format!("it is no safetensors file, or a part of one is missing ({error})"))
    })?;
    let tensors = SafeTensors::deserialize(&bytes)
        .map_err(|error| damaged(format!("a part of it is missing or changed ({error})")))?;
    let metadata = header.metadata().clone().unwrap_or_default();

    // A file of another program's has neither; one of ours with one of them was changed.
    if metadata.contains_key(META) || metadata.contains_key(CHECKSUM) {
        let list = tensors.tensors();
        let contents = list
            .iter()
            .map(|(name, view)| Content {
                name,
                dtype: view.dtype(),
                shape: view.shape(),
                bytes: view.data(),
            })
            .collect();
        let found = checksum(&metadata, contents);
        let expected = metadata.get(CHECKSUM).map_or("missing", String::as_str);
        if found != expected {
            return Err(damaged(format!(
                "its checksum is {expected}, its content's {found}: it was changed or torn"
            )));
        }
    }
    let mut checkpoint =
        Checkpoint { meta: meta(path, metadata.get(META))?, ..Checkpoint::default() };
    for (name, view) in tensors.tensors() {
        let kind = KINDS.iter().find(|(_, dtype)| *dtype == view.dtype()).map(|(kind, _)| *kind);
        let kind = kind.ok_or_else(|| {
            damaged(format!("{name} has the type {:?}, which no model here has", view.dtype()))
        })?;
        let tensor = tensor_of(view.data(), view.shape(), kind)
            .map_err(|why| damaged(format!("{name}: {why}")))?;
        let (part, name): (&mut StateDict, _) =
            match (name.strip_prefix(OPTIMIZER), name.strip_prefix(TRAINED)) {
                (Some(rest), _) => (&mut checkpoint.optimizer, rest.to_owned()),
                (_, Some(rest)) => (&mut checkpoint.trained, rest.to_owned()),
                _ => (&mut checkpoint.model, name),
            };
        part.insert(name, tensor);
    }
    Ok(checkpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Checkpoint {
        let counter = Tensor::from_slice(&[7_i64]).squeeze();
        let mut meta = Meta::default();
        meta.run.insert("iteration".to_owned(), 3.into());
        meta.run.insert("loss".to_owned(), (0.1_f64 + 0.2).into());
        Checkpoint {
            model: StateDict::from([
                (
                    "a.weight".to_owned(),
                    Tensor::from_slice(&[1.5_f32, f32::MIN_POSITIVE, -0.0]).view([3, 1]),
                ),
                ("a.num_batches_tracked".to_owned(), counter),
            ]),
            optimizer: StateDict::from([(
                "momentum.a.weight".to_owned(),
                Tensor::from_slice(&[2.5_f32; 3]),
            )]),
            trained: StateDict::from([("a.weight".to_owned(), Tensor::from_slice(&[0.5_f32; 3]))]),
            meta,
        }
    }

    #[test]
    fn a_checkpoint_comes_back_bit_for_bit() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("iter_3.safetensors");
        let written = example();
        written.write(&path).expect("writes");
        let read = Checkpoint::read(&path).expect("reads");
        assert_eq!(read.meta, written.meta);
        assert_eq!(read_meta(&path).expect("reads"), written.meta);
        for (part, original) in
            [(&read.model, &written.model), (&read.optimizer, &written.optimizer)]
        {
            assert_eq!(part.len(), original.len());
            for (name, tensor) in original {
                assert_eq!(part[name].size(), tensor.size());
                assert!(part[name].equal(tensor), "{name}");
            }
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 1);
    }

    #[test]
    fn a_header_of_any_length_is_told_from_torchs_formats() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("iter_3.safetensors");
        let mut checkpoint = example();
        let mut lengths = std::collections::BTreeSet::new();
        // Headers are padded to eight bytes: 32 texts of growing length meet every low byte that a
        // length can have.
        for size in (0..256).step_by(8) {
            checkpoint.meta.config = Some("x".repeat(size));
            checkpoint.write(&path).expect("writes");
            lengths.insert(std::fs::read(&path).expect("the file")[0]);
            assert_eq!(Checkpoint::read(&path).expect("reads").meta, checkpoint.meta);
        }
        assert!(lengths.contains(&0x80), "{lengths:?}");
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_found() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("whole.safetensors");
        example().write(&path).expect("writes");
        let whole = std::fs::read(&path).expect("the file");
        let spoilt = folder.path().join("spoilt.safetensors");
        for length in 0..whole.len() {
            std::fs::write(&spoilt, &whole[..length]).expect("writes");
            assert!(Checkpoint::read(&spoilt).is_err(), "cut to {length} of {} bytes", whole.len());
            assert!(
                read_meta(&spoilt).is_err(),
                "the header alone, cut to {length} of {} bytes",
                whole.len()
            );
        }
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&spoilt, &bytes).expect("writes");
            let result = Checkpoint::read(&spoilt);
            assert!(
                matches!(result, Err(CheckpointError::Damaged { .. })),
                "bit {bit}: {}",
                String::from_utf8_lossy(&bytes)
            );
        }
    }

    #[test]
    fn a_shape_that_no_tensor_can_have_is_an_error() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("foreign.safetensors");
        for shape in
            ["[0,9223372036854775808]", "[0,4611686018427387904,4]", "[18446744073709551615,0]"]
        {
            let head = format!(r#"{{"w":{{"dtype":"F32","shape":{shape},"data_offsets":[0,0]}}}}"#);
            std::fs::write(&path, [&(head.len() as u64).to_le_bytes(), head.as_bytes()].concat())
                .expect("writes");
            let error = Checkpoint::read(&path).map(|read| format!("{:?}", read.model["w"].size()));
            let error = error.expect_err(shape).to_string();
            assert!(
                error.contains("w: ")
                    && error.contains("no tensor can have")
                    && !error.contains('\n'),
                "{error}"
            );
        }
    }

    #[test]
    fn a_file_of_another_program_needs_no_checksum() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("foreign.safetensors");
        let bytes: Vec<u8> = [1.0_f32, 2.0].iter().flat_map(|it| it.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![2], &bytes).expect("a view");
        serialize_to_file([("w", view)], None, &path).expect("writes");
        assert_eq!(Checkpoint::read(&path).expect("reads").model["w"].double_value(&[1]), 2.0);
    }
}

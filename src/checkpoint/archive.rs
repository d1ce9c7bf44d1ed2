//! The archive that `torch.save` writes since torch 1.6: a zip of one pickle and of the bytes of
//! every tensor.
//!
//! The pickle's values are read by [`Pickle`]; here calls that would rebuild a tensor become
//! tensors. What a file says of its sizes is checked against what it holds, so a file can take no
//! more memory than a few times its length.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use tch::{Kind, Tensor};
use zip::{CompressionMethod, ZipArchive};

use super::pickle::{Pickle, Place, Value};

/// The longest pickle that is read. The log of a million iterations, which mmengine keeps in it, is
/// about a third of that.
const LONGEST_PICKLE: u64 = 1 << 30;

/// How deep dicts of tensors may be nested in each other.
const DEEPEST: usize = 16;

/// An open archive.
pub(super) struct Archive {
    zip: ZipArchive<BufReader<File>>,
    /// The folder that everything lies in, with its slash.
    root: String,
    /// The storage that was read last: tensors of one storage lie next to each other.
    last: Option<(String, Tensor)>,
    /// Bytes of tensors that may still be made. Views of one storage may overlap, but not without
    /// end.
    left: u64,
}

/// What a tensor is made from.
struct Rebuild<'a> {
    storage: &'a str,
    kind: Kind,
    offset: i64,
    size: Vec<i64>,
    strides: Vec<i64>,
}

impl Archive {
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let length = file.metadata().map_err(|error| error.to_string())?.len();
        let zip = ZipArchive::new(BufReader::new(file)).map_err(|error| error.to_string())?;
        let pickle = zip
            .file_names()
            .flatten()
            .find(|it| it.as_ref() == "data.pkl" || it.ends_with("/data.pkl"));
        let root = pickle
            .ok_or("it is a zip archive without a data.pkl")?
            .trim_end_matches("data.pkl")
            .to_owned();
        let mut archive =
            Self { zip, root, last: None, left: length.saturating_mul(4) + (1 << 20) };
        match archive.entry("byteorder", 16).as_deref() {
            Ok(b"big") => Err("it was written on a big-endian machine".to_owned()),
            _ => Ok(archive),
        }
    }

    /// The pickle, to be read by [`Pickle::read`].
    pub(super) fn pickle(&mut self) -> Result<Vec<u8>, String> {
        self.entry("data.pkl", LONGEST_PICKLE)
    }

    /// An entry's bytes, which are as many as the file has for it: torch compresses nothing.
    fn entry(&mut self, name: &str, longest: u64) -> Result<Vec<u8>, String> {
        let name = format!("{}{name}", self.root);
        let entry = self.zip.by_name(&name).map_err(|error| format!("{name}: {error}"))?;
        if entry.compression() != CompressionMethod::Stored {
            return Err(format!("{name} is compressed, which torch's files are not"));
        }
        if entry.size() > longest {
            return Err(format!("{name} has {} bytes, more than any checkpoint has", entry.size()));
        }
        let mut bytes = Vec::new();
        entry.take(longest).read_to_end(&mut bytes).map_err(|error| format!("{name}: {error}"))?;
        Ok(bytes)
    }

    /// All tensors below a dict, by their keys joined with dots, in the order of the file. What is
    /// no tensor is left out.
    pub(super) fn tensors(
        &mut self,
        pickle: &Pickle<'_>,
        below: Place,
    ) -> Result<Vec<(String, Tensor)>, String> {
        let mut found = Vec::new();
        let mut steps = 0;
        walk(pickle, below, &mut Vec::new(), &mut steps, &mut found)?;
        let mut read = |(name, place)| match self.tensor(pickle, place) {
            Ok(tensor) => Ok((name, tensor)),
            Err(problem) => Err(format!("{name}: {problem}")),
        };
        found.into_iter().map(&mut read).collect()
    }

    /// The tensor that a call would rebuild.
    pub(super) fn tensor(&mut self, pickle: &Pickle<'_>, place: Place) -> Result<Tensor, String> {
        let Rebuild { storage, kind, offset, size, strides } = rebuild(pickle, place, 0)?;
        let count = size
            .iter()
            .try_fold(1_i64, |count, &it| count.checked_mul(it))
            .ok_or("its shape is beyond measure")?;
        let bytes = (count as u64)
            .checked_mul(kind.elt_size_in_bytes() as u64)
            .ok_or("its shape is beyond measure")?;
        self.left = self.left.checked_sub(bytes).ok_or("it is larger than its file can make it")?;
        let base = self.storage(storage, kind)?;
        if count == 0 {
            return Tensor::f_zeros(&size, (kind, tch::Device::Cpu))
                .map_err(|error| error.to_string());
        }
        let span = size.iter().zip(&strides).try_fold(offset, |end, (&size, &stride)| {
            end.checked_add((size - 1).checked_mul(stride)?)
        });
        if span.is_none_or(|last| last >= base.numel() as i64) {
            return Err(format!(
                "it reaches beyond the {} numbers that the file has for it",
                base.numel()
            ));
        }
        let view = base.f_as_strided(&size, &strides, offset).map_err(|error| error.to_string())?;
        // A copy, but where it is all there is: a small view must not keep a large storage in
        // memory.
        let whole = view.is_contiguous() && view.numel() == base.numel();
        Ok(if whole { view } else { view.contiguous().copy() })
    }

    fn storage(&mut self, key: &str, kind: Kind) -> Result<Tensor, String> {
        if let Some((last, tensor)) = &self.last
            && last == key
            && tensor.kind() == kind
        {
            return Ok(tensor.shallow_clone());
        }
        let mut bytes = self.entry(&format!("data/{key}"), u64::MAX)?;
        let width = kind.elt_size_in_bytes();
        if kind == Kind::Bool {
            bytes.iter_mut().for_each(|it| *it = u8::from(*it != 0));
        }
        let count = bytes.len() / width;
        let tensor = Tensor::f_from_data_size(&bytes[..count * width], &[count as i64], kind)
            .map_err(|error| error.to_string())?;
        self.last = Some((key.to_owned(), tensor.shallow_clone()));
        Ok(tensor)
    }
}

fn walk(
    pickle: &Pickle<'_>,
    place: Place,
    path: &mut Vec<String>,
    steps: &mut usize,
    found: &mut Vec<(String, Place)>,
) -> Result<(), String> {
    *steps += 1;
    if *steps > 1_000_000 {
        return Err("more entries than any state dict has".to_owned());
    }
    if is_tensor(pickle, place) {
        found.push((path.join("."), place));
    } else if path.len() < DEEPEST {
        for &(key, value) in pickle.entries(place) {
            let key = pickle
                .text(key)
                .map(ToOwned::to_owned)
                .or_else(|| pickle.int(key).map(|it| it.to_string()));
            let Some(key) = key else { continue };
            path.push(key);
            walk(pickle, value, path, steps, found)?;
            path.pop();
        }
    }
    Ok(())
}

/// Whether a value is a call that rebuilds a tensor.
pub(super) fn is_tensor(pickle: &Pickle<'_>, place: Place) -> bool {
    pickle.call(place).is_some_and(|(name, _)| {
        name.starts_with("torch._utils._rebuild_") || name.starts_with("torch._tensor._rebuild_")
    })
}

fn rebuild<'a>(pickle: &'a Pickle<'_>, place: Place, depth: usize) -> Result<Rebuild<'a>, String> {
    let (name, arguments) = pickle.call(place).ok_or("it is no tensor")?;
    if depth > 4 {
        return Err("it is a tensor in a tensor, and so on".to_owned());
    }
    let [first, offset, size, strides] = match (name, arguments) {
        (
            "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state",
            &[data, ..],
        ) => {
            return rebuild(pickle, data, depth + 1);
        }
        (
            "torch._utils._rebuild_tensor"
            | "torch._utils._rebuild_tensor_v2"
            | "torch._utils._rebuild_tensor_v3",
            &[storage, offset, size, strides, ..],
        ) => [storage, offset, size, strides],
        // A subclass: the function that rebuilds the tensor, the subclass, and the function's
        // arguments.
        ("torch._tensor._rebuild_from_type_v2", &[_, _, inner, ..]) => match pickle.items(inner) {
            &[storage, offset, size, strides, ..] => [storage, offset, size, strides],
            _ => return Err(format!("it is made by {name}, in a way that is not known here")),
        },
        _ => return Err(format!("it is made by {name}, which is not known here")),
    };
    let Value::Outside(named) = pickle.at(first) else {
        return Err("it names no bytes".to_owned());
    };
    let &[_, class, key, ..] = pickle.items(*named) else {
        return Err("it names no bytes".to_owned());
    };
    let Value::Class(class) = pickle.at(class) else {
        return Err("it names bytes of no type".to_owned());
    };
    let storage = pickle.text(key).ok_or("it names bytes by no text")?;
    // What is stored without a type has it further behind.
    let kind = match (class.rsplit('.').next().unwrap_or_default(), arguments.get(6)) {
        ("UntypedStorage", Some(&dtype)) => match pickle.at(dtype) {
            Value::Class(dtype) => kind(dtype.rsplit('.').next().unwrap_or_default()),
            _ => None,
        },
        (class, _) => kind(class.trim_end_matches("Storage")),
    };
    let kind = kind.ok_or_else(|| format!("it has the type {class}, which no model here has"))?;
    let numbers = |place: Place| {
        let numbers: Option<Vec<i64>> =
            pickle.items(place).iter().map(|it| pickle.int(*it).filter(|it| *it >= 0)).collect();
        numbers.ok_or("its shape is none")
    };
    let (size, strides) = (numbers(size)?, numbers(strides)?);
    let offset = pickle.int(offset).filter(|it| *it >= 0).ok_or("its place is none")?;
    if size.len() != strides.len() || size.len() > 16 {
        return Err("its shape is none".to_owned());
    }
    Ok(Rebuild { storage, kind, offset, size, strides })
}

/// A type by the name of its storage or of its `torch.dtype`.
fn kind(name: &str) -> Option<Kind> {
    Some(match name {
        "Float" | "float32" => Kind::Float,
        "Double" | "float64" => Kind::Double,
        "Half" | "float16" => Kind::Half,
        "BFloat16" | "bfloat16" => Kind::BFloat16,
        "Long" | "int64" => Kind::Int64,
        "Int" | "int32" => Kind::Int,
        "Byte" | "uint8" => Kind::Uint8,
        "Bool" | "bool" => Kind::Bool,
        _ => return None,
    })
}

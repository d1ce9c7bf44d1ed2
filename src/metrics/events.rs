//! TensorBoard's event files: protobuf messages in TFRecord frames.
//!
//! The crates that write these either need `protoc` at build time or bring an image library along,
//! so the three messages that scalars need are declared here and encoded by `prost`. Source:
//! tensorflow's event.proto, summary.proto and `tsl/lib/io/record_writer.cc`.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Scalar>,
}

#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, tag = "2")]
    simple_value: f32,
}

/// An open event file.
#[derive(Debug)]
pub(super) struct EventFile {
    file: File,
}

impl EventFile {
    /// Makes a new event file in `folder`, named as TensorBoard expects:
    /// `events.out.tfevents.<seconds>.<host>.<pid>`.
    pub(super) fn create(folder: &Path) -> io::Result<Self> {
        let host = nix::unistd::gethostname().map_err(io::Error::from)?;
        let name = format!(
            "events.out.tfevents.{}.{}.{}",
            seconds() as u64,
            host.to_string_lossy(),
            std::process::id()
        );
        let mut events = Self { file: File::create(folder.join(name))? };
        events.write(&Event {
            wall_time: seconds(),
            file_version: Some("brain.Event:2".to_owned()),
            ..Event::default()
        })?;
        Ok(events)
    }

    /// Writes the scalars of one step.
    pub(super) fn scalars<'a>(
        &mut self,
        values: impl Iterator<Item = (&'a str, f64)>,
        step: u64,
    ) -> io::Result<()> {
        let value = values
            .map(|(tag, value)| Scalar { tag: tag.to_owned(), simple_value: value as f32 })
            .collect();
        self.write(&Event {
            wall_time: seconds(),
            step: step as i64,
            file_version: None,
            summary: Some(Summary { value }),
        })
    }

    fn write(&mut self, event: &Event) -> io::Result<()> {
        let data = event.encode_to_vec();
        let length = (data.len() as u64).to_le_bytes();
        let frame = [
            &length[..],
            &masked_crc(&length).to_le_bytes(),
            &data,
            &masked_crc(&data).to_le_bytes(),
        ]
        .concat();
        self.file.write_all(&frame)
    }
}

fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |it| it.as_secs_f64())
}

/// TFRecord's checksum: CRC-32C, rotated and offset so that a CRC of data that holds CRCs stays
/// useful.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_hold_a_version_and_then_the_scalars() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut events = EventFile::create(folder.path()).expect("creates");
        events.scalars([("loss", 0.5), ("lr", 0.01)].into_iter(), 7).expect("writes");
        let path = std::fs::read_dir(folder.path())
            .expect("folder")
            .next()
            .expect("a file")
            .expect("its entry")
            .path();
        let bytes = std::fs::read(path).expect("the file");

        let mut rest = &bytes[..];
        let mut decoded = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().expect("eight bytes")) as usize;
            assert_eq!(rest[8..12], masked_crc(&rest[..8]).to_le_bytes());
            let data = &rest[12..12 + length];
            assert_eq!(rest[12 + length..16 + length], masked_crc(data).to_le_bytes());
            decoded.push(Event::decode(data).expect("an event"));
            rest = &rest[16 + length..];
        }
        assert_eq!(decoded.len(), 2);
        assert_eq!(decoded[0].file_version.as_deref(), Some("brain.Event:2"));
        let summary = decoded[1].summary.as_ref().expect("a summary");
        assert_eq!(
            (decoded[1].step, summary.value[0].tag.as_str(), summary.value[1].simple_value),
            (7, "loss", 0.01)
        );
    }

    #[test]
    fn the_checksum_is_tfrecords() {
        // Event files that TensorFlow itself writes begin with these twelve bytes.
        assert_eq!(masked_crc(&24_u64.to_le_bytes()), 0x224b_7fa3);
    }
}

//! Image files of every kind, to the pixels that OpenCV makes of them (`decoding.py`).

use segslurm::data::{read_image, read_label};

use super::{bytes, golden, shape};

#[test]
fn image_files_decode_to_opencvs_pixels() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut wrong = Vec::new();
    for case in golden!("decoding.json").as_array().expect("cases") {
        let (file, name) = (folder.path().join("a.jpg"), &case["name"]);
        std::fs::write(&file, bytes(&case["file"])).expect("writes");
        if let Some(theirs) = case.get("labels").map(bytes) {
            match read_label(&file) {
                Err(error) => wrong.push(format!("{name}: {error}")),
                Ok(labels) if labels.data != theirs => wrong.push(format!("{name}: other labels")),
                Ok(_) => {}
            }
        }
        if case.get("pixels").is_none() {
            // What OpenCV does not read is not to be read as something else.
            if case.get("labels").is_none() && read_image(&file).is_ok() {
                wrong.push(format!("{name}: is read"));
            }
            continue;
        }
        match read_image(&file) {
            Err(error) => wrong.push(format!("{name}: {error}")),
            Ok(image) if (image.height, image.width) != shape(&case["shape"]) => {
                wrong.push(format!("{name}: another shape"));
            }
            Ok(image) => {
                let theirs = bytes(&case["pixels"]);
                let apart = image.data.iter().zip(&theirs).filter(|(a, b)| a != b).count();
                if image.data.len() != theirs.len() || apart > 0 {
                    wrong.push(format!("{name}: {apart} of {} values differ", theirs.len()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

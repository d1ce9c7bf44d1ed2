//! JPEG files of every kind, to the pixels that OpenCV makes of them (`decoding.py`).

use segslurm::data::read_image;

use super::{bytes, golden, shape};

#[test]
fn jpeg_files_decode_to_opencvs_pixels() {
    let folder = tempfile::tempdir().expect("a folder");
    for case in golden!("decoding.json").as_array().expect("cases") {
        let file = folder.path().join("a.jpg");
        std::fs::write(&file, bytes(&case["file"])).expect("writes");
        let image = read_image(&file).unwrap_or_else(|error| panic!("{}: {error}", case["name"]));
        assert_eq!((image.height, image.width), shape(&case["shape"]), "{}", case["name"]);
        let (theirs, name) = (bytes(&case["pixels"]), &case["name"]);
        let apart = image.data.iter().zip(&theirs).filter(|(a, b)| a != b).count();
        assert!(image.data.len() == theirs.len() && apart == 0, "{name}: {apart} of {} values differ", theirs.len());
    }
}

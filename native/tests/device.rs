//! Settings of the whole process: one test, in a process of its own.

use segslurm_native::device::{Tf32, allow_tf32, tf32};

#[test]
fn tf32_is_as_pytorch_has_it_until_it_is_set() {
    let now = || tf32().expect("the setting");
    assert_eq!(now(), Tf32 { convolutions: true, matmuls: false });
    for allow in [true, false, true] {
        allow_tf32(allow).expect("a setting");
        assert_eq!(now(), Tf32 { convolutions: allow, matmuls: allow });
    }
}

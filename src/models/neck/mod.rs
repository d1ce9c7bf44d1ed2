//! Necks: between the backbone's feature maps and the heads.

mod fpn;

pub use fpn::{FPN, FPNConfig};

use super::contract::{NeckSpec, RunNeck, slot};

slot! {
    /// `neck`.
    NeckConfig: NeckSpec => Neck: RunNeck {
        FPN(FPNConfig => FPN),
    }
}

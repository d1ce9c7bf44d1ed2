//! Necks: between the backbone's feature maps and the heads.

mod fpn;
mod jpu;

pub use fpn::{FPN, FPNConfig};
pub use jpu::{JPU, JPUConfig};

use super::contract::{NeckSpec, RunNeck, slot};

slot! {
    /// `neck`.
    NeckConfig: NeckSpec => Neck: RunNeck {
        FPN(FPNConfig => FPN),
        JPU(JPUConfig => JPU),
    }
}

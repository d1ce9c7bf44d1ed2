//! Necks: between the backbone's feature maps and the heads.

mod fpn;
mod ic_neck;
mod jpu;

pub use fpn::{FPN, FPNConfig};
pub use ic_neck::{ICNeck, ICNeckConfig};
pub use jpu::{JPU, JPUConfig};

use super::contract::{NeckSpec, RunNeck, slot};

slot! {
    /// `neck`.
    NeckConfig: NeckSpec => Neck: RunNeck {
        FPN(FPNConfig => FPN),
        ICNeck(ICNeckConfig => ICNeck),
        JPU(JPUConfig => JPU),
    }
}

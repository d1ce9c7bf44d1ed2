//! Heads: from feature maps to logits, and to losses.

mod aspp;
mod decode;
mod fcn;
mod psp;
mod sep_aspp;
mod uper;

pub use aspp::{ASPPHead, ASPPHeadConfig};
pub use decode::{Decode, DecodeConfig, InIndex, InputTransform};
pub use fcn::{FCNHead, FCNHeadConfig};
pub use psp::{PSPHead, PSPHeadConfig};
pub use sep_aspp::{DepthwiseSeparableASPPHead, DepthwiseSeparableASPPHeadConfig};
pub use uper::{UPerHead, UPerHeadConfig};

use super::contract::{HeadSpec, RunHead, slot};

slot! {
    /// `decode_head`, `auxiliary_head`.
    HeadConfig: HeadSpec => Head: RunHead {
        ASPPHead(ASPPHeadConfig => ASPPHead),
        DepthwiseSeparableASPPHead(DepthwiseSeparableASPPHeadConfig => DepthwiseSeparableASPPHead),
        FCNHead(FCNHeadConfig => FCNHead),
        PSPHead(PSPHeadConfig => PSPHead),
        UPerHead(UPerHeadConfig => UPerHead),
    }
}

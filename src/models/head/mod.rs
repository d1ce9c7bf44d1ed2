//! Heads: from feature maps to logits, and to losses.

mod aspp;
mod decode;
mod fcn;
mod fpn;
mod ham;
mod ocr;
mod psp;
mod segformer;
mod sep_aspp;
mod uper;

pub use aspp::{ASPPHead, ASPPHeadConfig};
pub use decode::{Decode, DecodeConfig, InIndex, InputTransform};
pub use fcn::{FCNHead, FCNHeadConfig};
pub use fpn::{FPNHead, FPNHeadConfig};
pub use ham::{HamConfig, LightHamHead, LightHamHeadConfig};
pub use ocr::{OCRHead, OCRHeadConfig};
pub use psp::{PSPHead, PSPHeadConfig};
pub use segformer::{SegformerHead, SegformerHeadConfig};
pub use sep_aspp::{DepthwiseSeparableASPPHead, DepthwiseSeparableASPPHeadConfig};
pub use uper::{UPerHead, UPerHeadConfig};

use super::contract::{HeadSpec, RunHead, slot};

slot! {
    /// `decode_head`, `auxiliary_head`.
    HeadConfig: HeadSpec => Head: RunHead {
        ASPPHead(ASPPHeadConfig => ASPPHead),
        DepthwiseSeparableASPPHead(DepthwiseSeparableASPPHeadConfig => DepthwiseSeparableASPPHead),
        FCNHead(FCNHeadConfig => FCNHead),
        FPNHead(FPNHeadConfig => FPNHead),
        LightHamHead(LightHamHeadConfig => LightHamHead),
        OCRHead(OCRHeadConfig => OCRHead),
        PSPHead(PSPHeadConfig => PSPHead),
        SegformerHead(SegformerHeadConfig => SegformerHead),
        UPerHead(UPerHeadConfig => UPerHead),
    }
}

//! Heads: from feature maps to logits, and to losses.

mod aspp;
mod ddr;
mod decode;
mod fcn;
mod fpn;
mod ham;
mod lraspp;
mod ocr;
mod psp;
mod segformer;
mod sep_aspp;
mod stdc;
mod uper;

pub use aspp::{ASPPHead, ASPPHeadConfig};
pub use ddr::{DDRHead, DDRHeadConfig};
pub use decode::{Decode, DecodeConfig, InIndex, InputTransform};
pub use fcn::{DepthwiseSeparableFCNHeadConfig, FCNHead, FCNHeadConfig};
pub use fpn::{FPNHead, FPNHeadConfig};
pub use ham::{HamConfig, LightHamHead, LightHamHeadConfig};
pub use lraspp::{LRASPPHead, LRASPPHeadConfig};
pub use ocr::{OCRHead, OCRHeadConfig};
pub use psp::{PSPHead, PSPHeadConfig};
pub use segformer::{SegformerHead, SegformerHeadConfig};
pub use sep_aspp::{DepthwiseSeparableASPPHead, DepthwiseSeparableASPPHeadConfig};
pub use stdc::{STDCHead, STDCHeadConfig};
pub use uper::{UPerHead, UPerHeadConfig};

use super::contract::{HeadSpec, RunHead, modules, slot};

slot! {
    /// `decode_head`, `auxiliary_head`.
    HeadConfig: HeadSpec, own {
        ASPPHead(ASPPHeadConfig),
        DDRHead(DDRHeadConfig),
        DepthwiseSeparableASPPHead(DepthwiseSeparableASPPHeadConfig),
        DepthwiseSeparableFCNHead(DepthwiseSeparableFCNHeadConfig),
        FCNHead(FCNHeadConfig),
        FPNHead(FPNHeadConfig),
        LRASPPHead(LRASPPHeadConfig),
        LightHamHead(LightHamHeadConfig),
        OCRHead(OCRHeadConfig),
        PSPHead(PSPHeadConfig),
        STDCHead(STDCHeadConfig),
        SegformerHead(SegformerHeadConfig),
        UPerHead(UPerHeadConfig),
    }
}

modules! {
    /// A head, ready to run.
    Head: RunHead {
        ASPPHead,
        DDRHead,
        DepthwiseSeparableASPPHead,
        FCNHead,
        FPNHead,
        LRASPPHead,
        LightHamHead,
        OCRHead,
        PSPHead,
        STDCHead,
        SegformerHead,
        UPerHead,
    }
}

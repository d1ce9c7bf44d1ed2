//! Which memory format a run computes in: the config's, or the one that is faster on the device.

use burn::tensor::Device;

use crate::dist;
use crate::exit::Failure;
use crate::experiment::{EnvConfig, MemoryFormatChoice};
use crate::ops::{self, MemoryFormat};

/// On the CPU: as fast for PSPNet-R18, a little faster for R50 (docs/benchmarks.md).
const ON_THE_CPU: MemoryFormat = MemoryFormat::Contiguous;
/// The first compute capability with tensor cores, which take images channels-last and rearrange
/// what comes otherwise.
const TENSOR_CORES: (i32, i32) = (7, 0);

/// That of the config, else the device's. Ranks with cards of different generations may differ:
/// only speed depends on it.
pub fn decide(env: &EnvConfig, device: &Device) -> Result<MemoryFormat, Failure> {
    match env.memory_format {
        MemoryFormatChoice::Contiguous => return Ok(MemoryFormat::Contiguous),
        MemoryFormatChoice::ChannelsLast => return Ok(MemoryFormat::ChannelsLast),
        MemoryFormatChoice::Auto => {}
    }
    let Some(index) = ops::gpu_index(device) else { return Ok(ON_THE_CPU) };
    Ok(on_a_card(dist::card(index)?.capability))
}

fn on_a_card(capability: (i32, i32)) -> MemoryFormat {
    if capability >= TENSOR_CORES { MemoryFormat::ChannelsLast } else { MemoryFormat::Contiguous }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_config_decides_and_else_the_device() {
        let decide = |memory_format| {
            let env = EnvConfig { memory_format, ..EnvConfig::default() };
            decide(&env, &Device::libtorch()).expect("a format")
        };
        assert_eq!(decide(MemoryFormatChoice::Contiguous), MemoryFormat::Contiguous);
        assert_eq!(decide(MemoryFormatChoice::ChannelsLast), MemoryFormat::ChannelsLast);
        assert_eq!(decide(MemoryFormatChoice::Auto), ON_THE_CPU);
    }

    #[test]
    fn tensor_cores_take_channels_last() {
        assert_eq!([(6, 1), (7, 0), (7, 5), (9, 0), (12, 0)].map(on_a_card), {
            let last = MemoryFormat::ChannelsLast;
            [MemoryFormat::Contiguous, last, last, last, last]
        });
    }
}

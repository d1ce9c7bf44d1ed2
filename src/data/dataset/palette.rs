//! Colours for classes whose dataset brings none.

/// Pascal VOC's colour map: the bits of the label, spread over the three channels from the highest
/// bit down. Neighbouring labels get distant colours, and a label has the same colour in every
/// dataset.
pub(super) fn generate(classes: usize) -> Vec<[u8; 3]> {
    (0..classes)
        .map(|label| {
            let mut colour = [0; 3];
            for bit in 0..8 {
                for (channel, value) in colour.iter_mut().enumerate() {
                    *value |= ((label >> (3 * bit + channel) & 1) as u8) << (7 - bit);
                }
            }
            colour
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::dataset::kind;

    #[test]
    fn the_generated_colours_are_pascal_vocs() {
        assert_eq!(generate(21), kind::of("PascalVOCDataset").palette);
    }
}

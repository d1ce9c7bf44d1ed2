//! The masks of windows: made once for each size of a map, and kept on the device.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Device, Tensor, TensorData};

use super::Windows;

/// Masks by the windows that they are for. Clones share them.
#[derive(Clone, Default)]
pub struct WindowMasks(Arc<Mutex<Vec<(Windows, Device, Tensor<4>)>>>);

/// Sizes that a run alternates between: training crops, and a few pictures.
const KEPT: usize = 8;

impl WindowMasks {
    /// The mask of `windows` on `device`; `scores` makes it where it is new.
    pub fn get(
        &self,
        windows: Windows,
        device: &Device,
        scores: impl FnOnce() -> Vec<f32>,
    ) -> Tensor<4> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((.., mask)) = kept.iter().find(|it| it.0 == windows && it.1 == *device) {
            return mask.clone();
        }
        let data = TensorData::new(scores(), windows.mask_shape());
        let mask = Tensor::from_data(data, device);
        if kept.len() == KEPT {
            kept.remove(0);
        }
        kept.push((windows, device.clone(), mask.clone()));
        mask
    }
}

impl fmt::Debug for WindowMasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WindowMasks")
    }
}

//! Numbers that every step uses: class weights, an image's mean. They go to the device once.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tch::{Device, Tensor};

/// A list of numbers, and the device's copy of it that was made when it was first used there.
/// Clones share the copy.
#[derive(Clone)]
pub struct Constant {
    values: Arc<[f32]>,
    /// On the device that asked last: a run has one.
    placed: Arc<Mutex<Option<Tensor>>>,
}

impl Constant {
    pub fn new(values: impl Into<Arc<[f32]>>) -> Self {
        Self { values: values.into(), placed: Arc::default() }
    }

    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The numbers `[n]` in `f32` on `device`; not to be written to.
    pub fn on(&self, device: Device) -> Tensor {
        let mut placed = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
        match placed.as_ref().filter(|it| it.device() == device) {
            Some(tensor) => tensor.shallow_clone(),
            None => {
                placed.insert(Tensor::from_slice(&self.values).to_device(device)).shallow_clone()
            }
        }
    }
}

impl fmt::Debug for Constant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.values.fmt(f)
    }
}

impl PartialEq for Constant {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values
    }
}

impl<const N: usize> From<[f32; N]> for Constant {
    fn from(values: [f32; N]) -> Self {
        Self::new(values)
    }
}

impl From<Vec<f32>> for Constant {
    fn from(values: Vec<f32>) -> Self {
        Self::new(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_copy_serves_all_clones() {
        let constant = Constant::from([0.5, 2.0]);
        let first = constant.clone().on(Device::Cpu);
        assert_eq!(constant.on(Device::Cpu).data_ptr(), first.data_ptr());
        assert_eq!(Vec::<f32>::try_from(first).expect("values"), [0.5, 2.0]);
        assert_eq!(constant, Constant::from(vec![0.5, 2.0]));
        assert_ne!(constant, Constant::from([0.5, 1.0]));
    }
}

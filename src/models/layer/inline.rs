//! A part whose fields are called as if they were its owner's own: what several components share,
//! under the names of each.

use std::ops::Deref;

use burn::module::Module;

/// Leaves no level in a state dict, nor does the field that holds it.
#[derive(Module, Debug)]
pub enum Inline<M: Module> {
    Here(M),
}

impl<M: Module> Deref for Inline<M> {
    type Target = M;

    fn deref(&self) -> &M {
        let Self::Here(part) = self;
        part
    }
}

//! The arguments of a call, and the names that a function gives them.

use super::heap::{Item, Object, Outcome};

#[derive(Debug, Clone, Default)]
pub(super) struct Arguments {
    pub(super) positional: Vec<Item>,
    pub(super) named: Vec<(String, Item)>,
}

impl Arguments {
    /// The arguments in the order of a function's parameters, of which the first `required` have no
    /// default.
    pub(super) fn bind<const N: usize>(
        self,
        function: &str,
        parameters: [&str; N],
        required: usize,
    ) -> Outcome<[Option<Object>; N]> {
        if self.positional.len() > N {
            return Err(format!(
                "`{function}` takes at most {N} values, found {}",
                self.positional.len()
            ));
        }
        let mut bound = [const { None }; N];
        for (slot, item) in bound.iter_mut().zip(self.positional) {
            *slot = Some(item.object);
        }
        for (name, item) in self.named {
            let slot = parameters.iter().position(|it| *it == name).map(|at| &mut bound[at]);
            match slot {
                Some(slot @ None) => *slot = Some(item.object),
                Some(Some(_)) => return Err(format!("`{function}` is given `{name}` twice")),
                None => return Err(format!("`{function}` takes no `{name}` here")),
            }
        }
        match (0..required).find(|at| bound[*at].is_none()) {
            Some(at) => Err(format!("`{function}` lacks its value `{}`", parameters[at])),
            None => Ok(bound),
        }
    }

    /// For a function that takes any number of values, and these names.
    pub(super) fn split<const N: usize>(
        self,
        function: &str,
        names: [&str; N],
    ) -> Outcome<(Vec<Item>, [Option<Object>; N])> {
        let named = Self { positional: Vec::new(), named: self.named }.bind(function, names, 0)?;
        Ok((self.positional, named))
    }
}

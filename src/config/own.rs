//! Components of one's own: names that a `type:` takes besides those that segslurm has, registered
//! before any config is read.
//!
//! An enum that takes them has a variant of [`Own`] under a name that no config can mean. The
//! tree's deserializer finds there what was registered, and reads it as it reads everything: its
//! keys are checked, its faults have a file and a line.

use std::any::Any;
use std::cell::RefCell;
use std::fmt::{self, Debug};
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::{Arc, PoisonError, RwLock};

use serde::de::{self, Deserialize, DeserializeOwned, Visitor};

use super::deserialize::{Deserializer, Fault};

/// The variant of components of one's own.
pub(super) const VARIANT: &str = "segslurm::config::Own";

/// What components of one's own are read as.
pub trait Slot {
    /// The name of the enum that has a variant for them, behind [`VARIANT`] and a blank.
    const NAME: &'static str;
}

/// A component of one's own. Two are equal if they print the same.
pub struct Own<S: ?Sized>(pub Arc<S>);

impl<S: ?Sized> Clone for Own<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: ?Sized + Debug> Debug for Own<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<S: ?Sized + Debug> PartialEq for Own<S> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || format!("{self:?}") == format!("{other:?}")
    }
}

impl<S: ?Sized> Deref for Own<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.0
    }
}

type Read = Arc<dyn Fn(Deserializer<'_>) -> Result<Box<dyn Any>, Fault> + Send + Sync>;

struct Entry {
    slot: &'static str,
    name: &'static str,
    read: Read,
}

static KNOWN: RwLock<Vec<Entry>> = RwLock::new(Vec::new());

thread_local! {
    /// What was read, on its way past serde, which carries no values.
    static READ: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
}

/// From here on `type: NAME` is read as a `T`, of which `make` makes what the slot wants. A name
/// that segslurm has itself is then this one's.
pub(crate) fn register<T, S>(name: &'static str, make: impl Fn(T) -> Arc<S> + Send + Sync + 'static)
where
    T: DeserializeOwned,
    S: ?Sized + Slot + 'static,
{
    let read: Read = Arc::new(move |from| Ok(Box::new(make(T::deserialize(from)?))));
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    known.retain(|it| (it.slot, it.name) != (S::NAME, name));
    known.push(Entry { slot: S::NAME, name, read });
}

fn of_slot(slot: &str, entry: &Entry) -> bool {
    entry.slot.strip_prefix(VARIANT).is_some_and(|it| it.trim_start() == slot)
}

/// Whether there is such a component for the enum `slot`.
pub(super) fn has(slot: &str, name: &str) -> bool {
    KNOWN
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
        .any(|it| of_slot(slot, it) && it.name == name)
}

/// The names that a `type:` of the enum `slot` may have.
pub(super) fn names(slot: &str, variants: &[&'static str]) -> Vec<&'static str> {
    let own = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    let own = own.iter().filter(|it| of_slot(slot, it)).map(|it| it.name);
    variants.iter().copied().filter(|it| *it != VARIANT).chain(own).collect()
}

/// Reads the component `name` for the [`Own`] that asks for it by its slot's name.
pub(super) fn read(slot: &'static str, name: &str, from: Deserializer<'_>) -> Result<(), Fault> {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    let read =
        known.iter().find(|it| it.slot == slot && it.name == name).map(|it| Arc::clone(&it.read));
    drop(known);
    let read = read.ok_or_else(|| de::Error::custom(format!("unknown type `{name}`")))?;
    let value = read(from)?;
    READ.with_borrow_mut(|it| *it = Some(value));
    Ok(())
}

impl<'de, S: ?Sized + Slot + 'static> Deserialize<'de> for Own<S> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(S::NAME, Taken(PhantomData))
    }
}

struct Taken<S: ?Sized>(PhantomData<S>);

impl<S: ?Sized + Slot + 'static> Visitor<'_> for Taken<S> {
    type Value = Own<S>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a component of one's own")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Own<S>, E> {
        let value = READ.with_borrow_mut(Option::take).and_then(|it| it.downcast::<Arc<S>>().ok());
        value.map(|it| Own(*it)).ok_or_else(|| E::custom("nothing was read"))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::{Arc, Debug, Own, Slot, register};
    use crate::config::parse_str;

    trait Says: Debug {
        fn word(&self) -> String;
    }

    impl Slot for dyn Says {
        const NAME: &'static str = "segslurm::config::Own Animal";
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Cat {}

    #[derive(Debug, Deserialize, PartialEq)]
    enum Animal {
        Cat(Cat),
        #[serde(rename = "segslurm::config::Own")]
        Own(Own<dyn Says>),
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Dog {
        times: usize,
    }

    impl Says for Dog {
        fn word(&self) -> String {
            "wuff".repeat(self.times)
        }
    }

    #[test]
    fn a_type_of_ones_own_is_read_and_its_faults_are_told_as_everybodys() {
        register::<Dog, dyn Says>("Dog", |it| Arc::new(it));
        let read = |text: &str| parse_str::<Vec<Animal>>(text);
        let animals = read("[{type: Cat}, {type: Dog, times: 2}]").expect("both are known");
        assert!(matches!(&animals[1], Animal::Own(it) if it.word() == "wuffwuff"), "{animals:?}");
        for (text, expected) in [
            ("[{type: Dog, tims: 2}]", "0.tims: unknown key; did you mean `times`?"),
            ("[{type: Dog, times: -1}]", "0.times: "),
            ("[{type: Dgo}]", "did you mean `Dog`? (valid types: Cat, Dog)"),
            ("[{type: 'segslurm::config::Own'}]", "(valid types: Cat, Dog)"),
        ] {
            let error = read(text).expect_err("it is wrong").to_string();
            assert!(error.contains(expected), "{expected} is not in {error}");
        }
    }
}

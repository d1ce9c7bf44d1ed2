//! ATen's operations by the names of their schemas, through libtorch's dispatcher.
//!
//! `tch` generates a function for each operation but not for those with a list of booleans, which
//! backward passes have, nor for those over lists of tensors, which optimizers are. Here any
//! operation is a line of Rust; what it takes and gives is looked up in libtorch's own schema, and
//! a wrong argument is an error that quotes it.

use std::ffi::{CStr, c_void};
use std::ptr::null;

use tch::{Kind, Tensor};

use crate::ffi::{self, RawArgument, RawTensor};
use crate::tensor::{own, raw};
use crate::{NativeError, check};

/// An argument, in the order of the schema. Those that are left out at the end have the schema's
/// defaults.
#[derive(Debug, Clone, Copy)]
pub enum Arg<'a> {
    /// An optional argument that is not given.
    None,
    Tensor(&'a Tensor),
    Tensors(&'a [&'a Tensor]),
    Int(i64),
    Ints(&'a [i64]),
    Float(f64),
    Bool(bool),
    Bools(&'a [bool]),
    Text(&'a str),
}

impl<'a> From<&'a Tensor> for Arg<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        Self::Tensor(tensor)
    }
}

impl<'a> From<Option<&'a Tensor>> for Arg<'a> {
    fn from(tensor: Option<&'a Tensor>) -> Self {
        tensor.map_or(Self::None, Self::Tensor)
    }
}

impl<'a> From<&'a [&'a Tensor]> for Arg<'a> {
    fn from(tensors: &'a [&'a Tensor]) -> Self {
        Self::Tensors(tensors)
    }
}

impl From<i64> for Arg<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl<'a> From<&'a [i64]> for Arg<'a> {
    fn from(values: &'a [i64]) -> Self {
        Self::Ints(values)
    }
}

impl<'a, const N: usize> From<&'a [i64; N]> for Arg<'a> {
    fn from(values: &'a [i64; N]) -> Self {
        Self::Ints(values)
    }
}

impl From<f64> for Arg<'_> {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<bool> for Arg<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl<'a, const N: usize> From<&'a [bool; N]> for Arg<'a> {
    fn from(values: &'a [bool; N]) -> Self {
        Self::Bools(values)
    }
}

impl<'a> From<&'a str> for Arg<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl From<Kind> for Arg<'_> {
    /// libtorch's number of the type (`c10::ScalarType`).
    fn from(kind: Kind) -> Self {
        Self::Int(match kind {
            Kind::Uint8 => 0,
            Kind::Int8 => 1,
            Kind::Int16 => 2,
            Kind::Int => 3,
            Kind::Int64 => 4,
            Kind::Half => 5,
            Kind::Float => 6,
            Kind::Double => 7,
            Kind::ComplexHalf => 8,
            Kind::ComplexFloat => 9,
            Kind::ComplexDouble => 10,
            Kind::Bool => 11,
            Kind::QInt8 => 12,
            Kind::QUInt8 => 13,
            Kind::QInt32 => 14,
            Kind::BFloat16 => 15,
            Kind::Float8e5m2 => 23,
            Kind::Float8e4m3fn => 24,
            Kind::Float8e5m2fnuz => 25,
            Kind::Float8e4m3fnuz => 26,
        })
    }
}

/// Kinds of arguments and results, as `shim.h` numbers them.
mod kind {
    pub(super) const NONE: i32 = 0;
    pub(super) const TENSOR: i32 = 1;
    pub(super) const TENSORS: i32 = 2;
    pub(super) const INT: i32 = 3;
    pub(super) const INTS: i32 = 4;
    pub(super) const FLOAT: i32 = 5;
    pub(super) const BOOL: i32 = 6;
    pub(super) const BOOLS: i32 = 7;
    pub(super) const TEXT: i32 = 8;
}

impl Arg<'_> {
    /// As the shim reads it. `pointers` holds what a list of tensors points to, for as long as the
    /// result is used.
    fn lower(&self, pointers: &mut Vec<Vec<*const RawTensor>>) -> RawArgument {
        let of = |kind| RawArgument { kind, integer: 0, number: 0.0, data: null(), length: 0 };
        let list = |kind, data: *const c_void, length| RawArgument { data, length, ..of(kind) };
        match *self {
            Self::None => of(kind::NONE),
            Self::Tensor(tensor) => RawArgument { data: raw(tensor).cast(), ..of(kind::TENSOR) },
            Self::Tensors(tensors) => {
                pointers.push(tensors.iter().map(|it| raw(it)).collect());
                list(
                    kind::TENSORS,
                    pointers.last().map_or(null(), |it| it.as_ptr().cast()),
                    tensors.len(),
                )
            }
            Self::Int(integer) => RawArgument { integer, ..of(kind::INT) },
            Self::Ints(values) => list(kind::INTS, values.as_ptr().cast(), values.len()),
            Self::Float(number) => RawArgument { number, ..of(kind::FLOAT) },
            Self::Bool(value) => RawArgument { integer: value.into(), ..of(kind::BOOL) },
            Self::Bools(values) => list(kind::BOOLS, values.as_ptr().cast(), values.len()),
            Self::Text(text) => list(kind::TEXT, text.as_ptr().cast(), text.len()),
        }
    }
}

#[derive(Debug)]
enum Value {
    Tensor(Option<Tensor>),
    Int(i64),
    Other,
}

/// What an operation gave, first to last; the tensors of a list one after another.
#[derive(Debug)]
pub struct Results {
    name: &'static CStr,
    values: std::vec::IntoIter<Value>,
}

impl Results {
    fn lacks(&self, what: &str) -> NativeError {
        NativeError(format!("{} gave no {what}", self.name.to_string_lossy()))
    }

    /// The next result, a tensor.
    pub fn tensor(&mut self) -> Result<Tensor, NativeError> {
        self.optional()?.ok_or_else(|| self.lacks("tensor"))
    }

    /// The next result, a tensor that may not have been computed.
    pub fn optional(&mut self) -> Result<Option<Tensor>, NativeError> {
        match self.values.next() {
            Some(Value::Tensor(tensor)) => Ok(tensor),
            _ => Err(self.lacks("tensor")),
        }
    }

    /// The next result, a whole number.
    pub fn int(&mut self) -> Result<i64, NativeError> {
        match self.values.next() {
            Some(Value::Int(value)) => Ok(value),
            _ => Err(self.lacks("number")),
        }
    }

    /// All that are left, tensors.
    pub fn tensors(mut self) -> Result<Vec<Tensor>, NativeError> {
        (0..self.values.len()).map(|_| self.tensor()).collect()
    }
}

/// Calls the operation `name`, such as `aten::add.Tensor`: its schema's name, a dot, and its
/// overload's if it has one.
pub fn call(name: &'static CStr, arguments: &[Arg]) -> Result<Results, NativeError> {
    let mut pointers = Vec::new();
    let lowered: Vec<RawArgument> = arguments.iter().map(|it| it.lower(&mut pointers)).collect();
    let (mut results, mut count) = (null(), 0);
    // SAFETY: name and arguments outlive the call (lists of pointers in `pointers`), the outputs
    // are valid places.
    check(unsafe {
        ffi::segslurm_call(
            name.as_ptr(),
            lowered.as_ptr(),
            lowered.len(),
            &raw mut results,
            &raw mut count,
        )
    })?;
    let given = if count == 0 {
        &[]
    } else {
        // SAFETY: on success there are `count` results, this thread's until its next call, which
        // comes after they are read.
        unsafe { std::slice::from_raw_parts(results, count) }
    };
    let values = given.iter().map(|it| match it.kind {
        kind::TENSOR => Value::Tensor(own(it.tensor)),
        kind::INT => Value::Int(it.integer),
        _ => Value::Other,
    });
    Ok(Results { name, values: values.collect::<Vec<_>>().into_iter() })
}

/// [`call`] of an operation with one result, a tensor.
pub fn call1(name: &'static CStr, arguments: &[Arg]) -> Result<Tensor, NativeError> {
    call(name, arguments)?.tensor()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_called_by_its_name_with_defaults_for_what_is_left_out() {
        let (a, b) = (Tensor::from_slice(&[1.0, 2.0]), Tensor::from_slice(&[3.0, 4.0]));
        let sum = call1(c"aten::add.Tensor", &[(&a).into(), (&b).into()]).expect("a sum");
        assert_eq!(Vec::<f64>::try_from(sum).expect("values"), [4.0, 6.0]);
        let lists = call(c"aten::_foreach_norm.Scalar", &[Arg::Tensors(&[&a, &b]), 1.0.into()])
            .expect("norms");
        let norms: Vec<f64> =
            lists.tensors().expect("tensors").iter().map(|it| it.double_value(&[])).collect();
        assert_eq!(norms, [3.0, 7.0]);
    }

    #[test]
    fn what_does_not_fit_the_schema_is_an_error_that_says_so() {
        let a = Tensor::from_slice(&[1.0]);
        for (name, arguments, words) in [
            (c"aten::no_such_operation", vec![Arg::from(&a)], "no_such_operation"),
            (c"aten::add.Tensor", vec![Arg::from(&a)], "needs an argument other"),
            (c"aten::neg", vec![Arg::from(&a), Arg::Int(1)], "takes 1 arguments, not 2"),
            (c"aten::add.Tensor", vec![Arg::from(&a), Arg::from("text")], "Tensor"),
        ] {
            let error = call(name, &arguments).expect_err("it is refused").to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}

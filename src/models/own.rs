//! Modules of one's own: Burn's `Module` cannot be a `dyn` trait, since its visitors are generic in
//! a tensor's rank. Here it is one: parameters pass as `dyn Any`, and each side knows the ranks
//! that they may have.

use std::any::Any;
use std::fmt::{self, Debug};

use burn::module::{
    Content, Devices, Flag, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper,
    ModuleVisitor, Param,
};
use burn::tensor::{Bool, Device, Int, Tensor};

/// Burn's `ModuleVisitor` without its types.
trait AnyVisitor {
    fn enter(&mut self, name: &str, container: &str);
    fn exit(&mut self, name: &str, container: &str);
    fn param(&mut self, param: &dyn Any);
}

/// Burn's `ModuleMapper` without its types.
trait AnyMapper {
    fn enter(&mut self, name: &str, container: &str);
    fn exit(&mut self, name: &str, container: &str);
    fn param(&mut self, param: Box<dyn Any>) -> Box<dyn Any>;
}

/// A visitor or a mapper of Burn's as one without types.
struct Typed<'a, V>(&'a mut V);

/// The reverse.
struct Untyped<'a, V: ?Sized>(&'a mut V);

macro_rules! for_ranks {
    ($body:ident) => {
        $body!(1);
        $body!(2);
        $body!(3);
        $body!(4);
        $body!(5);
        $body!(6);
    };
}

impl<V: ModuleVisitor> AnyVisitor for Typed<'_, V> {
    fn enter(&mut self, name: &str, container: &str) {
        self.0.enter_module(name, container);
    }

    fn exit(&mut self, name: &str, container: &str) {
        self.0.exit_module(name, container);
    }

    fn param(&mut self, param: &dyn Any) {
        macro_rules! of_rank {
            ($rank:literal) => {
                if let Some(it) = param.downcast_ref::<Param<Tensor<$rank>>>() {
                    return self.0.visit_float(it);
                }
                if let Some(it) = param.downcast_ref::<Param<Tensor<$rank, Int>>>() {
                    return self.0.visit_int(it);
                }
                if let Some(it) = param.downcast_ref::<Param<Tensor<$rank, Bool>>>() {
                    return self.0.visit_bool(it);
                }
            };
        }
        for_ranks!(of_rank);
        if let Some(it) = param.downcast_ref::<Param<Flag>>() {
            return self.0.visit_flag(it);
        }
        unreachable!("a parameter of more than six dimensions");
    }
}

impl<M: ModuleMapper> AnyMapper for Typed<'_, M> {
    fn enter(&mut self, name: &str, container: &str) {
        self.0.enter_module(name, container);
    }

    fn exit(&mut self, name: &str, container: &str) {
        self.0.exit_module(name, container);
    }

    fn param(&mut self, mut param: Box<dyn Any>) -> Box<dyn Any> {
        macro_rules! of_rank {
            ($rank:literal) => {
                param = match param.downcast::<Param<Tensor<$rank>>>() {
                    Ok(it) => return Box::new(self.0.map_float(*it)),
                    Err(other) => other,
                };
                param = match param.downcast::<Param<Tensor<$rank, Int>>>() {
                    Ok(it) => return Box::new(self.0.map_int(*it)),
                    Err(other) => other,
                };
                param = match param.downcast::<Param<Tensor<$rank, Bool>>>() {
                    Ok(it) => return Box::new(self.0.map_bool(*it)),
                    Err(other) => other,
                };
            };
        }
        for_ranks!(of_rank);
        match param.downcast::<Param<Flag>>() {
            Ok(it) => Box::new(self.0.map_flag(*it)),
            Err(_) => unreachable!("a parameter of more than six dimensions"),
        }
    }
}

impl ModuleVisitor for Untyped<'_, dyn AnyVisitor + '_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.param(param);
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.0.param(param);
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.0.param(param);
    }

    fn visit_flag(&mut self, flag: &Param<Flag>) {
        self.0.param(flag);
    }

    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.0.enter(name, container_type);
    }

    fn exit_module(&mut self, name: &str, container_type: &str) {
        self.0.exit(name, container_type);
    }
}

/// What a mapper made of a parameter, which is of the type that it was.
fn same_type<T: 'static>(mapped: Box<dyn Any>) -> T {
    *mapped.downcast().unwrap_or_else(|_| unreachable!("a mapper keeps a parameter's type"))
}

impl ModuleMapper for Untyped<'_, dyn AnyMapper + '_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        same_type(self.0.param(Box::new(param)))
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        same_type(self.0.param(Box::new(param)))
    }

    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<D, Bool>>,
    ) -> Param<Tensor<D, Bool>> {
        same_type(self.0.param(Box::new(param)))
    }

    fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        same_type(self.0.param(Box::new(flag)))
    }

    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.0.enter(name, container_type);
    }

    fn exit_module(&mut self, name: &str, container_type: &str) {
        self.0.exit(name, container_type);
    }
}

/// A module that runs as an `R`, such as `dyn RunHead`.
trait Part<R: ?Sized>: Debug + Send {
    fn as_run(&self) -> &R;
    fn copy(&self) -> Box<dyn Part<R>>;
    fn visit(&self, visitor: &mut dyn AnyVisitor);
    fn map(self: Box<Self>, mapper: &mut dyn AnyMapper) -> Box<dyn Part<R>>;
    fn devices(&self, devices: Devices) -> Devices;
    fn fork(self: Box<Self>, device: &Device) -> Box<dyn Part<R>>;
    fn to_device(self: Box<Self>, device: &Device) -> Box<dyn Part<R>>;
    fn train(self: Box<Self>) -> Box<dyn Part<R>>;
    fn valid(&self) -> Box<dyn Part<R>>;
    fn materialize(self: Box<Self>) -> Box<dyn Part<R>>;
}

/// A module and how it is seen as an `R`.
#[derive(Clone)]
struct Seen<M, R: ?Sized>(M, fn(&M) -> &R);

impl<M: Debug, R: ?Sized> Debug for Seen<M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<M: Module + 'static, R: ?Sized + 'static> Part<R> for Seen<M, R> {
    fn as_run(&self) -> &R {
        self.1(&self.0)
    }

    fn copy(&self) -> Box<dyn Part<R>> {
        Box::new(Self(self.0.clone(), self.1))
    }

    fn visit(&self, visitor: &mut dyn AnyVisitor) {
        self.0.visit(&mut Untyped(visitor));
    }

    fn map(self: Box<Self>, mapper: &mut dyn AnyMapper) -> Box<dyn Part<R>> {
        Box::new(Self(self.0.map(&mut Untyped(mapper)), self.1))
    }

    fn devices(&self, devices: Devices) -> Devices {
        self.0.collect_devices(devices)
    }

    fn fork(self: Box<Self>, device: &Device) -> Box<dyn Part<R>> {
        Box::new(Self(self.0.fork(device), self.1))
    }

    fn to_device(self: Box<Self>, device: &Device) -> Box<dyn Part<R>> {
        Box::new(Self(self.0.to_device(device), self.1))
    }

    fn train(self: Box<Self>) -> Box<dyn Part<R>> {
        Box::new(Self(self.0.train(), self.1))
    }

    fn valid(&self) -> Box<dyn Part<R>> {
        Box::new(Self(self.0.valid(), self.1))
    }

    fn materialize(self: Box<Self>) -> Box<dyn Part<R>> {
        Box::new(Self(self.0.materialize(), self.1))
    }
}

/// A module of one's own in a slot of a model. Its tensors have the names that they have in it,
/// without a level more.
pub struct OwnModule<R: ?Sized>(Box<dyn Part<R>>);

impl<R: ?Sized + 'static> OwnModule<R> {
    /// `seen` is the module as what its slot runs: `|it| it`.
    pub fn new<M: Module + 'static>(module: M, seen: fn(&M) -> &R) -> Self {
        Self(Box::new(Seen(module, seen)))
    }

    /// The module at work.
    pub fn run(&self) -> &R {
        self.0.as_run()
    }
}

impl<R: ?Sized> Clone for OwnModule<R> {
    fn clone(&self) -> Self {
        Self(self.0.copy())
    }
}

impl<R: ?Sized> Debug for OwnModule<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<R: ?Sized + 'static> ModuleDisplayDefault for OwnModule<R> {
    fn content(&self, content: Content) -> Option<Content> {
        content.set_top_level_type("OwnModule").optional()
    }
}

impl<R: ?Sized + 'static> ModuleDisplay for OwnModule<R> {}

impl<R: ?Sized + 'static> Module for OwnModule<R> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.0.devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        Self(self.0.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        Self(self.0.to_device(device))
    }

    fn train(self) -> Self {
        Self(self.0.train())
    }

    fn valid(&self) -> Self {
        Self(self.0.valid())
    }

    fn materialize(self) -> Self {
        Self(self.0.materialize())
    }

    fn visit<Visitor: ModuleVisitor>(&self, visitor: &mut Visitor) {
        self.0.visit(&mut Typed(visitor));
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        Self(self.0.map(&mut Typed(mapper)))
    }
}

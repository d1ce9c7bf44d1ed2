//! The values of a pickle, read without running anything of it.
//!
//! A pickle is a program for a small stack machine (CPython's `Lib/pickletools.py` lists its
//! opcodes). Here it builds plain values: a class is a name, and calling one is kept as what was
//! called with what. All values lie in one list and refer to each other by their places there. So
//! what Python shares stays shared (a training's log of a million numbers is not copied for every
//! reference to it), a value that contains itself harms nobody, dicts keep their order, and memory
//! grows with the file's length alone.

use std::borrow::Cow;
use std::collections::HashMap;

/// More values than any checkpoint has; a file that makes more is made to fill the memory.
const MOST_VALUES: usize = 4_000_000;

/// Bytes that may be copied from one value into another. A checkpoint needs next to none: names of
/// classes, lists of pairs that become dicts.
const MOST_COPIED: usize = 64 << 20;

/// Where a value is among its pickle's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Debug)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Cow<'a, str>),
    Bytes(&'a [u8]),
    /// A list or a set.
    List(Vec<Place>),
    Tuple(Vec<Place>),
    /// A dict, an `OrderedDict`, in the order of its keys.
    Dict(Vec<(Place, Place)>),
    /// `module.name` of a class or a function.
    Class(String),
    /// The name of something beside the pickle: of a tensor's bytes.
    Outside(Place),
    /// What a call would have made.
    Object(Box<Object>),
    /// An integer beyond 64 bits.
    Huge,
}

/// A call that was not made.
#[derive(Debug)]
pub(super) struct Object {
    /// What would have been called: a class or a function.
    pub(super) callee: Place,
    pub(super) arguments: Place,
    /// Entries, where the object is a kind of dict.
    entries: Vec<(Place, Place)>,
}

/// A pickle's values.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    values: Vec<Value<'a>>,
    root: Place,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle at the start of `bytes`. An error says what is wrong and at which byte.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let (values, stack, marks, memo) = (Vec::new(), Vec::new(), Vec::new(), HashMap::new());
        let mut machine = Machine { bytes, at: 0, values, stack, marks, memo, copied: 0 };
        let root = machine
            .run()
            .map_err(|problem| format!("{problem} at byte {} of its pickle", machine.at))?;
        Ok(Self { values: machine.values, root })
    }

    pub(super) fn root(&self) -> Place {
        self.root
    }

    pub(super) fn at(&self, place: Place) -> &Value<'a> {
        &self.values[place.index()]
    }

    /// The entries of a dict or of an object that is a kind of one; of anything else none.
    pub(super) fn entries(&self, place: Place) -> &[(Place, Place)] {
        match self.at(place) {
            Value::Dict(entries) => entries,
            Value::Object(object) => &object.entries,
            _ => &[],
        }
    }

    /// The items of a list, set or tuple; of anything else none.
    pub(super) fn items(&self, place: Place) -> &[Place] {
        match self.at(place) {
            Value::List(items) | Value::Tuple(items) => items,
            _ => &[],
        }
    }

    /// The value that a dict has under a text. As in Python the last one written counts.
    pub(super) fn get(&self, place: Place, key: &str) -> Option<Place> {
        self.entries(place)
            .iter()
            .rev()
            .find(|(name, _)| self.text(*name) == Some(key))
            .map(|(_, value)| *value)
    }

    pub(super) fn text(&self, place: Place) -> Option<&str> {
        match self.at(place) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn int(&self, place: Place) -> Option<i64> {
        match self.at(place) {
            Value::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// A call's `module.name` and its arguments.
    pub(super) fn call(&self, place: Place) -> Option<(&str, &[Place])> {
        match self.at(place) {
            Value::Object(object) => match self.at(object.callee) {
                Value::Class(name) => Some((name, self.items(object.arguments))),
                _ => None,
            },
            _ => None,
        }
    }

    /// A number as Python or numpy writes one; `True` is 1.
    pub(super) fn number(&self, place: Place) -> Option<f64> {
        match self.at(place) {
            Value::Int(value) => Some(*value as f64),
            Value::Float(value) => Some(*value),
            Value::Bool(value) => Some(f64::from(u8::from(*value))),
            _ => self.numpy_scalar(place),
        }
    }

    /// `numpy.core.multiarray.scalar(dtype('f8'), bytes)`.
    fn numpy_scalar(&self, place: Place) -> Option<f64> {
        let (name, arguments) = self.call(place)?;
        let &[kind, bytes] = arguments else { return None };
        if !name.starts_with("numpy.") || !name.ends_with(".multiarray.scalar") {
            return None;
        }
        let (_, kind) = self.call(kind)?;
        let (kind, bytes) = (self.text(*kind.first()?)?, self.bytes(bytes)?);
        Some(match kind {
            "f8" => f64::from_le_bytes(bytes.as_ref().try_into().ok()?),
            "f4" => f64::from(f32::from_le_bytes(bytes.as_ref().try_into().ok()?)),
            "i8" => i64::from_le_bytes(bytes.as_ref().try_into().ok()?) as f64,
            _ => return None,
        })
    }

    /// Bytes, also as the older protocols write them: a text of their values, to be encoded as
    /// Latin-1.
    fn bytes(&self, place: Place) -> Option<Cow<'_, [u8]>> {
        if let Value::Bytes(bytes) = self.at(place) {
            return Some(Cow::Borrowed(bytes));
        }
        let (name, arguments) = self.call(place)?;
        let text = self.text(*arguments.first()?)?;
        let encoded: Option<Vec<u8>> = text.chars().map(|it| u8::try_from(it).ok()).collect();
        encoded.filter(|_| name == "_codecs.encode").map(Cow::Owned)
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Place>,
    /// Heights of the stack at each open mark.
    marks: Vec<usize>,
    memo: HashMap<u32, Place>,
    copied: usize,
}

type Step<T> = Result<T, String>;

impl<'a> Machine<'a> {
    #[expect(clippy::too_many_lines, reason = "one arm an opcode")]
    fn run(&mut self) -> Step<Place> {
        loop {
            let opcode = self.byte()?;
            match opcode {
                b'.' => return self.pop(),
                // PROTO and FRAME say nothing that matters here.
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),

                b'N' => self.push(Value::None)?,
                0x88 => self.push(Value::Bool(true))?,
                0x89 => self.push(Value::Bool(false))?,
                b'I' | b'L' => {
                    let line = self.line()?;
                    let value = match line.trim_end_matches('L') {
                        "00" if opcode == b'I' => Value::Bool(false),
                        "01" if opcode == b'I' => Value::Bool(true),
                        digits
                            if !digits.is_empty()
                                && digits
                                    .trim_start_matches('-')
                                    .bytes()
                                    .all(|it| it.is_ascii_digit()) =>
                        {
                            digits.parse().map_or(Value::Huge, Value::Int)
                        }
                        other => return Err(format!("`{}` is no integer", other.escape_debug())),
                    };
                    self.push(value)?;
                }
                b'J' => {
                    let value = i32::from_le_bytes(self.array()?);
                    self.push(Value::Int(value.into()))?;
                }
                b'K' => {
                    let value = self.byte()?;
                    self.push(Value::Int(value.into()))?;
                }
                b'M' => {
                    let value = u16::from_le_bytes(self.array()?);
                    self.push(Value::Int(value.into()))?;
                }
                0x8a | 0x8b => {
                    let length = if opcode == 0x8a { self.byte()?.into() } else { self.length4()? };
                    let value = integer(self.take(length)?);
                    self.push(value)?;
                }
                b'F' => {
                    let line = self.line()?;
                    let value = line
                        .parse()
                        .map_err(|_| format!("`{}` is no number", line.escape_debug()))?;
                    self.push(Value::Float(value))?;
                }
                b'G' => {
                    let value = f64::from_be_bytes(self.array()?);
                    self.push(Value::Float(value))?;
                }

                0x8c | b'U' => {
                    let length = self.byte()?.into();
                    self.push_text(length)?;
                }
                b'X' | b'T' => {
                    let length = self.length4()?;
                    self.push_text(length)?;
                }
                0x8d => {
                    let length = self.length8()?;
                    self.push_text(length)?;
                }
                // Texts of protocol 0; what is escaped in them stays so.
                b'V' => {
                    let line = self.line()?;
                    self.push(Value::Text(line.into()))?;
                }
                b'S' => {
                    let line = self.line()?;
                    self.push(Value::Text(line.trim_matches(['\'', '"']).into()))?;
                }
                b'C' => {
                    let length = self.byte()?.into();
                    self.push_bytes(length)?;
                }
                b'B' => {
                    let length = self.length4()?;
                    self.push_bytes(length)?;
                }
                0x8e | 0x96 => {
                    let length = self.length8()?;
                    self.push_bytes(length)?;
                }

                b'(' => {
                    room(self.marks.len())?;
                    self.marks.push(self.stack.len());
                }
                b')' => self.push(Value::Tuple(Vec::new()))?,
                b']' | 0x8f => self.push(Value::List(Vec::new()))?,
                b'}' => self.push(Value::Dict(Vec::new()))?,
                b't' => {
                    let items = self.pop_to_mark()?;
                    self.push(Value::Tuple(items))?;
                }
                0x85..=0x87 => {
                    let count = usize::from(opcode - 0x84);
                    let mut items = (0..count).map(|_| self.pop()).collect::<Step<Vec<_>>>()?;
                    items.reverse();
                    self.push(Value::Tuple(items))?;
                }
                b'l' | 0x91 => {
                    let items = self.pop_to_mark()?;
                    self.push(Value::List(items))?;
                }
                b'd' => {
                    let items = self.pop_to_mark()?;
                    self.push(Value::Dict(pairs(&items)?))?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' | 0x90 => {
                    let items = self.pop_to_mark()?;
                    self.append(items)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set(vec![(key, value)])?;
                }
                b'u' => {
                    let items = self.pop_to_mark()?;
                    self.set(pairs(&items)?)?;
                }

                b'0' => {
                    if self.marks.last() == Some(&self.stack.len()) {
                        self.marks.pop();
                    } else {
                        self.pop()?;
                    }
                }
                b'1' => drop(self.pop_to_mark()?),
                b'2' => {
                    let top = self.top()?;
                    self.push_place(top)?;
                }
                b'g' | b'p' => {
                    let line = self.line()?;
                    let index = line.parse().map_err(|_| {
                        format!("`{}` is no place of the memo", line.escape_debug())
                    })?;
                    self.memo(opcode == b'g', index)?;
                }
                b'h' | b'q' => {
                    let index = self.byte()?.into();
                    self.memo(opcode == b'h', index)?;
                }
                b'j' | b'r' => {
                    let index = u32::from_le_bytes(self.array()?);
                    self.memo(opcode == b'j', index)?;
                }
                0x94 => self.memo(false, self.memo.len() as u32)?,

                b'c' => {
                    let class = format!("{}.{}", self.line()?, self.line()?);
                    self.push(Value::Class(class))?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Value::Text(module), Value::Text(name)) =
                        (&self.values[module.index()], &self.values[name.index()])
                    else {
                        return Err("a class has a name that is no text".to_owned());
                    };
                    let length = module.len() + name.len();
                    let class = if length <= MOST_COPIED {
                        format!("{module}.{name}")
                    } else {
                        String::new()
                    };
                    self.copies(length)?;
                    self.push(Value::Class(class))?;
                }
                b'P' => {
                    let line = self.line()?;
                    self.push(Value::Text(line.into()))?;
                    let name = self.pop()?;
                    self.push(Value::Outside(name))?;
                }
                b'Q' => {
                    let name = self.pop()?;
                    self.push(Value::Outside(name))?;
                }
                b'R' | 0x81 => {
                    let (arguments, callee) = (self.pop()?, self.pop()?);
                    self.call(callee, arguments)?;
                }
                0x92 => {
                    let (_keywords, arguments, callee) = (self.pop()?, self.pop()?, self.pop()?);
                    self.call(callee, arguments)?;
                }
                b'o' => {
                    let mut items = self.pop_to_mark()?;
                    if items.is_empty() {
                        return Err("an object has no class".to_owned());
                    }
                    let callee = items.remove(0);
                    self.push(Value::Tuple(items))?;
                    let arguments = self.pop()?;
                    self.call(callee, arguments)?;
                }
                b'i' => {
                    let class = format!("{}.{}", self.line()?, self.line()?);
                    let items = self.pop_to_mark()?;
                    self.push(Value::Tuple(items))?;
                    let arguments = self.pop()?;
                    self.push(Value::Class(class))?;
                    let callee = self.pop()?;
                    self.call(callee, arguments)?;
                }
                // BUILD: an object's attributes, of which nothing is asked.
                b'b' => {
                    self.pop()?;
                    self.top()?;
                }
                other => return Err(format!("opcode {other:#04x} is not known")),
            }
        }
    }

    fn take(&mut self, length: usize) -> Step<&'a [u8]> {
        let bytes = self.bytes;
        let end =
            self.at.checked_add(length).filter(|&end| end <= bytes.len()).ok_or("it breaks off")?;
        let taken = &bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Step<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn length4(&mut self) -> Step<usize> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn length8(&mut self) -> Step<usize> {
        usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|_| "it breaks off".to_owned())
    }

    fn line(&mut self) -> Step<&'a str> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|&it| it == b'\n').ok_or("it breaks off")?;
        let line = &self.take(length + 1)?[..length];
        std::str::from_utf8(line).map_err(|_| "a line is no UTF-8".to_owned())
    }

    /// Counts what is about to be copied.
    fn copies(&mut self, bytes: usize) -> Step<()> {
        self.copied = self.copied.saturating_add(bytes);
        if self.copied <= MOST_COPIED {
            Ok(())
        } else {
            Err("more copies of values than any checkpoint has".to_owned())
        }
    }

    fn push(&mut self, value: Value<'a>) -> Step<()> {
        room(self.values.len())?;
        self.values.push(value);
        self.push_place(Place((self.values.len() - 1) as u32))
    }

    fn push_place(&mut self, place: Place) -> Step<()> {
        room(self.stack.len())?;
        self.stack.push(place);
        Ok(())
    }

    /// Python's texts may hold halves of surrogate pairs, which UTF-8 does not: those are replaced.
    fn push_text(&mut self, length: usize) -> Step<()> {
        let text = String::from_utf8_lossy(self.take(length)?);
        self.push(Value::Text(text))
    }

    fn push_bytes(&mut self, length: usize) -> Step<()> {
        let bytes = self.take(length)?;
        self.push(Value::Bytes(bytes))
    }

    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Step<Place> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn top(&self) -> Step<Place> {
        self.stack[self.floor()..].last().copied().ok_or_else(|| "a value is missing".to_owned())
    }

    fn pop_to_mark(&mut self) -> Step<Vec<Place>> {
        let mark = self.marks.pop().ok_or("a mark is missing")?;
        Ok(self.stack.split_off(mark))
    }

    fn memo(&mut self, get: bool, index: u32) -> Step<()> {
        if get {
            let place = *self
                .memo
                .get(&index)
                .ok_or_else(|| format!("place {index} of the memo is empty"))?;
            self.push_place(place)
        } else {
            let top = self.top()?;
            self.memo.insert(index, top);
            Ok(())
        }
    }

    fn append(&mut self, items: Vec<Place>) -> Step<()> {
        let top = self.top()?;
        match &mut self.values[top.index()] {
            Value::List(list) => list.extend(items),
            // Items of an object of a class that is not known here.
            Value::Object(_) => {}
            _ => return Err("items of something that is no list".to_owned()),
        }
        Ok(())
    }

    fn set(&mut self, new: Vec<(Place, Place)>) -> Step<()> {
        let top = self.top()?;
        match &mut self.values[top.index()] {
            Value::Dict(entries) => entries.extend(new),
            Value::Object(object) => object.entries.extend(new),
            _ => return Err("entries of something that is no dict".to_owned()),
        }
        Ok(())
    }

    /// Plain containers are made; every other call is kept as it is.
    fn call(&mut self, callee: Place, arguments: Place) -> Step<()> {
        let first = self.items(arguments).first().copied();
        let name = match &self.values[callee.index()] {
            Value::Class(name) => name.as_str(),
            _ => "",
        };
        match name {
            "collections.OrderedDict" => {
                let count = first.map_or(0, |it| self.items(it).len());
                self.copies(count * size_of::<(Place, Place)>())?;
                let listed = first.map_or(&[][..], |it| self.items(it));
                let pair = |&place: &Place| match self.items(place) {
                    &[key, value] => Ok((key, value)),
                    _ => Err("an OrderedDict of something else than pairs".to_owned()),
                };
                let entries = listed.iter().map(pair).collect::<Step<_>>()?;
                self.push(Value::Dict(entries))
            }
            "builtins.set" | "__builtin__.set" | "builtins.frozenset" | "__builtin__.frozenset" => {
                match first {
                    Some(listed) => self.push_place(listed),
                    None => self.push(Value::List(Vec::new())),
                }
            }
            _ => self.push(Value::Object(Box::new(Object {
                callee,
                arguments,
                entries: Vec::new(),
            }))),
        }
    }

    fn items(&self, place: Place) -> &[Place] {
        match &self.values[place.index()] {
            Value::List(items) | Value::Tuple(items) => items,
            _ => &[],
        }
    }
}

/// Little-endian two's complement of any length.
fn integer(bytes: &[u8]) -> Value<'static> {
    if bytes.len() > 8 {
        return Value::Huge;
    }
    let sign = if bytes.last().is_some_and(|it| it & 0x80 != 0) { 0xff } else { 0 };
    let mut wide = [sign; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(wide))
}

fn pairs(items: &[Place]) -> Step<Vec<(Place, Place)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    if rest.is_empty() {
        Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
    } else {
        Err("a key without a value".to_owned())
    }
}

/// An error where so many values are one too many.
fn room(used: usize) -> Step<()> {
    if used < MOST_VALUES {
        Ok(())
    } else {
        Err(format!("more than {MOST_VALUES} values, as no checkpoint has,"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What CPython 3.11 writes for `{'a': [1, -2, 2**70, 2.5, None, True, 70000, 300], 'b': (x,
    /// x), 'c': {3: 'é'}, 'd': b'xy', 'e': {7}}` with `x = ['s']`, in the protocols 2 to 5.
    const PROTOCOLS: [&str; 4] = [
        "80027d71002858010000006171015d7102284b014afeffffff8a090000000000000000404740040000000000004e884a701101004d2c016558010000006271035d7104580100000073710561680486710658010000006371077d71084b035802000000c3a9710973580100000064710a635f636f646563730a656e636f64650a710b58020000007879710c58060000006c6174696e31710d86710e52710f5801000000657110635f5f6275696c74696e5f5f0a7365740a71115d71124b0761857113527114752e",
        "80037d71002858010000006171015d7102284b014afeffffff8a090000000000000000404740040000000000004e884a701101004d2c016558010000006271035d7104580100000073710561680486710658010000006371077d71084b035802000000c3a9710973580100000064710a43027879710b580100000065710c636275696c74696e730a7365740a710d5d710e4b076185710f527110752e",
        "80049562000000000000007d94288c0161945d94284b014afeffffff8a090000000000000000404740040000000000004e884a701101004d2c01658c0162945d948c01739461680486948c0163947d944b038c02c3a994738c01649443027879948c0165948f94284b0790752e",
        "80059562000000000000007d94288c0161945d94284b014afeffffff8a090000000000000000404740040000000000004e884a701101004d2c01658c0162945d948c01739461680486948c0163947d944b038c02c3a994738c01649443027879948c0165948f94284b0790752e",
    ];

    #[test]
    fn every_protocol_gives_the_same_values_in_their_order() {
        for hex in PROTOCOLS {
            let bytes: Vec<u8> = (0..hex.len() / 2)
                .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex"))
                .collect();
            let pickle = read(&bytes).expect("a pickle");
            let root = pickle.root();
            let keys: Vec<_> =
                pickle.entries(root).iter().filter_map(|(key, _)| pickle.text(*key)).collect();
            assert_eq!(keys, ["a", "b", "c", "d", "e"]);
            let of = |key: &str| pickle.get(root, key).expect("a value");
            let numbers: Vec<_> =
                pickle.items(of("a")).iter().map(|it| pickle.number(*it)).collect();
            let expected = [
                Some(1.0),
                Some(-2.0),
                None,
                Some(2.5),
                None,
                Some(1.0),
                Some(70000.0),
                Some(300.0),
            ];
            assert_eq!(numbers, expected);
            let twice = pickle.items(of("b"));
            assert_eq!(twice[0], twice[1]);
            assert_eq!(pickle.text(pickle.items(twice[0])[0]), Some("s"));
            let (key, value) = pickle.entries(of("c"))[0];
            assert_eq!((pickle.int(key), pickle.text(value)), (Some(3), Some("é")));
            assert_eq!(pickle.bytes(of("d")).as_deref(), Some(&b"xy"[..]));
            assert_eq!(pickle.int(pickle.items(of("e"))[0]), Some(7));
        }
    }

    fn read(bytes: &[u8]) -> Result<Pickle<'_>, String> {
        Pickle::read(bytes)
    }

    #[test]
    fn what_is_shared_stays_shared_however_often() {
        // `x = (x, x)` forty times over: as copies it were 2^40 values.
        let mut bytes = vec![0x80, 2, b'K', 1];
        (0..40).for_each(|_| bytes.extend(b"2\x86"));
        bytes.push(b'.');
        let pickle = read(&bytes).expect("a pickle");
        assert_eq!(pickle.values.len(), 41);
    }

    #[test]
    fn a_list_that_contains_itself_is_read() {
        let pickle = read(b"\x80\x02]q\x00h\x00a.").expect("a pickle");
        assert_eq!(pickle.items(pickle.root()), [pickle.root()]);
    }

    #[test]
    fn a_call_is_kept_and_not_made() {
        let pickle = read(b"\x80\x02cposix\nsystem\nX\x02\0\0\0ls\x85R.").expect("a pickle");
        let (name, arguments) = pickle.call(pickle.root()).expect("a call");
        assert_eq!((name, pickle.text(arguments[0])), ("posix.system", Some("ls")));
    }

    #[test]
    fn what_breaks_off_or_fills_the_memory_is_an_error() {
        for (bytes, words) in [
            (&b"\x80\x02]"[..], "breaks off at byte 3"),
            (b"\x80\x02X\xff\xff\xff\x7fab.", "breaks off"),
            (b"\x80\x02h\x07.", "place 7 of the memo"),
            (b"\x80\x02(K\x01u.", "a key without a value"),
            (b"\x80\x02t.", "a mark is missing"),
            (b"\x80\x02R.", "a value is missing"),
            (b"\x80\x02(.", "a value is missing"),
            (b"\xff", "opcode 0xff"),
        ] {
            let problem = read(bytes).expect_err("no pickle");
            assert!(problem.contains(words), "{problem}");
        }
        let mut many = vec![b'N'; MOST_VALUES + 1];
        many.push(b'.');
        assert!(read(&many).expect_err("too many").contains("4000000 values"));
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(2_000))]
        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(proptest::sample::select(OPCODES), 0..60)) {
            if let Ok(pickle) = read(&bytes) {
                pickle.number(pickle.root());
                pickle.get(pickle.root(), "");
            }
        }
    }

    /// Opcodes, and small numbers that are lengths and places of the memo.
    const OPCODES: &[u8] = b"\x00\x01\x02\x03.NIJKLMFGXTUVSCB()]}tlaesud012gpqhjrcPQRoib\n\x80\x81\x85\x86\x87\x88\x8a\x8c\x8f\x90\x91\x92\x93\x94\x95";
}

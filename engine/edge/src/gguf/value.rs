//! Metadata values.

use super::cursor::{Cursor, Mismatch};

/// Arrays may nest this deep; a deeper one is hostile.
const MAX_DEPTH: usize = 4;

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the names are the types")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// An array of values of one type.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the names are the types")]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Vec<String>),
    Array(Vec<Array>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::U8(n) => n.fmt(f),
            Self::I8(n) => n.fmt(f),
            Self::U16(n) => n.fmt(f),
            Self::I16(n) => n.fmt(f),
            Self::U32(n) => n.fmt(f),
            Self::I32(n) => n.fmt(f),
            Self::F32(n) => n.fmt(f),
            Self::Bool(flag) => flag.fmt(f),
            Self::String(text) => write!(f, "{text:?}"),
            // Vocabularies are long.
            Self::Array(_) => f.write_str("a list"),
            Self::U64(n) => n.fmt(f),
            Self::I64(n) => n.fmt(f),
            Self::F64(n) => n.fmt(f),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::U32(number)
    }
}

impl From<f32> for Value {
    fn from(number: f32) -> Self {
        Self::F32(number)
    }
}

impl Value {
    /// The text of a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// The number of an unsigned or non-negative integer.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(n) => Some(n.into()),
            Self::U16(n) => Some(n.into()),
            Self::U32(n) => Some(n.into()),
            Self::U64(n) => Some(n),
            Self::I8(n) => n.try_into().ok(),
            Self::I16(n) => n.try_into().ok(),
            Self::I32(n) => n.try_into().ok(),
            Self::I64(n) => n.try_into().ok(),
            Self::F32(_) | Self::F64(_) | Self::Bool(_) | Self::String(_) | Self::Array(_) => None,
        }
    }

    fn type_code(&self) -> u32 {
        match self {
            Self::U8(_) => 0,
            Self::I8(_) => 1,
            Self::U16(_) => 2,
            Self::I16(_) => 3,
            Self::U32(_) => 4,
            Self::I32(_) => 5,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::String(_) => 8,
            Self::Array(_) => 9,
            Self::U64(_) => 10,
            Self::I64(_) => 11,
            Self::F64(_) => 12,
        }
    }

    /// Appends type and value.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.type_code().to_le_bytes());
        match self {
            Self::U8(n) => out.push(*n),
            Self::I8(n) => out.extend_from_slice(&n.to_le_bytes()),
            Self::U16(n) => out.extend_from_slice(&n.to_le_bytes()),
            Self::I16(n) => out.extend_from_slice(&n.to_le_bytes()),
            Self::U32(n) => out.extend_from_slice(&n.to_le_bytes()),
            Self::I32(n) => out.extend_from_slice(&n.to_le_bytes()),
            Self::F32(n) => out.extend_from_slice(&n.to_le_bytes()),
            Self::Bool(flag) => out.push(u8::from(*flag)),
            Self::String(text) => write_string(text, out),
            Self::Array(array) => array.write(out),
            Self::U64(n) => out.extend_from_slice(&n.to_le_bytes()),
            Self::I64(n) => out.extend_from_slice(&n.to_le_bytes()),
            Self::F64(n) => out.extend_from_slice(&n.to_le_bytes()),
        }
    }

    /// Reads type and value.
    pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Self, Mismatch> {
        let what = "metadata value";
        let code = cursor.u32("metadata type")?;
        Ok(match code {
            0 => Self::U8(u8::from_le_bytes(cursor.array(what)?)),
            1 => Self::I8(i8::from_le_bytes(cursor.array(what)?)),
            2 => Self::U16(u16::from_le_bytes(cursor.array(what)?)),
            3 => Self::I16(i16::from_le_bytes(cursor.array(what)?)),
            4 => Self::U32(cursor.u32(what)?),
            5 => Self::I32(i32::from_le_bytes(cursor.array(what)?)),
            6 => Self::F32(f32::from_le_bytes(cursor.array(what)?)),
            7 => Self::Bool(read_bool(cursor)?),
            8 => Self::String(cursor.string("metadata string")?),
            9 => Self::Array(Array::read(cursor, 0)?),
            10 => Self::U64(cursor.u64(what)?),
            11 => Self::I64(i64::from_le_bytes(cursor.array(what)?)),
            12 => Self::F64(f64::from_le_bytes(cursor.array(what)?)),
            unknown => return Err(Mismatch::new("a metadata type from 0 to 12", unknown.to_string())),
        })
    }
}

impl Array {
    fn write(&self, out: &mut Vec<u8>) {
        fn all<T>(code: u32, items: &[T], out: &mut Vec<u8>, mut write: impl FnMut(&T, &mut Vec<u8>)) {
            out.extend_from_slice(&code.to_le_bytes());
            out.extend_from_slice(&(items.len() as u64).to_le_bytes());
            for item in items {
                write(item, out);
            }
        }
        match self {
            Self::U8(items) => all(0, items, out, |n, out| out.push(*n)),
            Self::I8(items) => all(1, items, out, |n, out| out.extend_from_slice(&n.to_le_bytes())),
            Self::U16(items) => all(2, items, out, |n, out| out.extend_from_slice(&n.to_le_bytes())),
            Self::I16(items) => all(3, items, out, |n, out| out.extend_from_slice(&n.to_le_bytes())),
            Self::U32(items) => all(4, items, out, |n, out| out.extend_from_slice(&n.to_le_bytes())),
            Self::I32(items) => all(5, items, out, |n, out| out.extend_from_slice(&n.to_le_bytes())),
            Self::F32(items) => all(6, items, out, |n, out| out.extend_from_slice(&n.to_le_bytes())),
            Self::Bool(items) => all(7, items, out, |flag, out| out.push(u8::from(*flag))),
            Self::String(items) => all(8, items, out, |text, out| write_string(text, out)),
            Self::Array(items) => all(9, items, out, Array::write),
            Self::U64(items) => all(10, items, out, |n, out| out.extend_from_slice(&n.to_le_bytes())),
            Self::I64(items) => all(11, items, out, |n, out| out.extend_from_slice(&n.to_le_bytes())),
            Self::F64(items) => all(12, items, out, |n, out| out.extend_from_slice(&n.to_le_bytes())),
        }
    }

    fn read(cursor: &mut Cursor<'_>, depth: usize) -> Result<Self, Mismatch> {
        if depth >= MAX_DEPTH {
            return Err(Mismatch::new(format!("arrays nested at most {MAX_DEPTH} deep"), "a deeper one"));
        }
        let code = cursor.u32("array type")?;
        Ok(match code {
            0 => Self::U8(numbers(cursor, u8::from_le_bytes)?),
            1 => Self::I8(numbers(cursor, i8::from_le_bytes)?),
            2 => Self::U16(numbers(cursor, u16::from_le_bytes)?),
            3 => Self::I16(numbers(cursor, i16::from_le_bytes)?),
            4 => Self::U32(numbers(cursor, u32::from_le_bytes)?),
            5 => Self::I32(numbers(cursor, i32::from_le_bytes)?),
            6 => Self::F32(numbers(cursor, f32::from_le_bytes)?),
            7 => Self::Bool(items(cursor, 1, read_bool)?),
            8 => Self::String(items(cursor, 8, |cursor| cursor.string("array string"))?),
            9 => Self::Array(items(cursor, 12, |cursor| Self::read(cursor, depth + 1))?),
            10 => Self::U64(numbers(cursor, u64::from_le_bytes)?),
            11 => Self::I64(numbers(cursor, i64::from_le_bytes)?),
            12 => Self::F64(numbers(cursor, f64::from_le_bytes)?),
            unknown => return Err(Mismatch::new("an array type from 0 to 12", unknown.to_string())),
        })
    }
}

/// A count, then as many numbers of N bytes.
fn numbers<T, const N: usize>(cursor: &mut Cursor<'_>, read: impl Fn([u8; N]) -> T) -> Result<Vec<T>, Mismatch> {
    items(cursor, N, |cursor| Ok(read(cursor.array("array number")?)))
}

/// A count, then as many items of at least `min_bytes`.
fn items<T>(
    cursor: &mut Cursor<'_>,
    min_bytes: usize,
    mut read: impl FnMut(&mut Cursor<'_>) -> Result<T, Mismatch>,
) -> Result<Vec<T>, Mismatch> {
    let count = cursor.count(min_bytes, "array elements")?;
    (0..count).map(|_| read(cursor)).collect()
}

fn read_bool(cursor: &mut Cursor<'_>) -> Result<bool, Mismatch> {
    match cursor.array::<1>("metadata flag")? {
        [0] => Ok(false),
        [1] => Ok(true),
        [other] => Err(Mismatch::new("a flag of 0 or 1", other.to_string())),
    }
}

/// Appends length and text.
pub(super) fn write_string(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

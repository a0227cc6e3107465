//! D-Bus messages in bytes: values, the calls that systemd takes and the replies that it gives. D-Bus specification,
//! "Type System" and "Message Protocol". Little-endian, as both ends run on one machine that is.

use anyhow::{Result, bail};

/// A value of a property.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Bool(bool),
    Byte(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    F64(f64),
    Str(String),
    /// All of one type, whose signature is there because an array may be empty.
    Array(&'static str, Vec<Value>),
    /// `a(ss)`
    Pairs(Vec<(String, String)>),
}

impl Value {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Str(text.into())
    }

    pub fn bytes(bytes: impl IntoIterator<Item = u8>) -> Self {
        Self::Array("y", bytes.into_iter().map(Self::Byte).collect())
    }

    /// The signature of a value that is no array.
    pub fn scalar_signature(&self) -> &'static str {
        match self {
            Self::Bool(_) => "b",
            Self::Byte(_) => "y",
            Self::I16(_) => "n",
            Self::U16(_) => "q",
            Self::I32(_) => "i",
            Self::U32(_) => "u",
            Self::I64(_) => "x",
            Self::U64(_) => "t",
            Self::F64(_) => "d",
            Self::Str(_) => "s",
            Self::Array(..) | Self::Pairs(_) => "a",
        }
    }

    fn signature(&self) -> String {
        match self {
            Self::Array(element, _) => format!("a{element}"),
            Self::Pairs(_) => "a(ss)".to_owned(),
            scalar => scalar.scalar_signature().to_owned(),
        }
    }
}

/// One property: a(sv) is a list of these.
pub type Property = (String, Value);

/// An argument of a call.
pub enum Argument<'a> {
    Str(&'a str),
    Bool(bool),
    Pids(&'a [u32]),
    Strings(&'a [&'a str]),
    Properties(&'a [Property]),
    /// `a(sa(sv))`: the units that StartTransientUnit could make besides, of which there are none.
    NoMoreUnits,
}

impl Argument<'_> {
    fn signature(&self) -> &'static str {
        match self {
            Self::Str(_) => "s",
            Self::Bool(_) => "b",
            Self::Pids(_) => "au",
            Self::Strings(_) => "as",
            Self::Properties(_) => "a(sv)",
            Self::NoMoreUnits => "a(sa(sv))",
        }
    }
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn aligned<const SIZE: usize>(&mut self, bytes: [u8; SIZE]) {
        self.align(SIZE);
        self.0.extend(bytes);
    }

    fn u32(&mut self, value: u32) {
        self.aligned(value.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(signature.len() as u8);
        self.0.extend(signature.as_bytes());
        self.0.push(0);
    }

    /// The length counts from the first element, after its alignment.
    fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length_at = self.0.len() - 4;
        self.align(alignment);
        let start = self.0.len();
        elements(self);
        let length = (self.0.len() - start) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Bool(value) => self.u32(u32::from(*value)),
            Value::Byte(value) => self.0.push(*value),
            Value::I16(value) => self.aligned(value.to_le_bytes()),
            Value::U16(value) => self.aligned(value.to_le_bytes()),
            Value::I32(value) => self.aligned(value.to_le_bytes()),
            Value::U32(value) => self.u32(*value),
            Value::I64(value) => self.aligned(value.to_le_bytes()),
            Value::U64(value) => self.aligned(value.to_le_bytes()),
            Value::F64(value) => self.aligned(value.to_le_bytes()),
            Value::Str(text) => self.text(text),
            Value::Array(element, values) => {
                let alignment = match *element {
                    "y" => 1,
                    "n" | "q" => 2,
                    "x" | "t" | "d" => 8,
                    _ => 4,
                };
                self.array(alignment, |writer| values.iter().for_each(|value| writer.value(value)));
            }
            Value::Pairs(pairs) => self.array(8, |writer| {
                for (first, second) in pairs {
                    writer.align(8);
                    writer.text(first);
                    writer.text(second);
                }
            }),
        }
    }

    fn variant(&mut self, value: &Value) {
        self.signature(&value.signature());
        self.value(value);
    }

    fn argument(&mut self, argument: &Argument) {
        match argument {
            Argument::Str(text) => self.text(text),
            Argument::Bool(value) => self.u32(u32::from(*value)),
            Argument::Pids(pids) => self.array(4, |writer| pids.iter().for_each(|pid| writer.u32(*pid))),
            Argument::Strings(texts) => self.array(4, |writer| texts.iter().for_each(|text| writer.text(text))),
            Argument::Properties(properties) => self.array(8, |writer| {
                for (name, value) in *properties {
                    writer.align(8);
                    writer.text(name);
                    writer.variant(value);
                }
            }),
            Argument::NoMoreUnits => self.array(8, |_| {}),
        }
    }
}

/// Who is called, and what.
pub struct Target<'a> {
    pub destination: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
    pub member: &'a str,
}

/// A method call.
pub fn call(serial: u32, target: &Target, arguments: &[Argument]) -> Vec<u8> {
    let mut body = Writer::default();
    arguments.iter().for_each(|argument| body.argument(argument));
    let signature: String = arguments.iter().map(Argument::signature).collect();
    let mut message = Writer(vec![b'l', METHOD_CALL, 0, 1]);
    message.u32(body.0.len() as u32);
    message.u32(serial);
    message.array(8, |fields| {
        let texts =
            [(1, "o", target.path), (2, "s", target.interface), (3, "s", target.member), (6, "s", target.destination)];
        for (code, kind, text) in texts {
            fields.align(8);
            fields.0.push(code);
            fields.signature(kind);
            fields.text(text);
        }
        if !signature.is_empty() {
            fields.align(8);
            fields.0.push(SIGNATURE_FIELD);
            fields.signature("g");
            fields.signature(&signature);
        }
    });
    message.align(8);
    message.0.extend(body.0);
    message.0
}

const METHOD_CALL: u8 = 1;
pub const METHOD_RETURN: u8 = 2;
pub const ERROR: u8 = 3;
pub const SIGNAL: u8 = 4;
const SIGNATURE_FIELD: u8 = 8;

/// How many bytes of a message tell how long it is.
pub const PROLOGUE: usize = 16;
/// More than systemd ever says to us: what claims to be longer is no D-Bus.
const LONGEST: usize = 1 << 24;

/// A received message.
#[derive(Debug, Default, PartialEq)]
pub struct Message {
    pub kind: u8,
    pub reply_to: u32,
    pub member: String,
    pub error: String,
    signature: String,
    body: Vec<u8>,
}

/// The length of what follows the prologue.
///
/// # Errors
/// Where this is no little-endian message of a believable length.
pub fn rest_length(prologue: &[u8; PROLOGUE]) -> Result<usize> {
    let number = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| prologue[at + i])) as usize;
    let (body, fields) = (number(4), number(12));
    if prologue[0] != b'l' || body > LONGEST || fields > LONGEST {
        bail!("the bus sent something that is no message");
    }
    Ok(fields.next_multiple_of(8) + body)
}

impl Message {
    /// # Errors
    /// Where it is cut short or has fields that no message has.
    pub fn parse(prologue: &[u8; PROLOGUE], rest: &[u8]) -> Result<Self> {
        let fields_length = u32::from_le_bytes([12, 13, 14, 15].map(|i| prologue[i])) as usize;
        let body_at = fields_length.next_multiple_of(8);
        // The prologue is 16 bytes, so alignment within the rest is alignment within the message.
        let mut reader = Reader { bytes: rest.get(..fields_length).unwrap_or_default(), at: 0 };
        let body = rest.get(body_at..).unwrap_or_default().to_vec();
        let mut message = Self { kind: prologue[1], body, ..Self::default() };
        while reader.at < fields_length {
            reader.align(8);
            let code = reader.take(1)?[0];
            match (code, reader.signature()?) {
                (3, "s") => message.member = reader.text()?.to_owned(),
                (4, "s") => message.error = reader.text()?.to_owned(),
                (5, "u") => message.reply_to = reader.u32()?,
                (SIGNATURE_FIELD, "g") => message.signature = reader.signature()?.to_owned(),
                (_, "s" | "o") => drop(reader.text()?),
                (_, "g") => drop(reader.signature()?),
                (_, "u") => drop(reader.u32()?),
                (code, signature) => bail!("the bus sent a header field {code} of type {signature:?}"),
            }
        }
        Ok(message)
    }

    /// Every string among the arguments; numbers are left out, and a variant counts as what is in it: a string, or a list
    /// of them. Reading ends where something else follows.
    pub fn strings(&self) -> Vec<String> {
        let mut reader = Reader { bytes: &self.body, at: 0 };
        let mut strings = Vec::new();
        for kind in self.signature.chars() {
            let variant = if kind == 'v' { reader.signature().unwrap_or_default() } else { "" };
            match (kind, variant) {
                ('s' | 'o', _) | ('v', "s" | "o") => strings.extend(reader.text().map(str::to_owned)),
                ('v', "as") => strings.extend(reader.texts().unwrap_or_default()),
                ('u', _) => drop(reader.u32()),
                _ => break,
            }
        }
        strings
    }

    /// Name and description of each unit in the reply to ListUnitsByPatterns.
    ///
    /// # Errors
    /// Where it is something else.
    pub fn units(&self) -> Result<Vec<(String, String)>> {
        if self.signature != "a(ssssssouso)" {
            bail!("systemd listed its units in the form {:?}", self.signature);
        }
        let mut reader = Reader { bytes: &self.body, at: 0 };
        let end = reader.u32()? as usize;
        reader.align(8);
        let end = end + reader.at;
        let mut units = Vec::new();
        while reader.at < end {
            reader.align(8);
            units.push((reader.text()?.to_owned(), reader.text()?.to_owned()));
            // Three states, the unit that it follows and its object; the number, kind and object of its job.
            (0..5).try_for_each(|_| reader.text().map(drop))?;
            reader.u32()?;
            (0..2).try_for_each(|_| reader.text().map(drop))?;
        }
        Ok(units)
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let Some(bytes) = self.at.checked_add(count).and_then(|end| self.bytes.get(self.at..end)) else {
            bail!("the bus sent a message that is cut short");
        };
        self.at += count;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        self.align(4);
        Ok(u32::from_le_bytes(self.take(4)?.try_into()?))
    }

    fn text(&mut self) -> Result<&'a str> {
        let length = self.u32()? as usize;
        let text = std::str::from_utf8(self.take(length)?)?;
        self.take(1)?;
        Ok(text)
    }

    fn texts(&mut self) -> Result<Vec<String>> {
        let end = self.u32()? as usize + self.at;
        let mut texts = Vec::new();
        while self.at < end {
            texts.push(self.text()?.to_owned());
        }
        Ok(texts)
    }

    fn signature(&mut self) -> Result<&'a str> {
        let length = usize::from(self.take(1)?[0]);
        let text = std::str::from_utf8(self.take(length)?)?;
        self.take(1)?;
        Ok(text)
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;

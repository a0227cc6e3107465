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
            Self::Array(..) => "a",
        }
    }

    fn signature(&self) -> String {
        match self {
            Self::Array(element, _) => format!("a{element}"),
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
const LONGEST: usize = 1 << 20;

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

    /// Every string among the arguments; numbers are left out, and a variant counts as what is in it. Reading ends where
    /// something follows that is neither.
    pub fn strings(&self) -> Vec<String> {
        let mut reader = Reader { bytes: &self.body, at: 0 };
        let mut strings = Vec::new();
        for kind in self.signature.chars() {
            let kind = match kind {
                'v' => reader.signature().ok().and_then(|signature| signature.chars().next()).unwrap_or_default(),
                kind => kind,
            };
            match kind {
                's' | 'o' => strings.extend(reader.text().map(str::to_owned)),
                'u' => drop(reader.u32()),
                _ => break,
            }
        }
        strings
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

    fn signature(&mut self) -> Result<&'a str> {
        let length = usize::from(self.take(1)?[0]);
        let text = std::str::from_utf8(self.take(length)?)?;
        self.take(1)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a call looks like to its receiver: the header fields of calls and replies are the same.
    fn received(bytes: &[u8]) -> Message {
        let (prologue, rest) = bytes.split_first_chunk::<PROLOGUE>().unwrap();
        assert_eq!(rest_length(prologue).unwrap(), rest.len());
        Message::parse(prologue, rest).unwrap()
    }

    #[test]
    fn what_is_written_can_be_read() {
        let target = Target { destination: "a.b", path: "/a", interface: "a.b.C", member: "Do" };
        let properties = [("Slice".to_owned(), Value::text("x.slice")), ("Delegate".to_owned(), Value::Bool(true))];
        let arguments = [Argument::Str("unit"), Argument::Str("replace"), Argument::Properties(&properties)];
        let message = received(&call(7, &target, &arguments));
        assert_eq!((message.kind, message.member.as_str()), (METHOD_CALL, "Do"));
        assert_eq!(message.signature, "ssa(sv)");
        assert_eq!(message.strings(), ["unit", "replace"]);
        assert!(received(&call(8, &target, &[])).strings().is_empty());
    }

    #[test]
    fn alignment_of_arrays_counts_from_the_first_element() {
        let mut writer = Writer::default();
        writer.argument(&Argument::Properties(&[("A".to_owned(), Value::Array("t", vec![Value::U64(5)]))]));
        let expected: &[u8] = &[
            32, 0, 0, 0, 0, 0, 0, 0, // length, padding to the struct
            1, 0, 0, 0, b'A', 0, // name
            2, b'a', b't', 0, 0, 0, // signature, padding to the length
            8, 0, 0, 0, 0, 0, 0, 0, // length, padding to the number, which the length leaves out
            0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(writer.0.len(), 8 + u32::from_le_bytes(writer.0[..4].try_into().unwrap()) as usize);
        assert_eq!(writer.0[8..14], expected[8..14]);
        assert_eq!(writer.0[writer.0.len() - 8..], [5, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn nonsense_is_an_error_and_no_panic() {
        assert!(rest_length(&[0xff; PROLOGUE]).is_err());
        let mut prologue = [0; PROLOGUE];
        prologue[0] = b'l';
        prologue[12] = 40;
        assert!(Message::parse(&prologue, &[6, 1, b's', 0, 255, 255, 255, 255]).is_err());
    }
}

//! A connection to systemd over D-Bus, for the few calls that a container needs. D-Bus specification, "Authentication
//! Protocol"; org.freedesktop.systemd1(5).
//!
//! Own code, because no crate of a fitting size connects from within a user namespace: the numeric id that they
//! authenticate with is the one in the namespace, and the bus knows another. Here no id is sent; the kernel tells the bus.

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::wire::{self, Argument, Message, PROLOGUE, Target};

/// systemd answers in milliseconds; a machine that starts many containers at once gets a little longer.
const PATIENCE: Duration = Duration::from_secs(30);
const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const BUS: &str = "org.freedesktop.DBus";

/// An error that systemd, or the bus, answered with.
#[derive(Debug)]
pub struct Refusal {
    name: String,
    message: String,
}

impl Refusal {
    /// Whether it is this error; `NoSuchUnit` stands for `org.freedesktop.systemd1.NoSuchUnit`.
    pub fn is(&self, error: &str) -> bool {
        self.name.rsplit('.').next() == Some(error)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, message } = self;
        if message.is_empty() { write!(out, "systemd: {name}") } else { write!(out, "systemd: {message} ({name})") }
    }
}

impl std::error::Error for Refusal {}

/// A connection to the system's or to a user's systemd.
pub struct Bus {
    stream: UnixStream,
    serial: u32,
    /// Jobs that have ended, and how.
    finished: Vec<(String, String)>,
}

impl Bus {
    /// Connects to the system's systemd, or to that of the caller's own session.
    ///
    /// # Errors
    /// Where there is none, with what to do.
    pub fn connect(user: bool) -> Result<Self> {
        let (addresses, private) = if user { user_addresses()? } else { system_addresses() };
        let mut failures = Vec::new();
        for address in &addresses {
            match Self::through_bus(address) {
                Ok(bus) => return Ok(bus),
                Err(error) => failures.push(error.context(format!("connect to {}", address.shown()))),
            }
        }
        // systemd listens by itself, for the time before a bus runs and for hosts that have none.
        match open(&Address::Path(private)).and_then(Self::authenticated) {
            Ok(bus) => Ok(bus),
            Err(error) => Err(failures.into_iter().next().unwrap_or(error)),
        }
    }

    fn through_bus(address: &Address) -> Result<Self> {
        let mut bus = Self::authenticated(open(address)?)?;
        bus.call(&bus_call("Hello"), &[])?;
        Ok(bus)
    }

    /// The SASL exchange. A line at a time: nothing follows the server's last line before we have said BEGIN.
    fn authenticated(stream: UnixStream) -> Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut bus = Self { stream, serial: 0, finished: Vec::new() };
        bus.stream.write_all(b"\0AUTH EXTERNAL\r\n")?;
        if bus.line()?.starts_with("DATA") {
            bus.stream.write_all(b"DATA\r\n")?;
        } else {
            bail!("the bus does not take the kernel's word for who we are");
        }
        let answer = bus.line()?;
        if !answer.starts_with("OK") {
            bail!("the bus refused us: {answer}");
        }
        bus.stream.write_all(b"BEGIN\r\n")?;
        Ok(bus)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            line.push(byte[0]);
            if line.len() > 512 {
                bail!("the bus sent something that is no answer");
            }
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// A method of systemd's manager.
    ///
    /// # Errors
    /// [`Refusal`]; where the connection broke.
    pub fn manager(&mut self, member: &str, arguments: &[Argument]) -> Result<Message> {
        let target = Target { destination: SYSTEMD, path: MANAGER_PATH, interface: MANAGER, member };
        self.call(&target, arguments).with_context(|| format!("ask systemd for {member}"))
    }

    /// A property of systemd's manager that is a string.
    ///
    /// # Errors
    /// As [`Self::manager`].
    pub fn property(&mut self, name: &str) -> Result<String> {
        let strings = self.strings_of(MANAGER_PATH, "Manager", name)?;
        strings.into_iter().next().with_context(|| format!("systemd did not tell its {name}"))
    }

    /// A property of one of systemd's objects that is a string or a list of strings; `Unit` stands for
    /// `org.freedesktop.systemd1.Unit`.
    ///
    /// # Errors
    /// As [`Self::manager`].
    pub fn strings_of(&mut self, path: &str, interface: &str, name: &str) -> Result<Vec<String>> {
        let target = Target { destination: SYSTEMD, path, interface: "org.freedesktop.DBus.Properties", member: "Get" };
        let interface = format!("{SYSTEMD}.{interface}");
        let reply = self.call(&target, &[Argument::Str(&interface), Argument::Str(name)]);
        Ok(reply.with_context(|| format!("ask systemd for its {name}"))?.strings())
    }

    /// Asks to be told of every job that ends. Has to come before the job.
    ///
    /// # Errors
    /// As [`Self::manager`].
    pub fn subscribe(&mut self) -> Result<()> {
        self.manager("Subscribe", &[])?;
        let rule = format!("type='signal',interface='{MANAGER}',member='JobRemoved'");
        match self.call(&bus_call("AddMatch"), &[Argument::Str(&rule)]) {
            Ok(_) => Ok(()),
            // systemd itself, without a bus between, knows no such method and needs none.
            Err(error) if error.is::<Refusal>() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Waits until a job has ended: `done` if all went well.
    ///
    /// # Errors
    /// Where it takes too long, or the connection broke.
    pub fn wait_for_job(&mut self, job: &str) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some((_, result)) = self.finished.iter().find(|(path, _)| path == job) {
                return Ok(result.clone());
            }
            if Instant::now() > deadline {
                bail!("systemd did not finish {job} within {} seconds", PATIENCE.as_secs());
            }
            self.receive()?;
        }
    }

    fn call(&mut self, target: &Target, arguments: &[Argument]) -> Result<Message> {
        self.serial += 1;
        let serial = self.serial;
        self.stream.write_all(&wire::call(serial, target, arguments))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = self.receive()?;
            if message.reply_to == serial && message.kind == wire::METHOD_RETURN {
                return Ok(message);
            }
            if message.reply_to == serial && message.kind == wire::ERROR {
                let text = message.strings().into_iter().next().unwrap_or_default();
                return Err(Refusal { name: message.error, message: text }.into());
            }
            if Instant::now() > deadline {
                bail!("systemd did not answer {} within {} seconds", target.member, PATIENCE.as_secs());
            }
        }
    }

    /// One message; the end of a job is noted on the way.
    fn receive(&mut self) -> Result<Message> {
        let mut prologue = [0; PROLOGUE];
        self.stream.read_exact(&mut prologue)?;
        let mut rest = vec![0; wire::rest_length(&prologue)?];
        self.stream.read_exact(&mut rest)?;
        let message = Message::parse(&prologue, &rest)?;
        if message.kind == wire::SIGNAL && message.member == "JobRemoved" {
            // id, job, unit, result; the id is a number.
            let mut strings = message.strings().into_iter();
            if let (Some(job), Some(_unit), Some(result)) = (strings.next(), strings.next(), strings.next()) {
                self.finished.push((job, result));
            }
        }
        Ok(message)
    }
}

fn bus_call(member: &str) -> Target<'_> {
    Target { destination: BUS, path: "/org/freedesktop/DBus", interface: BUS, member }
}

/// Where a bus listens.
#[derive(Debug, PartialEq, Eq)]
enum Address {
    Path(PathBuf),
    Abstract(Vec<u8>),
}

impl Address {
    fn shown(&self) -> String {
        match self {
            Self::Path(path) => path.display().to_string(),
            Self::Abstract(name) => format!("@{}", String::from_utf8_lossy(name)),
        }
    }
}

fn open(address: &Address) -> Result<UnixStream> {
    Ok(match address {
        Address::Path(path) => UnixStream::connect(path)?,
        Address::Abstract(name) => UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?,
    })
}

fn system_addresses() -> (Vec<Address>, PathBuf) {
    let given = std::env::var("DBUS_SYSTEM_BUS_ADDRESS").map(|list| parse_addresses(&list)).unwrap_or_default();
    let usual = Address::Path("/run/dbus/system_bus_socket".into());
    (if given.is_empty() { vec![usual] } else { given }, "/run/systemd/private".into())
}

fn user_addresses() -> Result<(Vec<Address>, PathBuf)> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let mut addresses =
        std::env::var("DBUS_SESSION_BUS_ADDRESS").map(|list| parse_addresses(&list)).unwrap_or_default();
    if let (true, Some(runtime)) = (addresses.is_empty(), &runtime) {
        addresses.push(Address::Path(runtime.join("bus")));
    }
    if addresses.is_empty() {
        return Err(anyhow!(
            "neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR says where the user's session is; log in, or `loginctl enable-linger`, and set XDG_RUNTIME_DIR=/run/user/UID"
        ));
    }
    Ok((addresses, runtime.unwrap_or_default().join("systemd/private")))
}

/// `unix:path=/run/user/1000/bus,guid=…;unix:abstract=…`: those that are sockets of this machine.
fn parse_addresses(list: &str) -> Vec<Address> {
    list.split(';').filter_map(|address| parse_address(address.strip_prefix("unix:")?)).collect()
}

fn parse_address(pairs: &str) -> Option<Address> {
    pairs.split(',').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        let value = unescape(value);
        match key {
            "path" => Some(Address::Path(Path::new(std::ffi::OsStr::from_bytes(&value)).to_owned())),
            "abstract" => Some(Address::Abstract(value)),
            _ => None,
        }
    })
}

/// `%2f` and the like.
fn unescape(value: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.get(..2).filter(|_| first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        let code = code.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { &tail[2..] } else { tail };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_buses() {
        let list = "tcp:host=x;unix:guid=1,path=/run/user/1000/b%20s;unix:abstract=/tmp/dbus-x,guid=2;unix:tmpdir=/t";
        let expected = [Address::Path("/run/user/1000/b s".into()), Address::Abstract(b"/tmp/dbus-x".to_vec())];
        assert_eq!(parse_addresses(list), expected);
    }
}

//! The few requests of rtnetlink(7) that moving a device takes.

use crate::sys::Errno;
use crate::sys::net::Netlink;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use std::os::fd::{AsFd, AsRawFd};

/// More than the kernel puts into one datagram of a dump.
const BUFFER: usize = 64 * 1024;

/// A network device as it is in one namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub up: bool,
    pub loopback: bool,
    /// Its hardware address.
    pub address: Vec<u8>,
    /// Of a kind that is made by software, and ends with the namespace that it is in.
    pub is_virtual: bool,
}

/// The devices of one network namespace.
pub struct Devices {
    socket: Netlink,
    sequence: u32,
}

impl Devices {
    pub fn new(socket: Netlink) -> Self {
        Self { socket, sequence: 0 }
    }

    /// The device of this name; `None` where there is none.
    ///
    /// # Errors
    /// The kernel's.
    pub fn find(&mut self, name: &str) -> nix::Result<Option<Link>> {
        let request = with_attributes(0, vec![LinkAttribute::IfName(name.to_owned())]);
        match self.request(Message::GetLink(request), NLM_F_ACK) {
            Ok(answers) => Ok(answers.into_iter().find_map(link)),
            Err(Errno::ENODEV) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// All devices.
    ///
    /// # Errors
    /// The kernel's.
    pub fn all(&mut self) -> nix::Result<Vec<Link>> {
        let answers = self.request(Message::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        Ok(answers.into_iter().filter_map(link).collect())
    }

    /// The addresses of one device.
    ///
    /// # Errors
    /// The kernel's.
    pub fn addresses(&mut self, index: u32) -> nix::Result<Vec<AddressMessage>> {
        let answers = self.request(Message::GetAddress(AddressMessage::default()), NLM_F_DUMP)?;
        let of_device = |answer| match answer {
            Message::NewAddress(address) if address.header.index == index => Some(address),
            _ => None,
        };
        Ok(answers.into_iter().filter_map(of_device).collect())
    }

    /// # Errors
    /// `EEXIST` where the device has this address already.
    pub fn add_address(&mut self, address: AddressMessage) -> nix::Result<()> {
        self.request(Message::NewAddress(address), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    /// # Errors
    /// The kernel's.
    pub fn set_up(&mut self, index: u32, up: bool) -> nix::Result<()> {
        let mut message = with_attributes(index, Vec::new());
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        self.request(Message::SetLink(message), NLM_F_ACK).map(drop)
    }

    /// Moves a device into another namespace, under a name that is free there.
    ///
    /// # Errors
    /// `EINVAL` for a device that belongs to its namespace; `EEXIST` where the name is taken.
    pub fn transfer(&mut self, index: u32, name: &str, namespace: impl AsFd) -> nix::Result<()> {
        let namespace = namespace.as_fd().as_raw_fd();
        let attributes = vec![LinkAttribute::NetNsFd(namespace), LinkAttribute::IfName(name.to_owned())];
        self.request(Message::SetLink(with_attributes(index, attributes)), NLM_F_ACK).map(drop)
    }

    /// # Errors
    /// `EEXIST` where the name is taken; `EBUSY` for a device that is up, before Linux 6.2.
    pub fn rename(&mut self, index: u32, name: &str) -> nix::Result<()> {
        let attributes = vec![LinkAttribute::IfName(name.to_owned())];
        self.request(Message::SetLink(with_attributes(index, attributes)), NLM_F_ACK).map(drop)
    }

    fn request(&mut self, message: Message, flags: u16) -> nix::Result<Vec<Message>> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes)?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = self.socket.receive(&mut buffer)?;
            if self.take(&buffer[..length], &mut answers)? {
                return Ok(answers);
            }
        }
    }

    /// Takes the messages of one datagram; whether the answer is complete.
    fn take(&self, mut bytes: &[u8], answers: &mut Vec<Message>) -> nix::Result<bool> {
        while !bytes.is_empty() {
            let message = NetlinkMessage::<Message>::deserialize(bytes).map_err(|_| Errno::EBADMSG)?;
            let length = (message.header.length as usize).next_multiple_of(4).clamp(1, bytes.len());
            bytes = &bytes[length..];
            if message.header.sequence_number != self.sequence {
                continue;
            }
            match message.payload {
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::Error(error) => {
                    return match error.code {
                        None => Ok(true),
                        Some(code) => Err(Errno::from_raw(code.get().abs())),
                    };
                }
                _ => {}
            }
        }
        Ok(false)
    }
}

fn with_attributes(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes;
    message
}

fn link(answer: Message) -> Option<Link> {
    let Message::NewLink(message) = answer else { return None };
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        up: flags.contains(LinkFlags::Up),
        loopback: flags.contains(LinkFlags::Loopback),
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(address) => link.address = address,
            LinkAttribute::LinkInfo(infos) => {
                link.is_virtual = infos.iter().any(|info| matches!(info, LinkInfo::Kind(_)));
            }
            _ => {}
        }
    }
    Some(link)
}

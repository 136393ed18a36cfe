//! A netlink socket that sends many requests in one call and reads their answers.

use crate::NetlinkError;
use crate::message::{HEADER_BYTES, Message, attributes};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const BUFFER_BYTES: usize = 64 << 10;
/// What a socket's send buffer surely takes without being asked.
const DEFAULT_SEND_BYTES: usize = 128 << 10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// One answer of a dump: its kind and what follows the header.
pub(crate) type Answer = (u16, Vec<u8>);

pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// For links, addresses, routes; in the network namespace of the calling thread.
    pub(crate) fn route() -> Result<Socket, NetlinkError> {
        Socket::open(None)
    }

    /// For nftables; in the network namespace of the calling thread.
    pub(crate) fn netfilter() -> Result<Socket, NetlinkError> {
        Socket::open(Some(rustix::net::netlink::NETFILTER))
    }

    fn open(protocol: Option<Protocol>) -> Result<Socket, NetlinkError> {
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol);
        let fd = fd.map_err(|e| NetlinkError::Socket(e.into()))?;
        Ok(Socket { fd, sequence: 0, buffer: vec![0; BUFFER_BYTES] })
    }

    /// Sends all of `messages` at once and waits for the kernel's answer to each. All are tried; the first error that
    /// its message does not tolerate is returned.
    pub(crate) fn call(&mut self, mut messages: Vec<Message>) -> Result<(), NetlinkError> {
        if messages.is_empty() {
            return Ok(());
        }
        let first = self.sequence + 1;
        let mut bytes = Vec::new();
        for message in &mut messages {
            self.sequence += 1;
            message.bytes[6] |= libc::NLM_F_ACK as u8;
            message.finish(self.sequence);
            bytes.extend_from_slice(&message.bytes);
        }
        self.send(&bytes)?;
        let mut failure = None;
        let mut open = messages.len();
        while open > 0 {
            for (kind, sequence, body) in self.receive()? {
                let Some(message) = sequence.checked_sub(first).and_then(|i| messages.get(i as usize)) else {
                    continue;
                };
                if kind != NLMSG_ERROR {
                    continue;
                }
                open -= 1;
                let errno = error(&body).ok_or(NetlinkError::Malformed)?;
                if errno != 0 && !message.tolerated.contains(&errno) && failure.is_none() {
                    failure = Some(refused(&message.what, errno));
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Sends a batch that the kernel carries out as a whole or not at all; its first and last message are the batch's
    /// edges. The first refusal is returned.
    pub(crate) fn batch(&mut self, mut messages: Vec<Message>) -> Result<(), NetlinkError> {
        let first = self.sequence + 1;
        let last = messages.len().saturating_sub(2);
        let mut bytes = Vec::new();
        for (number, message) in messages.iter_mut().enumerate() {
            self.sequence += 1;
            if number == last {
                message.bytes[6] |= libc::NLM_F_ACK as u8;
            }
            message.finish(self.sequence);
            bytes.extend_from_slice(&message.bytes);
        }
        let room = bytes.len() + BUFFER_BYTES;
        if room > DEFAULT_SEND_BYTES {
            let forced = rustix::net::sockopt::set_socket_send_buffer_size_force(&self.fd, room);
            forced.map_err(|error| NetlinkError::Socket(error.into()))?;
        }
        self.send(&bytes)?;
        // All answers are there when the send returns: nothing is waited for.
        let mut failure = None;
        let mut done = false;
        while let Some(answers) = self.receive_with(RecvFlags::DONTWAIT)? {
            for (kind, sequence, _, body) in answers {
                let number = sequence.checked_sub(first).map(|number| number as usize);
                let Some((number, message)) = number.and_then(|at| Some((at, messages.get(at)?))) else { continue };
                if kind != NLMSG_ERROR {
                    continue;
                }
                match error(&body).ok_or(NetlinkError::Malformed)? {
                    0 => done |= number == last,
                    errno if failure.is_none() => failure = Some(refused(&message.what, errno)),
                    _ => {}
                }
            }
        }
        match failure {
            Some(failure) => Err(failure),
            None if done => Ok(()),
            None => Err(NetlinkError::Malformed),
        }
    }

    /// Its own address: what messages it sends come from.
    pub(crate) fn port(&self) -> Result<u32, NetlinkError> {
        let address = rustix::net::getsockname(&self.fd).map_err(|error| NetlinkError::Socket(error.into()))?;
        let address = rustix::net::netlink::SocketAddrNetlink::try_from(address);
        Ok(address.map_err(|error| NetlinkError::Socket(error.into()))?.pid())
    }

    /// Notifications of the group come from now on.
    pub(crate) fn join(&mut self, group: u32) -> Result<(), NetlinkError> {
        let address = rustix::net::netlink::SocketAddrNetlink::new(0, 1 << (group - 1));
        rustix::net::bind(&self.fd, &address).map_err(|error| NetlinkError::Socket(error.into()))
    }

    /// What came: kind, whose port it is from, body. `None`: some were lost.
    pub(crate) fn notifications(&mut self) -> Option<Vec<(u16, u32, Vec<u8>)>> {
        let all = self.receive_with(RecvFlags::DONTWAIT).ok()?;
        Some(all.into_iter().flatten().map(|(kind, _, port, body)| (kind, port, body)).collect())
    }

    /// Sends a request and collects its answers: a dump's, or the one.
    pub(crate) fn query(&mut self, mut message: Message) -> Result<Vec<Answer>, NetlinkError> {
        let is_dump = u16::from_ne_bytes([message.bytes[6], message.bytes[7]]) & libc::NLM_F_DUMP as u16 != 0;
        self.sequence += 1;
        let sequence = self.sequence;
        message.finish(sequence);
        let bytes = std::mem::take(&mut message.bytes);
        self.send(&bytes)?;
        let mut answers = Vec::new();
        loop {
            for (kind, number, body) in self.receive()? {
                match kind {
                    _ if number != sequence => {}
                    NLMSG_DONE => return Ok(answers),
                    NLMSG_ERROR => match error(&body).ok_or(NetlinkError::Malformed)? {
                        0 => return Ok(answers),
                        errno if message.tolerated.contains(&errno) => return Ok(answers),
                        errno => return Err(refused(&message.what, errno)),
                    },
                    kind => answers.push((kind, body)),
                }
            }
            if !is_dump && !answers.is_empty() {
                return Ok(answers);
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), NetlinkError> {
        loop {
            match rustix::net::send(&self.fd, bytes, SendFlags::empty()) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(NetlinkError::Socket(error.into())),
                Ok(_) => return Ok(()),
            }
        }
    }

    /// The messages of one datagram: kind, number, body.
    fn receive(&mut self) -> Result<Vec<(u16, u32, Vec<u8>)>, NetlinkError> {
        let all = self.receive_with(RecvFlags::empty())?.into_iter().flatten();
        Ok(all.map(|(kind, sequence, _, body)| (kind, sequence, body)).collect())
    }

    /// The messages of one datagram: kind, number, port, body. `None`: there is none and it was not to be waited for.
    fn receive_with(&mut self, flags: RecvFlags) -> Result<Option<Vec<(u16, u32, u32, Vec<u8>)>>, NetlinkError> {
        let n = loop {
            match rustix::net::recv(&self.fd, &mut self.buffer[..], flags) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(NetlinkError::Socket(error.into())),
                Ok((n, _)) => break n,
            }
        };
        let mut rest = &self.buffer[..n];
        let mut messages = Vec::new();
        while rest.len() >= HEADER_BYTES {
            let word = |at: usize| u32::from_ne_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
            let length = word(0) as usize;
            let body = rest.get(HEADER_BYTES..length).ok_or(NetlinkError::Malformed)?.to_vec();
            messages.push((u16::from_ne_bytes([rest[4], rest[5]]), word(8), word(12), body));
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(Some(messages))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The error number of an acknowledgement; 0: done.
fn error(body: &[u8]) -> Option<i32> {
    let code = i32::from_ne_bytes(body.get(..4)?.try_into().ok()?);
    Some(-code)
}

fn refused(what: &str, errno: i32) -> NetlinkError {
    NetlinkError::Refused { what: what.to_owned(), source: std::io::Error::from_raw_os_error(errno) }
}

/// Whether the kernel said `errno`.
pub(crate) fn is(error: &NetlinkError, errno: i32) -> bool {
    matches!(error, NetlinkError::Refused { source, .. } if source.raw_os_error() == Some(errno))
}

/// The index of a link of the socket's namespace.
pub(crate) fn index_of(socket: &mut Socket, name: &str) -> Result<Option<u32>, NetlinkError> {
    let body = crate::message::link_body(0, 0, 0);
    let message = Message::new(libc::RTM_GETLINK, 0, &body, format!("look up {name}")).text(libc::IFLA_IFNAME, name);
    let answers = socket.query(message.tolerate(&[libc::ENODEV]))?;
    Ok(answers.first().and_then(|(_, body)| Some(u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?))))
}

/// A text attribute without its zero.
pub(crate) fn text(body: &[u8], skip: usize, kind: u16) -> String {
    let found = attributes(body.get(skip..).unwrap_or_default()).find(|(k, _)| *k == kind);
    let value = found.map(|(_, value)| value).unwrap_or_default();
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}

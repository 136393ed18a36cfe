//! Under systemd the instance's groups lie in a scope of its own that systemd hands over (`Delegate=yes`): outside of
//! the daemon's unit, and in nobody's way. Asked for over systemd's private socket, in as much of D-Bus as that takes.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const SOCKET: &str = "/run/systemd/private";
/// systemd takes moments; one that hangs must not hang us.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Whether systemd is the first process here (`sd_booted(3)`).
pub(super) fn booted() -> bool {
    std::path::Path::new("/run/systemd/system").is_dir()
}

/// Starts the scope `name` with the process `pid` in it, and returns when it has.
pub(super) fn start(name: &str, pid: u32) -> Result<()> {
    run(name, &start_transient_unit(name, pid))
}

/// Lets systemd end the scope and what is left in it. One that it does not know is no error.
pub(super) fn stop(name: &str) -> Result<()> {
    let mut body = Writer::default();
    body.string(name);
    body.string("replace");
    match run(name, &call("StopUnit", "ss", body)) {
        Err(e) if e.to_string().contains("NoSuchUnit") => Ok(()),
        result => result,
    }
}

/// Sends the call and waits for the end of the job that it begins.
fn run(name: &str, call: &[u8]) -> Result<()> {
    let mut bus = Bus::connect()?;
    bus.stream.write_all(call)?;
    loop {
        let message = bus.receive()?;
        match (message.kind, message.member.as_str()) {
            (ERROR, _) => {
                let text = Reader::new(&message.body).string().unwrap_or_default();
                return Err(Error::other(format!("systemd: {}: {text}", message.error)));
            }
            // (number, job, unit, result)
            (SIGNAL, "JobRemoved") => {
                let mut body = Reader::new(&message.body);
                body.number()?;
                body.string()?;
                if body.string()? == name {
                    return match body.string()?.as_str() {
                        "done" => Ok(()),
                        other => Err(Error::other(format!("systemd: job of {name}: {other}"))),
                    };
                }
            }
            _ => {}
        }
    }
}

const CALL: u8 = 1;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// Puts values one after another, each aligned as D-Bus wants it.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, value: u32) {
        self.align(4);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn string(&mut self, text: &str) {
        self.number(text.len() as u32);
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    /// An array of structures.
    fn array(&mut self, elements: &[&dyn Fn(&mut Writer)]) {
        self.number(0);
        let length_at = self.0.len() - 4;
        self.align(8);
        let begin = self.0.len();
        for element in elements {
            self.align(8);
            element(self);
        }
        let length = (self.0.len() - begin) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }
}

fn start_transient_unit(name: &str, pid: u32) -> Vec<u8> {
    let mut body = Writer::default();
    body.string(name);
    body.string("fail");
    body.array(&[
        &|w| property(w, "Description", "s", |w| w.string("Pods of minke")),
        &|w| property(w, "Delegate", "b", |w| w.number(1)),
        // systemd's default is a share of what the machine can do; Pods have limits of their own.
        &|w| {
            property(w, "TasksMax", "t", |w| {
                w.align(8);
                w.0.extend_from_slice(&u64::MAX.to_le_bytes());
            });
        },
        &|w| property(w, "CollectMode", "s", |w| w.string("inactive-or-failed")),
        &|w| {
            property(w, "PIDs", "au", |w| {
                w.number(4);
                w.number(pid);
            });
        },
    ]);
    body.array(&[]);
    call("StartTransientUnit", "ssa(sv)a(sa(sv))", body)
}

/// A call of systemd's manager.
fn call(member: &str, signature: &str, body: Writer) -> Vec<u8> {
    fn text<'a>(code: u8, kind: &'a str, value: &'a str) -> impl Fn(&mut Writer) + 'a {
        move |w: &mut Writer| {
            w.0.push(code);
            w.signature(kind);
            if kind == "g" { w.signature(value) } else { w.string(value) }
        }
    }
    let mut message = Writer::default();
    message.0.extend_from_slice(&[b'l', CALL, 0, 1]);
    message.number(body.0.len() as u32);
    message.number(1);
    message.array(&[
        &text(1, "o", "/org/freedesktop/systemd1"),
        &text(2, "s", "org.freedesktop.systemd1.Manager"),
        &text(3, "s", member),
        &text(6, "s", "org.freedesktop.systemd1"),
        &text(8, "g", signature),
    ]);
    message.align(8);
    message.0.extend(body.0);
    message.0
}

fn property(writer: &mut Writer, name: &str, kind: &str, value: impl Fn(&mut Writer)) {
    writer.string(name);
    writer.signature(kind);
    value(writer);
}

/// A message, as far as it matters.
struct Message {
    kind: u8,
    member: String,
    error: String,
    body: Vec<u8>,
}

struct Bus {
    stream: UnixStream,
}

impl Bus {
    fn connect() -> Result<Bus> {
        let mut stream = UnixStream::connect(SOCKET)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        // User number 0, in hexadecimal digits of its text.
        stream.write_all(b"\0AUTH EXTERNAL 30\r\n")?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        if !line.starts_with(b"OK ") {
            return Err(Error::other(format!("systemd: {}", String::from_utf8_lossy(&line).trim())));
        }
        stream.write_all(b"BEGIN\r\n")?;
        Ok(Bus { stream })
    }

    fn receive(&mut self) -> Result<Message> {
        let mut head = [0; 16];
        self.stream.read_exact(&mut head)?;
        let mut numbers = Reader { bytes: &head, at: 4 };
        let (body, _, fields) = (numbers.number()? as usize, numbers.number()?, numbers.number()? as usize);
        if head[0] != b'l' || body > 1 << 20 || fields > 1 << 20 {
            return Err(Error::new(ErrorKind::InvalidData, "systemd answers in another language"));
        }
        let mut rest = vec![0; fields.next_multiple_of(8) + body];
        self.stream.read_exact(&mut rest)?;
        let mut message = Message {
            kind: head[1],
            member: String::new(),
            error: String::new(),
            body: rest.split_off(rest.len() - body),
        };
        let mut reader = Reader::new(&rest[..fields]);
        while reader.at < fields {
            reader.align(8);
            let code = reader.byte()?;
            let value = match reader.signature()?.as_str() {
                "s" | "o" => reader.string()?,
                "g" => reader.signature()?,
                "u" => reader.number()?.to_string(),
                other => {
                    return Err(Error::new(ErrorKind::InvalidData, format!("systemd: a header field of type {other}")));
                }
            };
            match code {
                3 => message.member = value,
                4 => message.error = value,
                _ => {}
            }
        }
        Ok(message)
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(len);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        self.at += len;
        taken.ok_or_else(|| Error::new(ErrorKind::UnexpectedEof, "systemd's message is cut off"))
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u32> {
        self.align(4);
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn string(&mut self) -> Result<String> {
        let len = self.number()? as usize;
        let bytes = self.take(len.saturating_add(1))?;
        Ok(String::from_utf8_lossy(&bytes[..len]).into_owned())
    }

    fn signature(&mut self) -> Result<String> {
        let len = self.byte()?.into();
        let bytes = self.take(len + 1)?;
        Ok(String::from_utf8_lossy(&bytes[..len]).into_owned())
    }
}

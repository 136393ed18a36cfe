//! The messages between the daemon and a shim: one length-prefixed frame each, over a unix stream socket.
//! File descriptors travel as ancillary data of the frame's first byte.

use crate::plan::{ContainerPlan, ProcessPlan, SandboxPlan};
use crate::wire::{Bytes, Malformed, Wire, message, record};

/// Told in `Hello`; raised when old and new no longer understand each other.
pub const VERSION: u32 = 1;
/// No frame is longer: a plan with the largest environment the kernel takes fits.
pub const MAX_FRAME: usize = 8 << 20;

record! {
    pub struct Empty {}
}
record! {
    pub struct Hello {
        1 => version: u32,
        2 => pid: i32,
        3 => sandbox_id: String,
    }
}
record! {
    pub struct Target {
        1 => id: String,
    }
}
record! {
    pub struct Signal {
        1 => id: String,
        2 => signal: i32,
    }
}
record! {
    pub struct Stop {
        1 => id: String,
        2 => signal: i32,
        /// Then SIGKILL to all of it.
        3 => grace_period_ms: u64,
    }
}
record! {
    /// Descriptors: standard input, output and error; with a terminal none (its master comes back).
    pub struct Exec {
        1 => id: String,
        2 => process: ProcessPlan,
    }
}
record! {
    pub struct Attach {
        1 => id: String,
        2 => stdin: bool,
    }
}
record! {
    pub struct Connect {
        1 => port: u32,
        /// To `::1` instead of `127.0.0.1`.
        2 => ipv6: bool,
    }
}
record! {
    pub struct Resize {
        1 => id: String,
        2 => columns: u32,
        3 => rows: u32,
    }
}
record! {
    /// Bytes of a stream: 0 input, 1 output, 2 error.
    pub struct Data {
        1 => stream: u32,
        2 => bytes: Bytes,
    }
}

message! {
    pub enum Request {
        1 => Hello(Hello),
        /// Makes the namespaces. Once.
        2 => Setup(SandboxPlan),
        /// Exits are told on this connection from now on.
        3 => Subscribe(Empty),
        4 => State(Empty),
        /// Makes the container; its first process waits before its program.
        5 => Create(ContainerPlan),
        /// Lets it go; answered when the program has been executed or could not be.
        6 => Start(Target),
        7 => Signal(Signal),
        8 => Stop(Stop),
        /// SIGKILL to every process of it.
        9 => Kill(Target),
        /// Runs a process in a container; this connection's end kills it.
        10 => Exec(Exec),
        11 => Attach(Attach),
        12 => Resize(Resize),
        13 => ReopenLog(Target),
        /// Forgets an ended container.
        14 => Delete(Target),
        /// A TCP socket connecting to the port on the Pod's loopback.
        15 => Connect(Connect),
        /// Ends the shim; refused while containers run.
        16 => Shutdown(Empty),
        /// Attached: input for the container. An empty one closes it.
        17 => Data(Data),
    }
}

record! {
    pub struct Failure {
        1 => text: String,
        /// What there is not: the container's id.
        2 => not_found: bool,
        /// The program could not be started: the user's fault, in runc's words.
        3 => start: bool,
    }
}
record! {
    pub struct Started {
        1 => pid: i32,
        /// Unix time.
        2 => at_ns: i64,
    }
}
record! {
    /// How a process ended.
    pub struct ExitRecord {
        1 => id: String,
        /// 128 + signal when killed by one.
        2 => code: i32,
        3 => signal: i32,
        4 => oom_killed: bool,
        5 => started_at_ns: i64,
        6 => finished_at_ns: i64,
    }
}
record! {
    pub struct ContainerInfo {
        1 => id: String,
        2 => pid: i32,
        /// 0: created only.
        3 => started_at_ns: i64,
        4 => exit: Option<ExitRecord>,
    }
}
record! {
    pub struct StateInfo {
        1 => set_up: bool,
        2 => containers: Vec<ContainerInfo>,
    }
}

message! {
    pub enum Reply {
        1 => Ok(Empty),
        2 => Failed(Failure),
        3 => Hello(Hello),
        4 => State(StateInfo),
        5 => Started(Started),
        /// A container ended (subscribers), or the exec of this connection.
        6 => Exited(ExitRecord),
        7 => Data(Data),
    }
}

/// A frame of `message`.
pub fn frame<T: Wire>(message: &T) -> Vec<u8> {
    let mut out = Vec::new();
    crate::wire::put_sized(message, &mut out);
    out
}

/// Takes one whole frame off the front of `buffer`, if there is one.
pub fn take_frame<T: Wire>(buffer: &mut Vec<u8>) -> Result<Option<T>, Malformed> {
    let Some(len) = buffer.first_chunk::<4>() else { return Ok(None) };
    let len = u32::from_le_bytes(*len) as usize;
    if len > MAX_FRAME {
        return Err(Malformed("a frame is too long"));
    }
    if buffer.len() < 4 + len {
        return Ok(None);
    }
    let message = T::get(&buffer[4..4 + len]);
    buffer.drain(..4 + len);
    message.map(Some)
}

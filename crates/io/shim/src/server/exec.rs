//! Processes executed in a container, and sockets opened in the Pod's network, each for one connection.

use super::connection::{failed, not_found};
use super::{ExecProcess, Shim};
use crate::launch::{self, ExecTarget};
use crate::proto::{Connect, Empty, Exec, ExitRecord, Failure, Reply, Started};
use crate::sys::{self, Errno};
use std::os::fd::RawFd;

impl Shim {
    pub(super) fn exec(&mut self, token: u64, exec: &Exec) -> Result<(), Reply> {
        let stdio = if exec.process.tty {
            [-1; 3]
        } else {
            self.take_fds::<3>(token).ok_or_else(|| failed("an exec needs three descriptors"))?
        };
        let result = self.launch_exec(exec, stdio);
        if !exec.process.tty {
            for fd in stdio {
                sys::close(fd);
            }
        }
        let (child, master) = result?;
        let started_at_ns = sys::now_ns();
        self.execs.insert(child.pid, ExecProcess { child, connection: token, started_at_ns });
        let reply = Reply::Started(Started { pid: child.pid, at_ns: started_at_ns });
        match master {
            Some(master) => {
                self.send(token, &reply, &[master]);
                sys::close(master);
            }
            None => self.send(token, &reply, &[]),
        }
        Ok(())
    }

    fn launch_exec(&mut self, exec: &Exec, stdio: [RawFd; 3]) -> Result<(sys::Child, Option<RawFd>), Reply> {
        let container = self.containers.get(&exec.id).ok_or_else(|| not_found(&exec.id))?;
        if !container.is_running() {
            return Err(failed(format!("container {:?} is not running", exec.id)));
        }
        let target = ExecTarget {
            pidfd: container.pidfd(),
            cgroup: &container.cgroup,
            namespaces: container.namespaces,
            own_pid_namespace: self.pause.map_or(self.pid_namespace, |pause| pause.pidfd),
            users: self.users,
        };
        let failed = |e: launch::LaunchError| Reply::Failed(Failure { text: e.text, not_found: false, start: true });
        let launched = launch::exec(&exec.process, &target, stdio).map_err(failed)?;
        let master = launched.master;
        match launched.start(&exec.process) {
            Ok(child) => Ok((child, master)),
            Err(e) => {
                if let Some(master) = master {
                    sys::close(master);
                }
                Err(failed(e))
            }
        }
    }

    pub(super) fn exec_ended(&mut self, exec: &ExecProcess, code: i32, signal: i32) {
        sys::close(exec.child.pidfd);
        let exit = ExitRecord {
            code,
            signal,
            started_at_ns: exec.started_at_ns,
            finished_at_ns: sys::now_ns(),
            ..ExitRecord::default()
        };
        self.send(exec.connection, &Reply::Exited(exit), &[]);
        self.close_when_sent(exec.connection);
    }

    /// Passes a socket that is connecting to the Pod's loopback: the shim stands in the Pod's network.
    pub(super) fn connect(&mut self, token: u64, connect: &Connect) -> Result<(), Reply> {
        let socket = connecting(connect).map_err(|e| {
            let (family, address) = if connect.ipv6 { (6, "[::1]") } else { (4, "127.0.0.1") };
            failed(format!("dial tcp{family} {address}:{}: connect: {e}", connect.port))
        })?;
        self.send(token, &Reply::Ok(Empty {}), &[socket]);
        sys::close(socket);
        Ok(())
    }
}

fn connecting(connect: &Connect) -> sys::Result<RawFd> {
    let port = u16::try_from(connect.port).map_err(|_| Errno(libc::EINVAL))?.to_be();
    let family = if connect.ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    // SAFETY: addresses are locals of the size told.
    unsafe {
        let socket = libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0);
        if socket < 0 {
            return Err(sys::errno());
        }
        let result = if connect.ipv6 {
            let mut address: libc::sockaddr_in6 = std::mem::zeroed();
            address.sin6_family = family as _;
            address.sin6_port = port;
            address.sin6_addr.s6_addr[15] = 1;
            libc::connect(socket, (&raw const address).cast(), size_of_val(&address) as _)
        } else {
            let mut address: libc::sockaddr_in = std::mem::zeroed();
            address.sin_family = family as _;
            address.sin_port = port;
            address.sin_addr.s_addr = u32::from(std::net::Ipv4Addr::LOCALHOST).to_be();
            libc::connect(socket, (&raw const address).cast(), size_of_val(&address) as _)
        };
        let error = sys::errno();
        if result < 0 && error != Errno(libc::EINPROGRESS) {
            sys::close(socket);
            return Err(error);
        }
        Ok(socket)
    }
}

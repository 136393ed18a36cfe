//! The first process of a Pod's shared process namespace: a program of a few instructions that waits for ever. Its
//! children reap themselves, because it is executed with SIGCHLD ignored.

use crate::sys::{self, Child, Errno};
use std::ffi::CStr;

/// `ppoll(NULL, 0, NULL, NULL)` in a loop.
#[cfg(target_arch = "x86_64")]
const CODE: [u8; 21] = [
    0x31, 0xff, // xor edi, edi
    0x31, 0xf6, // xor esi, esi
    0x31, 0xd2, // xor edx, edx
    0x4d, 0x31, 0xd2, // xor r10, r10
    0x4d, 0x31, 0xc0, // xor r8, r8
    0xb8, 0x0f, 0x01, 0x00, 0x00, // mov eax, 271
    0x0f, 0x05, // syscall
    0xeb, 0xeb, // jmp -21
];

#[cfg(target_arch = "aarch64")]
const CODE: [u8; 28] = [
    0x00, 0x00, 0x80, 0xd2, // mov x0, 0
    0x01, 0x00, 0x80, 0xd2, // mov x1, 0
    0x02, 0x00, 0x80, 0xd2, // mov x2, 0
    0x03, 0x00, 0x80, 0xd2, // mov x3, 0
    0x28, 0x09, 0x80, 0xd2, // mov x8, 73
    0x01, 0x00, 0x00, 0xd4, // svc 0
    0xfa, 0xff, 0xff, 0x17, // b -24
];
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

const BASE: u64 = 0x0040_0000;
const HEADERS: u64 = 64 + 56;

/// The program as an ELF file with one segment.
fn program() -> Vec<u8> {
    let len = HEADERS + CODE.len() as u64;
    let mut elf = Vec::with_capacity(len as usize);
    elf.extend_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    elf.extend_from_slice(&2u16.to_le_bytes());
    elf.extend_from_slice(&MACHINE.to_le_bytes());
    elf.extend_from_slice(&1u32.to_le_bytes());
    for word in [BASE + HEADERS, 64, 0] {
        elf.extend_from_slice(&word.to_le_bytes());
    }
    elf.extend_from_slice(&0u32.to_le_bytes());
    for half in [64u16, 56, 1, 0, 0, 0] {
        elf.extend_from_slice(&half.to_le_bytes());
    }
    // One loadable segment: readable and executable.
    for word in [1u32, 5] {
        elf.extend_from_slice(&word.to_le_bytes());
    }
    for word in [0, BASE, BASE, len, len, 0x1000] {
        elf.extend_from_slice(&word.to_le_bytes());
    }
    elf.extend_from_slice(&CODE);
    elf
}

/// Starts it as a child: the first of the process namespace that children of the caller are born in.
pub(crate) fn start(v1_procs: &[i32], cgroup: Option<i32>) -> sys::Result<Child> {
    let program = program();
    // SAFETY: the name is static; 1 is MFD_CLOEXEC, 2 MFD_ALLOW_SEALING.
    let file = unsafe { libc::syscall(libc::SYS_memfd_create, c"pause".as_ptr(), 3) } as i32;
    if file < 0 {
        return Err(sys::errno());
    }
    sys::write(file, &program)?;
    // SAFETY: numbers only. 1033 is F_ADD_SEALS, 15 all seals there are: the file never changes again.
    unsafe { libc::fcntl(file, 1033, 15) };
    let (told, tell) = sys::pipe(0)?;
    let arguments = [c"/pause".as_ptr(), std::ptr::null()];
    let environment = [std::ptr::null::<std::ffi::c_char>()];
    // SAFETY: the child makes system calls only.
    let Some(child) = (unsafe { sys::clone3(0, cgroup) })? else {
        for fd in v1_procs {
            let _ = sys::write(*fd, b"0");
        }
        let _ = sys::setsid();
        let _ = sys::chdir(c"/");
        // SAFETY: the strings and arrays live; an ignored signal stays ignored through exec.
        unsafe {
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            let empty: &CStr = c"";
            let (args, env) = (arguments.as_ptr(), environment.as_ptr());
            libc::syscall(libc::SYS_execveat, file, empty.as_ptr(), args, env, libc::AT_EMPTY_PATH);
        }
        let _ = sys::write(tell, &sys::errno().0.to_le_bytes());
        sys::exit_now(1);
    };
    sys::close(tell);
    sys::close(file);
    let mut error = [0; 4];
    let n = sys::read(told, &mut error)?;
    sys::close(told);
    if n == 4 {
        let _ = sys::wait(child.pid, 0);
        sys::close(child.pidfd);
        return Err(Errno(i32::from_le_bytes(error)));
    }
    Ok(child)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_runs_and_waits() {
        let child = start(&[], None).unwrap();
        assert_eq!(sys::wait(child.pid, libc::WNOHANG), Ok(None));
        let name = std::fs::read_to_string(format!("/proc/{}/cmdline", child.pid)).unwrap();
        assert_eq!(name, "/pause\0");
        sys::pidfd_send_signal(child.pidfd, libc::SIGKILL).unwrap();
        assert_eq!(sys::wait(child.pid, 0), Ok(Some((137, 9))));
        sys::close(child.pidfd);
    }
}

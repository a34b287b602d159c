"""What a process that decodes strangers' files gives up, for good: memory, files, network, other programs.

seccomp needs no rights: from then on the kernel answers calls that open a connection, start a program or
reach into another process with "not permitted".
"""

from __future__ import annotations

import ctypes
import platform
import resource
import struct

CALLS = {
    "x86_64": (0xC000003E, 317, (41, 59, 101, 310, 311, 322, 425, 438)),
    "aarch64": (0xC00000B7, 277, (198, 221, 117, 270, 271, 281, 425, 438)),
}
"""The kernel's number of a machine (linux/audit.h), that of the call seccomp, and those of socket, execve,
ptrace, process_vm_readv, process_vm_writev, execveat, io_uring_setup and pidfd_getfd, which are refused."""
_LOAD, _EQUAL, _NOT_BELOW, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _NOT_PERMITTED, _KILL = 0x7FFF0000, 0x00050001, 0x80000000
_OTHER_ABI = 0x40000000
"""x32's calls are numbered from here on."""
_NO_NEW_PRIVILEGES = 38
_SET_FILTER, _OF_ALL_THREADS = 1, 1


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def confine(memory: int) -> str:
    """Sets the limits of this process.

    Args:
        memory: Bytes of address space that this process may have.

    Returns:
        Why the network is still open; empty where it isn't.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if (machine := platform.machine()) not in CALLS:
        return f"nobody has written down the system calls of {machine}"
    audited, seccomp, refused = CALLS[machine]
    program = _program(audited, refused)
    libc = ctypes.CDLL(None, use_errno=True)
    loaded = _Program(len(program) // 8, program)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.syscall(
        seccomp, _SET_FILTER, _OF_ALL_THREADS, ctypes.byref(loaded)
    ):
        return f"the kernel refuses seccomp, errno {ctypes.get_errno()}"
    return ""


def _program(audited: int, calls: tuple[int, ...]) -> bytes:
    """A filter over `struct seccomp_data` (linux/seccomp.h): number of the call at 0, machine at 4."""
    # A jump leads to the last line, and counts from the line after its own.
    code = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, audited),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
        (_NOT_BELOW, len(calls) + 1, 0, _OTHER_ABI),
        *((_EQUAL, len(calls) - place, 0, call) for place, call in enumerate(calls)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _NOT_PERMITTED),
    ]
    return b"".join(struct.pack("=HBBI", *line) for line in code)

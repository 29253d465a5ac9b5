"""A seccomp filter: system calls that reading a model never makes end the process.

A list of what is forbidden, not of what is allowed: the calls that the interpreter, TensorFlow and
the C library make differ with their versions. Source: seccomp(2), seccomp_filter.rst of Linux.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Mapping

from lrf_core.sandbox.kernel import NO_NEW_PRIVILEGES, control_process, system_call

# AUDIT_ARCH_*, number of seccomp(2).
_MACHINES = {"x86_64": (0xC000003E, 317), "aarch64": (0xC00000B7, 277)}
_FILTER_MODE, _ALL_THREADS = 1, 1

_KILL, _FAIL, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _MACHINE, _FIRST_ARGUMENT = 0, 4, 16

_NEW_THREAD = 0x00010000  # CLONE_THREAD
_OPEN_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_X32 = 0x40000000  # the same machine's other set of calls

# Numbers by machine (x86_64, aarch64); None: the machine has no such call.
_NETWORK = {
    "socket": (41, 198),
    "connect": (42, 203),
    "accept": (43, 202),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "bind": (49, 200),
    "listen": (50, 201),
    "socketpair": (53, 199),
    "accept4": (288, 242),
}
_PROCESSES = {
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    # Memory that no limit counts.
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
}
# The parts of the kernel that escapes from containers went through.
_KERNEL = {
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "open_by_handle_at": (304, 265),
}
# Landlock leaves these open, even of files that it does not let be read.
_OWNERS = {
    "chmod": (90, None),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "setxattrat": (463, 463),
    "removexattrat": (466, 466),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
}
_CHANGES = {
    "creat": (85, None),
    "truncate": (76, 45),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "link": (86, None),
    "linkat": (265, 37),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "mknod": (133, None),
    "mknodat": (259, 33),
}
_OPEN, _OPENAT, _OPENAT2 = (2, None), (257, 56), (437, 437)
_CLONE, _CLONE3, _SIGNAL, _SIGNAL_THREAD = (56, 220), (435, 435), (62, 129), (234, 131)

_Calls = Mapping[str, tuple[int | None, int | None]]


def restrict_calls(machine: str, *, writing: bool) -> bool:
    """End this process, all its threads, when it makes a forbidden system call; for good.

    Forbidden are the network, other processes, and parts of the kernel that reading needs none of.

    Args:
        machine: as `platform.machine()` names it.
        writing: whether files may be written, made and removed; else that fails as on a read-only
            file system (EACCES).

    Returns whether the filter is in force; False when the kernel has none, or not for this machine.
    """
    if machine not in _MACHINES:
        return False
    program = _program(machine, os.getpid(), writing=writing)
    instructions = ctypes.create_string_buffer(b"".join(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))

    given = Program(len(program), ctypes.addressof(instructions))
    try:
        control_process(NO_NEW_PRIVILEGES, 1)
        system_call(_MACHINES[machine][1], _FILTER_MODE, _ALL_THREADS, ctypes.byref(given))
    except OSError:
        return False
    return True


def _program(machine: str, process: int, *, writing: bool) -> list[bytes]:
    """The filter, in classic BPF; the first instruction that returns decides."""
    column = list(_MACHINES).index(machine)
    program = [
        *(_step(_LOAD, _MACHINE), _step(_IF_EQUAL, _MACHINES[machine][0], 1, 0)),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
    ]
    if machine == "x86_64":
        program += [_step(_IF_AT_LEAST, _X32, 0, 1), _step(_RETURN, _KILL)]

    def answer(calls: _Calls, with_: int) -> None:
        for numbers in calls.values():
            if (number := numbers[column]) is not None:
                program.extend([_step(_IF_EQUAL, number, 0, 1), _step(_RETURN, with_)])

    def by_argument(call: tuple[int | None, int | None], argument: int, *judge: bytes) -> None:
        if (number := call[column]) is not None:
            load = _step(_LOAD, _FIRST_ARGUMENT + 8 * argument)
            program.extend([_step(_IF_EQUAL, number, 0, 1 + len(judge)), load, *judge])

    answer(_NETWORK, _KILL)
    answer(_PROCESSES, _KILL)
    answer(_KERNEL, _KILL)
    answer(_OWNERS, _FAIL | errno.EPERM)
    # Its arguments lie in memory, which a filter cannot see; the C library uses clone instead.
    answer({"clone3": _CLONE3, "openat2": _OPENAT2}, _FAIL | errno.ENOSYS)
    allow, kill = _step(_RETURN, _ALLOW), _step(_RETURN, _KILL)
    by_argument(_CLONE, 0, _step(_IF_ANY_BIT, _NEW_THREAD, 0, 1), allow, kill)
    for signal in (_SIGNAL, _SIGNAL_THREAD):  # its own threads: abort()
        by_argument(signal, 0, _step(_IF_EQUAL, process, 0, 1), allow, kill)
    if not writing:
        answer(_CHANGES, _FAIL | errno.EACCES)
        deny = _step(_RETURN, _FAIL | errno.EACCES)
        for call, flags in ((_OPEN, 1), (_OPENAT, 2)):
            by_argument(call, flags, _step(_IF_ANY_BIT, _OPEN_TO_WRITE, 0, 1), deny, allow)
    return [*program, allow]


def _step(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, operand)

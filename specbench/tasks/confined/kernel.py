"""What the Linux kernel enforces: namespaces, capabilities, Landlock, a system-call filter.

Each function narrows the calling process for good and returns whether the kernel agreed. None
needs privileges. Numbers and structures are those of the kernel's own headers (`linux/landlock.h`,
`linux/seccomp.h`, `linux/filter.h`, `asm/unistd.h`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys
from typing import NamedTuple

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNS = 0x00020000
_CLONE_NEWNET = 0x40000000
_CLONE_NEWIPC = 0x08000000
_CLONE_THREAD = 0x00010000

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _prctl(option: int, value: int = 0) -> bool:
    assert _libc is not None
    zero = ctypes.c_ulong(0)
    return int(_libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero)) == 0


def become_subreaper() -> None:
    """Make orphaned descendants children of this process, so that it can end them."""
    if _libc is not None:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, however it ends."""
    if _libc is not None:
        _prctl(_PR_SET_PDEATHSIG, 9)


def forbid_inspection() -> None:
    """Keep processes of the same user from reading this process's memory."""
    if _libc is not None:
        _prctl(_PR_SET_DUMPABLE, 0)


def enter_namespaces() -> bool:
    """Move into user, mount, network and IPC namespaces of its own, without any interface up."""
    if _libc is None:
        return False
    user, group = os.getuid(), os.getgid()
    if _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWNET | _CLONE_NEWIPC) != 0:
        return False
    with contextlib.suppress(OSError):
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    return True


def drop_capabilities() -> bool:
    """Give up every capability, so that root is bound by file permissions and limits too."""
    if _libc is None:
        return False
    header = struct.pack("Ii", 0x20080522, 0)
    return int(_libc.capset(header, bytes(24))) == 0


class _FileRights:
    """Access rights of Landlock's file rules."""

    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    REFER = 1 << 13
    TRUNCATE = 1 << 14


_LANDLOCK_CREATE, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT = 444, 445, 446


def confine_files(writable: str, readable: list[str], listed: list[str], newest: int = 99) -> bool:
    """Leave this process one folder to write in and a few to read from (Landlock).

    From the kernel's sixth Landlock version on, this also ends signals to and abstract sockets of
    processes outside.

    Args:
        writable: The folder to write in.
        readable: Files and folders to read.
        listed: Folders of which the names may be read, for the interpreter to find its modules.
        newest: The Landlock version to use at the most.
    """
    if _libc is None:
        return False
    version = int(_libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1))
    if version < 1:
        return False
    version = min(version, newest)
    rights = (1 << 13) - 1
    for since, right in ((2, 1 << 13), (3, 1 << 14), (5, 1 << 15)):
        if version >= since:
            rights |= right
    attributes = struct.pack("QQQ", rights, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = int(_libc.syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(size), 0))
    if ruleset < 0:
        return False
    read = _FileRights.READ_FILE | _FileRights.READ_DIR
    write = (
        read
        | _FileRights.WRITE_FILE
        | _FileRights.REMOVE_DIR
        | _FileRights.REMOVE_FILE
        | _FileRights.MAKE_DIR
        | _FileRights.MAKE_REG
        | _FileRights.REFER
        | _FileRights.TRUNCATE
    )
    try:
        if not _allow_beneath(ruleset, writable, write & rights):
            return False
        _allow_beneath(ruleset, os.devnull, _FileRights.READ_FILE | _FileRights.WRITE_FILE)
        for path in listed:
            _allow_beneath(ruleset, path, _FileRights.READ_DIR)
        for path in readable:
            _allow_beneath(ruleset, path, read if os.path.isdir(path) else _FileRights.READ_FILE)
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        return int(_libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0)) == 0
    finally:
        os.close(ruleset)


def _allow_beneath(ruleset: int, path: str, rights: int) -> bool:
    assert _libc is not None
    try:
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        rule = struct.pack("=Qi", rights, folder)
        return int(_libc.syscall(_LANDLOCK_ADD_RULE, ruleset, 1, rule, 0)) == 0
    finally:
        os.close(folder)


class _Machine(NamedTuple):
    """How one processor architecture numbers its system calls."""

    audit: int
    column: int


_MACHINES = {"x86_64": _Machine(0xC000003E, 0), "aarch64": _Machine(0xC00000B7, 1)}

_FORBIDDEN = {
    "network": (
        "socket 41 198  connect 42 203  bind 49 200  listen 50 201  accept 43 202"
        " accept4 288 242  io_uring_setup 425 425  io_uring_enter 426 426"
        " io_uring_register 427 427"
    ),
    "processes": "fork 57 -1  vfork 58 -1  execve 59 221  execveat 322 281  setsid 112 157"
    " setpgid 109 154",
    "other processes": (
        "ptrace 101 117  process_vm_readv 310 270  process_vm_writev 311 271"
        " process_madvise 440 440  process_mrelease 448 448  kcmp 312 272  pidfd_open 434 434"
        " pidfd_getfd 438 438  pidfd_send_signal 424 424  rt_sigqueueinfo 129 138"
        " rt_tgsigqueueinfo 297 240  tkill 200 130  sched_setscheduler 144 119"
        " sched_setparam 142 118  sched_setattr 314 274  sched_setaffinity 203 122"
        " setpriority 141 140  ioprio_set 251 30  migrate_pages 256 238  move_pages 279 239"
        " inotify_init 253 -1  inotify_init1 294 26  inotify_add_watch 254 27"
    ),
    "the system": (
        "setns 308 268  unshare 272 97  mount 165 40  umount2 166 39  pivot_root 155 41"
        " chroot 161 51  move_mount 429 429  open_tree 428 428  fsopen 430 430  fsconfig 431 431"
        " fsmount 432 432  fspick 433 433  mount_setattr 442 442  bpf 321 280"
        " perf_event_open 298 241  userfaultfd 323 282  keyctl 250 219  add_key 248 217"
        " request_key 249 218  init_module 175 105  finit_module 313 273  delete_module 176 106"
        " kexec_load 246 104  kexec_file_load 320 294  reboot 169 142  swapon 167 224"
        " swapoff 168 225  sethostname 170 161  setdomainname 171 162  settimeofday 164 170"
        " clock_settime 227 112  clock_adjtime 305 266  adjtimex 159 171  acct 163 89"
        " quotactl 179 60  quotactl_fd 443 443  personality 135 92  open_by_handle_at 304 265"
        " name_to_handle_at 303 264  fanotify_init 300 262  syslog 103 116  vhangup 153 58"
        " iopl 172 -1  ioperm 173 -1  modify_ldt 154 -1"
    ),
    "memory without a limit": (
        "memfd_create 319 279  memfd_secret 447 447  shmget 29 194  shmat 30 196  shmctl 31 195"
        " msgget 68 186  msgsnd 69 189  msgrcv 70 188  msgctl 71 187  semget 64 190  semop 65 193"
        " semctl 66 191  semtimedop 220 192  mq_open 240 180"
    ),
    "ownership and modes": (
        "chmod 90 -1  fchmod 91 52  fchmodat 268 53  chown 92 -1  fchown 93 55  lchown 94 -1"
        " fchownat 260 54  utime 132 -1  utimes 235 -1  futimesat 261 -1  utimensat 280 88"
        " setxattr 188 5  lsetxattr 189 6  fsetxattr 190 7  removexattr 197 14"
        " lremovexattr 198 15  fremovexattr 199 16  truncate 76 45"
    ),
}
_CHANGES_FILES = (
    "creat 85 -1  unlink 87 -1  unlinkat 263 35  rename 82 -1  renameat 264 38  renameat2 316 276"
    " mkdir 83 -1  mkdirat 258 34  rmdir 84 -1  mknod 133 -1  mknodat 259 33  link 86 -1"
    " linkat 265 37  symlink 88 -1  symlinkat 266 36"
)
_SIGNALLING_FCNTL = (8, 10, 15, 1024, 1026)
"""F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY: the kernel sends signals for them."""
_SIGNALLING_IOCTL = (0x5452, 0x8901, 0x8902)
"""FIOASYNC, FIOSETOWN, SIOCSPGRP: the same by another door."""
_AF_UNIX, _SOCK_STREAM = 1, 1
_NEWEST_KNOWN_CALL = 450
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000 | 1
_UNKNOWN = 0x00050000 | 38


def _numbers(table: str, column: int) -> list[int]:
    words = table.split()
    calls = zip(words[1::3], words[2::3], strict=True)
    return [int(pair[column]) for pair in calls if int(pair[column]) >= 0]


def filter_system_calls(read_only: bool) -> bool:
    """Refuse network, processes, signals to others and all that administers a machine (seccomp).

    A refused call fails with EPERM, so the program sees an ordinary PermissionError. Threads
    remain possible, other processes do not.

    Args:
        read_only: Also refuse every change to the file system, for kernels on which nothing else
            confines writing to one folder.
    """
    machine = _MACHINES.get(os.uname().machine)
    if _libc is None or machine is None or struct.calcsize("P") != 8:
        return False
    program = _Filter()
    program.load(4)
    program.unless_equal_refuse(machine.audit)
    program.load(0)
    program.add(_AT_LEAST, _NEWEST_KNOWN_CALL + 1, 0, 1)
    program.add(_RETURN, _UNKNOWN)
    forbidden = " ".join(_FORBIDDEN.values()) + (" " + _CHANGES_FILES if read_only else "")
    for number in _numbers(forbidden, machine.column):
        program.refuse(number)
    unknown = "clone3 435 435" + (" openat2 437 437" if read_only else "")
    for number in _numbers(unknown, machine.column):
        program.refuse(number, _UNKNOWN)
    column = machine.column
    program.refuse_unless((56, 220)[column], 0, _ANY_BIT, _CLONE_THREAD)
    for number in ((62, 129)[column], (234, 131)[column]):
        program.refuse_unless(number, 0, _EQUAL, os.getpid())
    program.refuse_unless((302, 261)[column], 0, _EQUAL, 0)
    program.refuse_if((157, 167)[column], 0, _EQUAL, _PR_SET_PDEATHSIG)
    for command in _SIGNALLING_FCNTL:
        program.refuse_if((72, 25)[column], 1, _EQUAL, command)
    for command in _SIGNALLING_IOCTL:
        program.refuse_if((16, 29)[column], 1, _EQUAL, command)
    pair = (53, 199)[column]  # a stream has no addresses: nothing can be sent to another socket
    program.refuse_unless(pair, 0, _EQUAL, _AF_UNIX)
    program.refuse_if(pair, 1, _ANY_BIT, 0xF & ~_SOCK_STREAM)
    if read_only:
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        program.refuse_if((257, 56)[column], 2, _ANY_BIT, writes)
        if column == 0:
            program.refuse_if(2, 1, _ANY_BIT, writes)
    program.add(_RETURN, _ALLOW)
    return program.install()


class _Filter:
    """A classic BPF program over `struct seccomp_data`."""

    def __init__(self) -> None:
        self._instructions: list[bytes] = []

    def add(self, code: int, constant: int, if_true: int = 0, if_false: int = 0) -> None:
        self._instructions.append(struct.pack("=HBBI", code, if_true, if_false, constant))

    def load(self, offset: int) -> None:
        self.add(_LOAD, offset)

    def unless_equal_refuse(self, constant: int) -> None:
        self.add(_EQUAL, constant, 1, 0)
        self.add(_RETURN, _REFUSE)

    def refuse(self, number: int, verdict: int = _REFUSE) -> None:
        self.add(_EQUAL, number, 0, 1)
        self.add(_RETURN, verdict)

    def refuse_if(self, number: int, index: int, test: int, constant: int) -> None:
        """Refuse a call whose argument passes a test (its lower 32 bits count)."""
        self._argument(number, index, test, constant, (0, 1))

    def refuse_unless(self, number: int, index: int, test: int, constant: int) -> None:
        """Refuse a call whose argument does not pass a test (its lower 32 bits count)."""
        self._argument(number, index, test, constant, (1, 0))

    def _argument(
        self, number: int, index: int, test: int, constant: int, jumps: tuple[int, int]
    ) -> None:
        self.add(_EQUAL, number, 0, 4)
        self.load(16 + 8 * index)
        self.add(test, constant, *jumps)
        self.add(_RETURN, _REFUSE)
        self.load(0)

    def install(self) -> bool:
        code = b"".join(self._instructions)
        buffer = ctypes.create_string_buffer(code, len(code))
        program = struct.pack("HxxxxxxP", len(self._instructions), ctypes.addressof(buffer))
        holder = ctypes.create_string_buffer(program, len(program))
        return _prctl(_PR_SET_NO_NEW_PRIVS, 1) and self._apply(ctypes.addressof(holder))

    @staticmethod
    def _apply(address: int) -> bool:
        assert _libc is not None
        zero = ctypes.c_ulong(0)
        mode = ctypes.c_ulong(_SECCOMP_MODE_FILTER)
        return int(_libc.prctl(_PR_SET_SECCOMP, mode, ctypes.c_ulong(address), zero, zero)) == 0

"""Programs that attack the sandbox; `benchmarks.sandbox_attacks` and the tests run them.

Each program may use `OUTSIDE` (a folder that is not its own, with `victim` and `secret` in it),
`VICTIM` (a process that is not its own), `PORT` and `SOCKET` (where somebody listens), `PACKAGE`
(the harness's own code), `libc()` and `escaped()`. It calls `escaped` where it did what it must not
do; what it changed outside is found by those who look there.
"""

PREAMBLE = """
import os, sys
OUTSIDE, VICTIM, PORT, SOCKET, PACKAGE = {outside!r}, {victim}, {port}, {socket!r}, {package!r}
def libc():
    import ctypes
    return ctypes.CDLL(None, use_errno=True)
def escaped():
    print('ESC' + 'APED', flush=True)
"""

CHANGES = {
    "writes": "open(OUTSIDE + '/victim', 'w')",
    "appends": "open(OUTSIDE + '/victim', 'a').write('x')",
    "creates": "open(OUTSIDE + '/new', 'x')",
    "removes": "os.remove(OUTSIDE + '/victim')",
    "renames inwards": "os.rename(OUTSIDE + '/victim', 'mine')",
    "renames outwards": "open('mine', 'w').close(); os.rename('mine', OUTSIDE + '/victim')",
    "removes a tree": "import shutil; shutil.rmtree(OUTSIDE, ignore_errors=True)",
    "makes a folder": "os.mkdir(OUTSIDE + '/new')",
    "makes a link": "os.link(OUTSIDE + '/victim', 'mine'); open('mine', 'w')",
    "writes through a symbolic link": "os.symlink(OUTSIDE + '/victim', 'l'); open('l', 'w')",
    "makes a symbolic link": "os.symlink('/', OUTSIDE + '/new')",
    "changes a mode": "os.chmod(OUTSIDE + '/victim', 0o777)",
    "changes a mode by a new call": (
        "assert libc().syscall(452, -100, (OUTSIDE + '/victim').encode(), 0o777, 0) == 0"
    ),
    "changes a time": "os.utime(OUTSIDE + '/victim', (1, 1))",
    "truncates": "os.truncate(OUTSIDE + '/victim', 0)",
    "makes a pipe": "os.mkfifo(OUTSIDE + '/new')",
    "makes a node": "os.mknod(OUTSIDE + '/new')",
    "makes a socket": "import socket; socket.socket(1).bind(OUTSIDE + '/new')",
    "writes by descriptor": (
        "d = os.open(OUTSIDE, os.O_RDONLY)\nos.open('victim', os.O_WRONLY | os.O_TRUNC, dir_fd=d)"
    ),
    "removes by descriptor": "os.remove('victim', dir_fd=os.open(OUTSIDE, os.O_RDONLY))",
    "makes a folder by descriptor": "os.mkdir('new', dir_fd=os.open(OUTSIDE, os.O_RDONLY))",
    "makes a pipe by descriptor": "os.mkfifo('new', dir_fd=os.open(OUTSIDE, os.O_RDONLY))",
    "climbs by descriptor": (
        "up = os.path.relpath(OUTSIDE + '/victim', os.getcwd())\nd = os.open('.', os.O_RDONLY)\n"
        "os.makedirs('a/b/c/d/e'); os.chdir('a/b/c/d/e')\n"
        "os.open(up, os.O_WRONLY | os.O_TRUNC, dir_fd=d)"
    ),
    "climbs from another folder": "os.chdir(OUTSIDE); open('victim', 'w')",
    "writes as another text": (
        "class T(str):\n    def startswith(self, *a): return True\n"
        "    def split(self, *a): return os.getcwd().split('/') + ['x']\n"
        "    def __getitem__(self, k): return '/'\nopen(T(OUTSIDE + '/victim'), 'w')"
    ),
    "writes with builtins patched": (
        "import builtins, posixpath\nposixpath.realpath = lambda *a, **k: os.getcwd() + '/x'\n"
        "posixpath._joinrealpath = lambda *a: (os.getcwd() + '/x', True)\n"
        "os.fsdecode = lambda p: os.getcwd() + '/x'\n"
        "keep, builtins.isinstance = builtins.isinstance, lambda *a: False\n"
        "open(OUTSIDE + '/victim', 'w')"
    ),
    "writes by SQLite": (
        "import sqlite3\nsqlite3.connect(OUTSIDE + '/new').execute('create table t (x)')"
    ),
    "attaches by SQLite": (
        "import sqlite3\nc = sqlite3.connect(':memory:')\n"
        "c.execute('attach ? as o', (OUTSIDE + '/new',))\nc.execute('create table o.t (x)')"
    ),
    "writes a key log": (
        "import ssl\nssl.create_default_context().keylog_filename = OUTSIDE + '/new'"
    ),
    "writes by dbm": "import _gdbm\n_gdbm.open(OUTSIDE + '/new', 'c')",
    "writes by readline": "import readline\nreadline.write_history_file(OUTSIDE + '/new')",
    "writes by the C library": "assert libc().creat((OUTSIDE + '/new').encode(), 0o600) >= 0",
    "writes by openat2": (
        "import struct\nhow = struct.pack('QQQ', os.O_WRONLY | os.O_CREAT, 0o600, 0)\n"
        "libc().syscall(437, -100, (OUTSIDE + '/new').encode(), how, 24)"
    ),
    "exchanges": (
        "open('mine', 'w').close()\n"
        "libc().renameat2(-100, b'mine', -100, (OUTSIDE + '/victim').encode(), 2)"
    ),
    "writes from another interpreter": (
        "import _xxsubinterpreters as s\ni = s.create()\n"
        "s.run_string(i, 'open(' + repr(OUTSIDE + '/victim') + ', \"w\")')"
    ),
    "unmounts": (
        "l = libc(); l.unshare(0x10020000)\nfor p in ('.', '/', '/usr/lib'):\n"
        "    l.umount2(p.encode(), 2)\nopen(OUTSIDE + '/victim', 'w')"
    ),
    "NumPy writes": "import numpy\nnumpy.zeros(9).tofile(OUTSIDE + '/victim')",
    "NumPy saves": "import numpy\nnumpy.save(OUTSIDE + '/new.npy', numpy.zeros(9))",
    "NumPy maps": (
        "import numpy\nm = numpy.memmap(OUTSIDE + '/victim', 'u1', 'r+')\nm[:] = 0\nm.flush()"
    ),
}

READS = {
    "reads": "print(open(OUTSIDE + '/secret').read())",
    "reads by descriptor": (
        "d = os.open(OUTSIDE, os.O_RDONLY)\nprint(os.read(os.open('secret', 0, dir_fd=d), 99))"
    ),
    "asks for a size": "print(os.stat(OUTSIDE + '/secret').st_size)",
    "asks for a size by statx": (
        "import ctypes, struct\nb = ctypes.create_string_buffer(256)\n"
        "libc().statx(-100, (OUTSIDE + '/secret').encode(), 0, 0x7ff, b)\n"
        "print(struct.unpack_from('Q', b, 40)[0])"
    ),
    "asks whether a file is there": "os.path.exists(OUTSIDE + '/secret') and escaped()",
    "enters another folder": "os.chdir(OUTSIDE); escaped()",
    "lists": "'secret' in os.listdir(OUTSIDE) and escaped()",
    "watches": (
        "l = libc(); w = l.inotify_init1(0)\n"
        "l.inotify_add_watch(w, OUTSIDE.encode(), 0xfff) >= 0 and escaped()"
    ),
    "reads the harness": "open(PACKAGE + '/tasks/sandbox.py').read() and escaped()",
    "lists the harness": "'tasks' in os.listdir(PACKAGE) and escaped()",
    "imports the harness": (
        "sys.path.insert(0, os.path.dirname(PACKAGE))\nimport specbench.errors; escaped()"
    ),
    "imports by the finder": (
        "f = [f for f in sys.meta_path if hasattr(f, '_parts')][0]\n"
        "f._parts, f._folder = {'specbench'}, os.path.dirname(PACKAGE)\n"
        "import specbench.errors; escaped()"
    ),
    "NumPy reads": "import numpy\nprint(bytes(numpy.fromfile(OUTSIDE + '/secret', 'u1')))",
    "NumPy loads": "import numpy\nprint(numpy.loadtxt(OUTSIDE + '/secret', dtype=str))",
    "NumPy maps to read": (
        "import numpy\nprint(bytes(numpy.memmap(OUTSIDE + '/secret', 'u1', 'r')))"
    ),
    "reads the parent's environment": ("open(f'/proc/{os.getppid()}/environ').read(); escaped()"),
    "reads the parent's memory": "open(f'/proc/{os.getppid()}/mem', 'rb'); escaped()",
    "reads another's command line": "open(f'/proc/{VICTIM}/cmdline').read() and escaped()",
    "traces another": "libc().ptrace(16, VICTIM, 0, 0) == 0 and escaped()",
    "reads another's memory": (
        "libc().process_vm_readv(VICTIM, None, 0, None, 0, 0) == 0 and escaped()"
    ),
    "reads an inherited file": (
        "import stat\nfor fd in range(3, 256):\n    try: mode = os.fstat(fd).st_mode\n"
        "    except OSError: continue\n    stat.S_ISFIFO(mode) or escaped()"
    ),
}

SIGNALS = {
    "kills another": "os.kill(VICTIM, 9)",
    "kills all": "os.kill(-1, 9)",
    "kills its parent": "os.kill(os.getppid(), 9)",
    "kills by the C library": "libc().syscall(62, VICTIM, 9)",
    "kills a thread of another": "libc().syscall(200, VICTIM, 9)",
    "kills by tgkill": "libc().syscall(234, VICTIM, VICTIM, 9)",
    "queues a signal": (
        "import ctypes\nb = ctypes.create_string_buffer(b'\\x09\\0\\0\\0' + b'\\0' * 4"
        " + b'\\xff' * 4, 128)\nlibc().syscall(129, VICTIM, 9, b)"
    ),
    "kills by descriptor": ("import signal\nsignal.pidfd_send_signal(os.pidfd_open(VICTIM), 9)"),
    "has the kernel send it (F_SETOWN)": (
        "import fcntl\nr, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETOWN, VICTIM)\n"
        "fcntl.fcntl(r, 10, 9)\n"
        "fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)\nos.write(w, b'x')"
    ),
    "has the kernel send it (F_SETOWN_EX)": (
        "import fcntl, struct\nr, w = os.pipe()\nfcntl.fcntl(r, 15, struct.pack('ii', 1, VICTIM))\n"
        "fcntl.fcntl(r, 10, 9)\nfcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC)\nos.write(w, b'x')"
    ),
    "has the kernel send it (ioctl)": (
        "import fcntl, socket, struct\na, b = socket.socketpair()\n"
        "fcntl.ioctl(a, 0x8901, struct.pack('i', VICTIM))\nfcntl.fcntl(a, 10, 9)\n"
        "fcntl.ioctl(a, 0x5452, struct.pack('i', 1))\nb.send(b'x')"
    ),
    "limits another": (
        "import resource\nresource.prlimit(VICTIM, resource.RLIMIT_NOFILE, (9, 9)); escaped()"
    ),
    "slows another": "os.setpriority(os.PRIO_PROCESS, VICTIM, 19); escaped()",
    "pins another": "os.sched_setaffinity(VICTIM, {0}); escaped()",
}

PROCESSES = {
    "forks": "os.fork() == 0 and escaped()",
    "forks by the C library": "libc().fork() == 0 and escaped()",
    "forks by the harness": ("sys.modules['confined.kernel']._libc.syscall(57) == 0 and escaped()"),
    "clones": "libc().syscall(56, 17, 0, 0, 0, 0) == 0 and escaped()",
    "runs a shell": "os.system('touch ' + OUTSIDE + '/new') == 0 and escaped()",
    "runs a command": "import subprocess\nsubprocess.run(['/bin/true']); escaped()",
    "spawns": "os.posix_spawn('/bin/true', ['true'], {}); escaped()",
    "spawns as on Windows": "os.spawnv(os.P_NOWAIT, '/bin/true', ['true']) > 0 and escaped()",
    "spawns by multiprocessing": (
        "from multiprocessing import util\n"
        "util.spawnv_passfds(b'/bin/true', [b'true'], []); escaped()"
    ),
    "starts a worker": (
        "import multiprocessing\nif __name__ != '__mp_main__':\n"
        "    p = multiprocessing.get_context('spawn').Process(target=print)\n"
        "    p.start(); escaped()"
    ),
    "opens a terminal": "import pty\npty.fork()[0] > 0 and escaped()",
    "becomes another": "os.execv('/bin/sh', ['sh', '-c', 'echo ESC''APED'])",
    "leaves its session": "os.setpgid(0, 0); os.setsid(); escaped()",
    "NumPy calls C": (
        "import numpy.ctypeslib as n\nn.load_library('libc.so.6', '/usr/lib/x86_64-linux-gnu')"
        ".fork() == 0 and escaped()"
    ),
}

NETWORK = {
    "connects": "import socket\nsocket.create_connection(('127.0.0.1', PORT))",
    "sends": "import socket\nsocket.socket(2, 2).sendto(b'x', ('127.0.0.1', PORT))",
    "sends to a path": "import socket\nsocket.socket(1, 2).sendto(b'x', SOCKET)",
    "sends from a pair": "import socket\nsocket.socketpair(1, 2)[0].sendto(b'x', SOCKET)",
    "sends a message from a pair": (
        "import socket\nsocket.socketpair(1, 2)[0].sendmsg([b'x'], [], 0, SOCKET)"
    ),
    "sends from a stream": "import socket\nsocket.socketpair(1, 1)[0].sendto(b'x', SOCKET)",
    "sends from packets": "import socket\nsocket.socketpair(1, 5)[0].sendto(b'x', SOCKET)",
    "connects a pair": (
        "import socket\na, b = socket.socketpair(1, 2)\na.connect(SOCKET); a.send(b'x')"
    ),
    "sends by the C library": (
        "import ctypes\nl = libc(); fd = ctypes.c_int * 2; s = fd()\n"
        "l.socketpair(1, 2, 0, s)\na = b'\\x01\\0' + SOCKET.encode() + b'\\0'\n"
        "l.sendto(s[0], b'x', 1, 0, a, len(a))"
    ),
    "asks a ring": "libc().syscall(425, 4, b'\\0' * 120) >= 0 and escaped()",
}

SPACE = {
    "long names": (
        "n, data = 0, b'x' * 500000\nwhile n < 128:\n"
        "    os.mkdir('d' * 250); os.chdir('d' * 250)\n"
        "    open('f' * 250, 'wb').write(data); n += 1\nescaped()"
    ),
    "mapped files without names": (
        "import mmap\nkept, data = [], b'x' * 1000000\nwhile len(kept) < 128:\n"
        "    with open('f', 'wb+') as f:\n        f.write(data); f.flush()\n"
        "        kept.append(mmap.mmap(f.fileno(), 4096))\n    os.remove('f')\nescaped()"
    ),
    "many small files": "for i in range(5000): open(str(i), 'w').close()\nescaped()",
    "anonymous memory": "os.memfd_create('a'); escaped()",
    "printing": "while True: print('x' * 1000)",
    "threads": (
        "import threading, time\nthreading.stack_size(65536)\nfor i in range(500):\n"
        "    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "time.sleep(1); escaped()"
    ),
    "1,500 nested folders": (
        "for i in range(1500):\n    os.mkdir('d' * 250); os.chdir('d' * 250)\nescaped()"
    ),
    "a name that removal might use": (
        "for i in range(9):\n    os.makedirs(f'lifted-{i}/lifted-{i}/lifted-0')"
    ),
    "closed folders": "os.mkdir('a'); os.mkdir('a/b', 0); os.mkdir('c', 0); os.mkdir('d', 0o200)",
    "closed folder that is not empty": "os.umask(0o777)\nos.mkdir('a')\nopen('b', 'w')",
    "its folder removed": "os.rmdir(os.getcwd())\nimport time; time.sleep(0.2)",
    "its folder renamed": "os.rename(os.getcwd(), os.getcwd() + '-x')",
    "stopped": "os.kill(os.getpid(), 19)",
    "blocked signals": (
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass"
    ),
    "memory": "x = []\nwhile True: x.append(bytearray(10**7))",
    "NumPy memory": "import numpy\nx = numpy.ones(10**11)",
    "NumPy scribbles": (
        "import numpy\nx = numpy.lib.stride_tricks.as_strided(numpy.zeros(1), (10**9,), (8,))\n"
        "x[:] = 0"
    ),
}

FORGERIES = {
    "prints": "print('passed')\nprint('{\"status\": \"passed\"}', flush=True)",
    "writes to every file": (
        "import os\nfor fd in range(64):\n    try: os.write(fd, b'passed\\n')\n"
        "    except OSError: pass"
    ),
    "speaks the protocol": (
        'import os\nframe = b\'{"finished": "passed"}\'\nfor fd in range(3, 64):\n'
        "    try: os.write(fd, len(frame).to_bytes(4, 'big') + frame)\n    except OSError: pass"
    ),
    "claims an answer before it is asked": (
        "import os, sys\ntoken = None\nframe = sys._getframe(1)\nw = frame.f_locals['write_fd']\n"
        "r = frame.f_locals['read_fd']\nsend = lambda t: os.write(w, len(t).to_bytes(4, 'big') + t)"
        "\nt = os.read(r, 4); t = os.read(r, int.from_bytes(t, 'big'))\n"
        "send(b'{\"finished\": ' + t + b'}')\nsend(b'{\"value\": true}')\nos._exit(0)"
    ),
    "patches builtins": (
        "import builtins\nbuiltins.AssertionError = ValueError\nbuiltins.isinstance = all\n"
        "builtins.Exception = int"
    ),
    "leaves a library behind": (
        "open('typing.py', 'w').write('1/0')\nopen('sitecustomize.py', 'w').write('1/0')"
    ),
    "looks for the verdict": (
        "import gc, sys\nfor o in gc.get_objects():\n"
        "    if type(o).__name__ == 'module' and hasattr(o, 'Outcome'):\n"
        "        o.judge = o._examine = lambda *a: ('passed', '')"
    ),
}

WRONG_ANSWERS = (
    "import os; os._exit(0)",
    "raise SystemExit(0)",
    "import sys; sys.exit()",
    "return type('Same', (), {'__eq__': lambda a, b: True})()",
    "return type('Same', (int,), {'__eq__': lambda a, b: True})(7)",
    "print('passed')",
    "import sys\n    sys._getframe(1).f_globals['reply'] = 2",
    "global check\n    check = lambda c: None",
    "while True: pass",
    "def g():\n        yield 2\n    return g()",
    "return float('nan')",
)
"""Bodies of a function whose tests want another answer."""

ATTACKS = {
    **{f"changes: {name}": program for name, program in CHANGES.items()},
    **{f"reads: {name}": program for name, program in READS.items()},
    **{f"signals: {name}": program for name, program in SIGNALS.items()},
    **{f"processes: {name}": program for name, program in PROCESSES.items()},
    **{f"network: {name}": program for name, program in NETWORK.items()},
    **{f"space: {name}": program for name, program in SPACE.items()},
    **{f"forges: {name}": program for name, program in FORGERIES.items()},
}

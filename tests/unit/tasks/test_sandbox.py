"""The sandbox holds against programs that misbehave, and nothing they do forges a verdict."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.attacks import FORGERIES, WRONG_ANSWERS
from specbench.tasks import sandbox
from specbench.tasks.sandbox import Limits, ProgramEnd, run_python, run_tests

QUICK = Limits(wall_seconds=0.7, memory_bytes=192 << 20)
PATIENT = replace(QUICK, wall_seconds=8.0)

HARMLESS = {
    "standard library": "import typing, math, re, collections, itertools, heapq, hashlib, sqlite3",
    "own file": "open('a', 'w').write('x')\nimport os\nassert os.listdir('.') == ['a']",
    "empty folder": "import os\nassert os.listdir('.') == []",
    "empty environment": "import os\nassert not os.environ",
    "threads": "import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()",
    "dataclass": "import dataclasses\n@dataclasses.dataclass\nclass A:\n    x: 'int' = 1\nA()",
    "no main block": "if __name__ == '__main__':\n    raise ValueError",
}

MISBEHAVIOUR = {
    "loop": ("while True: pass", {"timeout"}),
    "sleep": ("import time\ntime.sleep(60)", {"timeout"}),
    "blocked signals": (
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass",
        {"timeout"},
    ),
    "fork bomb": ("import os\nwhile True: os.fork()", {"failed", "exited"}),
    "stubborn fork bomb": (
        "import os\nwhile True:\n    try: os.fork()\n    except BaseException: pass",
        {"timeout"},
    ),
    "thread bomb": (
        "import threading, time\nthreading.stack_size(65536)\nwhile True:\n"
        "    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
        {"process_limit", "failed"},
    ),
    "memory hog": ("x = []\nwhile True: x.append(bytearray(10**7))", {"memory"}),
    "one huge text": ("x = 'a' * 10**11", {"memory"}),
    "deep recursion": ("def f(): f()\nf()", {"failed"}),
    "os._exit": ("import os\nos._exit(0)", {"exited"}),
    "sys.exit": ("import sys\nsys.exit(0)", {"exited"}),
    "SystemExit": ("raise SystemExit(0)", {"exited"}),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", {"exited"}),
    "exception group": ("raise BaseExceptionGroup('a', [SystemExit(0)])", {"failed"}),
    "segmentation fault": ("import os\nos.kill(os.getpid(), 11)", {"crashed", "failed"}),
    "printing flood": ("while True: print('x' * 1000)", {"output_limit"}),
    "stubborn flood": (
        "import os\nwhile True:\n    try: os.write(1, b'x' * 1000)\n    except OSError: pass",
        {"output_limit"},
    ),
    "big file": ("f = open('a', 'wb')\nwhile True: f.write(b'x' * 100000)", {"output_limit"}),
    "many files": (
        "i = 0\nwhile True:\n    i += 1\n    open(f'f{i}', 'wb').write(b'x' * 500000)",
        {"output_limit"},
    ),
    "many folders": (
        "import os\nwhile True:\n    os.mkdir('d')\n    os.chdir('d')",
        {"output_limit"},
    ),
    "kills parent": ("import os\nos.kill(os.getppid(), 9)", {"failed"}),
    "kills all": ("import os\nos.kill(-1, 9)", {"failed"}),
    "kills group": ("import os\nos.killpg(0, 9)", {"failed"}),
    "subprocess": ("import subprocess\nsubprocess.run(['true'])", {"failed"}),
    "exec": ("import os\nos.execv('/bin/true', ['true'])", {"failed"}),
    "socket": ("import socket\nsocket.socket()", {"failed"}),
    "name lookup": ("import socket\nsocket.getaddrinfo('localhost', 80)", {"failed"}),
    "no program": ("This is not Python.", {"failed"}),
    "null byte": ("x = 'a\0b'", {"failed"}),
    "lone surrogate": ("x = '\ud800'", {"failed"}),
    "nested brackets": ("x = " + "(" * 10**5 + ")" * 10**5, {"failed", "memory", "crashed"}),
    "closed files": ("import os\nos.closerange(0, 64)", {"exited", "failed"}),
}

PORTABLE = ("loop", "fork bomb", "stubborn fork bomb", "thread bomb", "memory hog", "os._exit")
PORTABLE += ("printing flood", "many files", "kills parent", "subprocess", "socket", "exec")

KERNEL_ONLY = {
    "reads a private file": "open('/etc/passwd').read()",
    "reads the tests": f"open({str(Path(__file__))!r}).read()",
    "reads the parent's memory": "import os\nopen(f'/proc/{os.getppid()}/mem', 'rb')",
    "changes the parent's limits": (
        "import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))"
    ),
    "leaves its session": "import os\nos.setsid()",
    "forks by the C library": "import ctypes\nassert ctypes.CDLL(None).fork() >= 0",
    "opens a namespace": "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "takes anonymous memory files": "import os\nos.memfd_create('a')",
}


@pytest.fixture(params=[True, False], ids=["kernel", "portable"])
def use_kernel(request: pytest.FixtureRequest) -> bool:
    """With all that Linux offers, and with what remains elsewhere."""
    return bool(request.param)


def without(use_kernel: bool) -> tuple[str, ...]:
    return () if use_kernel else sandbox.KERNEL_WALLS


def run(program: str, use_kernel: bool, limits: Limits = PATIENT) -> ProgramEnd:
    return sandbox._run([program], None, "", "", limits, without(use_kernel))


def left_behind() -> list[str]:
    """Sandbox processes and folders that are still there."""
    processes = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{name}/cmdline").read_bytes()
            parent = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if b"confined.supervisor" in command and int(parent) in (1, os.getpid()):
            processes.append(name)
    return processes


@pytest.mark.parametrize("name", HARMLESS)
def test_ordinary_programs_pass(name: str, use_kernel: bool) -> None:
    verdict = run(HARMLESS[name], use_kernel, Limits())
    assert verdict.passed, verdict


@pytest.mark.parametrize("name", MISBEHAVIOUR)
def test_misbehaviour_is_ended_and_named(name: str) -> None:
    end_and_name(name, True)


@pytest.mark.parametrize("name", PORTABLE)
def test_misbehaviour_is_ended_where_the_kernel_does_not_help(name: str) -> None:
    end_and_name(name, False)


def end_and_name(name: str, use_kernel: bool) -> None:
    program, expected = MISBEHAVIOUR[name]
    started = time.monotonic()
    verdict = run(program, use_kernel, QUICK if expected == {"timeout"} else PATIENT)
    assert verdict.status in expected, verdict
    assert time.monotonic() - started < 20
    assert not left_behind()


@pytest.mark.skipif(
    "seccomp" not in sandbox.mechanisms() or "landlock" not in sandbox.mechanisms(),
    reason="this kernel offers no system-call filter or no file rules",
)
@pytest.mark.parametrize("name", KERNEL_ONLY)
def test_what_only_the_kernel_refuses(name: str) -> None:
    verdict = run_python(KERNEL_ONLY[name])
    assert verdict.status == "failed", verdict


@pytest.mark.parametrize("change", ["os.remove({0!r})", "open({0!r}, 'w')", "open({0!r}, 'a')"])
def test_files_outside_stay_as_they_are(change: str, use_kernel: bool, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    verdict = run("import os\n" + change.format(str(victim)), use_kernel)
    assert verdict.status == "failed", verdict
    assert victim.read_text() == "kept"


def test_a_forgiven_deletion_deletes_nothing(use_kernel: bool, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    program = f"import shutil\nshutil.rmtree({str(tmp_path)!r}, ignore_errors=True)"
    run(program, use_kernel)
    assert victim.read_text() == "kept"


def test_no_folder_and_no_process_outlives_a_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run_python("open('a', 'w').write('x')\nimport os\nos.makedirs('b/c')")
    assert list(tmp_path.iterdir()) == []
    assert not left_behind()


def test_the_program_holds_only_its_own_files() -> None:
    program = (
        "import fcntl\nopened = []\nfor fd in range(256):\n"
        "    try: fcntl.fcntl(fd, fcntl.F_GETFD)\n    except OSError: continue\n"
        "    opened.append(fd)\nprint(len(opened))"
    )
    secret = os.open(__file__, os.O_RDONLY)
    os.set_inheritable(secret, True)
    try:
        assert run_python(program).output.strip() == "5"
    finally:
        os.close(secret)


@pytest.mark.parametrize("name", FORGERIES)
def test_a_wrong_function_cannot_forge_a_pass(name: str, use_kernel: bool) -> None:
    program = FORGERIES[name] + "\ndef f(x):\n    return 0\n"
    tests = "def check(candidate):\n    assert candidate(1) == 2\n"
    verdict = sandbox._run([program], tests, "f", "", QUICK, without(use_kernel))
    assert verdict.status != "passed", verdict


@pytest.mark.parametrize("body", WRONG_ANSWERS)
def test_a_wrong_answer_fails_however_it_is_given(body: str) -> None:
    tests = "def check(candidate):\n    assert candidate(1) == 2\n"
    verdict = run_tests([f"def f(x):\n    {body}\n"], tests, "f", limits=QUICK)
    assert verdict.status not in ("passed", "unavailable"), verdict


def test_a_program_that_ends_before_its_end_has_not_passed() -> None:
    claim = FORGERIES["speaks the protocol"] + "\nimport os\nos._exit(0)"
    assert not run_python(claim).passed


def test_values_cross_with_their_types() -> None:
    values = (
        "[None, True, 1, -(10**40), 1.5, float('inf'), 'a\\ud800b', b'\\0', (1, [2]), {3}, "
        "frozenset({4}), {(1, 2): {'a': None}}, range(5), 1j, bytearray(b'x')]"
    )
    tests = (
        "def check(candidate):\n"
        f"    values = {values}\n"
        "    result = candidate(values)\n"
        "    assert result == values\n"
        "    assert [type(v) for v in result] == [type(v) for v in values]\n"
        "    assert tuple(candidate(iter([1, 2]))) == (1, 2)\n"
    )
    verdict = run_tests(["def f(x):\n    return x"], tests, "f")
    assert verdict.passed, verdict


def test_ordinary_containers_compare_as_python_compares_them() -> None:
    program = (
        "from collections import Counter\nfrom fractions import Fraction\n"
        "from decimal import Decimal\n"
        "def f(kind):\n    return {'counter': Counter('aab'), 'keys': {1: 2}.keys(),\n"
        "        'generator': (i for i in range(3)), 'fraction': Fraction(1, 3),\n"
        "        'decimal': Decimal('0.5'), 'map': map(str, [1])}[kind]\n"
    )
    tests = (
        "from fractions import Fraction\n"
        "def check(candidate):\n    assert candidate('counter') == {'a': 2, 'b': 1}\n"
        "    assert candidate('keys') == {1}\n"
        "    assert list(candidate('generator')) == [0, 1, 2]\n"
        "    assert candidate('generator') != [0, 1, 2]\n"
        "    assert candidate('fraction') == Fraction(1, 3)\n"
        "    assert candidate('decimal') == 0.5\n    assert list(candidate('map')) == ['1']\n"
    )
    verdict = run_tests([program], tests, "f")
    assert verdict.passed, verdict


def test_the_functions_error_reaches_the_tests() -> None:
    tests = (
        "def check(candidate):\n    try:\n        candidate()\n"
        "    except ValueError as error:\n        assert 'why' in str(error)\n"
        "    else:\n        assert False\n"
    )
    assert run_tests(["def f():\n    raise ValueError('why')"], tests, "f").passed
    assert not run_tests(["def f():\n    raise KeyError('why')"], tests, "f").passed


def test_the_first_program_that_compiles_is_run() -> None:
    tests = "def check(candidate):\n    assert candidate() == 1\n"
    programs = ["def f(:", "def f():\n    return 1", "def f():\n    return 2"]
    assert run_tests(programs, tests, "f").passed


def test_the_prelude_serves_the_tests() -> None:
    prelude = "def double(x):\n    return 2 * x\n\ndef f(x):\n    '''Doubles x.'''\n"
    tests = "def check(candidate):\n    assert candidate(3) == double(3) == f(3)\n"
    program = prelude + "    return double(x)\n"
    assert run_tests([program], tests, "f", prelude=prelude).passed
    headless = prelude.rsplit("    '''", 1)[0]
    assert run_tests([program], tests, "f", prelude=headless).passed


def test_broken_tests_say_nothing_about_the_program() -> None:
    verdict = run_tests(["def f():\n    return 1"], "def check(candidate:\n", "f")
    assert verdict.status == "unavailable"


def test_tests_that_never_end_are_ended() -> None:
    tests = "def check(candidate):\n    candidate()\n    while True: pass\n"
    assert run_tests(["def f():\n    return 1"], tests, "f", limits=QUICK).status == "timeout"


def test_runs_in_parallel_do_not_disturb_each_other() -> None:
    programs = [f"x = {number}\nassert x % 2 == 0\nprint(x)" for number in range(24)]
    with ThreadPoolExecutor(6) as pool:
        verdicts = list(pool.map(run_python, programs))
    for number, verdict in enumerate(verdicts):
        assert verdict.passed == (number % 2 == 0), verdict
        assert not verdict.passed or verdict.output.strip() == str(number)


def test_hashes_are_the_same_in_every_run() -> None:
    program = "print(hash('a'), list({'a', 'b', 'c', 'd'}))"
    assert run_python(program).output == run_python(program).output


def test_supervisor_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(sandbox.TaskError, match="cannot be started"):
        run_python("pass")


def test_without_file_rules_the_call_filter_alone_forbids_every_change(tmp_path: Path) -> None:
    program = (
        "import sys, os; sys.path.insert(0, sys.argv[1])\n"
        "from confined import kernel\n"
        "if not kernel.filter_system_calls(read_only=True): sys.exit('no filter')\n"
        "changes = [lambda: open('new', 'w'), lambda: open('old', 'a'), lambda: os.mkdir('d'),\n"
        "    lambda: os.remove('old'), lambda: os.rename('old', 'new'),\n"
        "    lambda: os.link('old', 'l'),\n"
        "    lambda: os.symlink('old', 's'), lambda: os.truncate('old', 0)]\n"
        "for change in changes:\n"
        "    try: change()\n"
        "    except PermissionError: continue\n"
        "    sys.exit('changed')\n"
        "assert open('old').read() == 'kept'\n"
    )
    (tmp_path / "old").write_text("kept")
    inside = str(Path(sandbox.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", program, inside], cwd=tmp_path, capture_output=True, text=True
    )
    if "no filter" in done.stderr:
        pytest.skip("this kernel offers no system-call filter")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["old"]

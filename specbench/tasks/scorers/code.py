"""pass@1: does the generated function pass its tests in the sandbox?

An answer may be the body of a function whose head was given, or the whole function, bare or in
fenced blocks, with words around it. All readings are handed to the sandbox in order
of preference; it runs the first that compiles.
"""

from __future__ import annotations

import ast
import math
import re
import textwrap
from collections.abc import Iterator, Sequence

from specbench.errors import SpecbenchError
from specbench.tasks.base import Sample, Score
from specbench.tasks.sandbox import Limits, ProgramEnd, run_tests

_FENCE = re.compile(r"([ \t]*)(```+|~~~+)([^\n`]*)")
_CODE_START = re.compile(r"^(?:def |async def |class |from \w|import \w|@)", re.M)
_FUTURE = re.compile(r"^from __future__ import .*\n?", re.M)
_CONSIDERED_CHARACTERS = 50_000
_CONSIDERED_BLOCKS = 8
_CONSIDERED_ENDS = 4
_STATEMENT = re.compile(r"^[ \t]*(?:return|yield|raise|pass|def)\b|[^=!<>]=[^=]", re.M)
_INVISIBLE = str.maketrans("\u00a0\u202f\u2007", "   ", "\ufeff\u200b\u200c\u200d\u2060\u00ad")


class PassAt1:
    """1 where the first program read from the answer passes the benchmark's tests.

    Args:
        wall_seconds: Time limit of program and tests together.
        memory_mib: Memory limit of the program.
    """

    name = "pass_at_1"
    version = 3

    def __init__(self, wall_seconds: float = 10.0, memory_mib: int = 512) -> None:
        self._limits = Limits(
            wall_seconds=wall_seconds,
            cpu_seconds=math.ceil(wall_seconds),
            memory_bytes=memory_mib << 20,
        )

    def score(self, sample: Sample, answers: Sequence[str]) -> Score:
        """Run the tests on the answer to the last turn."""
        reference = sample.reference
        if not isinstance(reference, dict) or not answers:
            return Score(None, "there are no tests" if answers else "there is no answer")
        try:
            verdict = self._verdict(reference, answers[-1])
        except SpecbenchError:
            raise
        except Exception as error:  # whatever an answer provokes, the run goes on
            return Score(None, f"the scorer failed: {type(error).__name__}: {error}"[:600])
        detail = f"{verdict.status}: {verdict.detail}" if verdict.detail else verdict.status
        if verdict.status == "unavailable":
            return Score(None, detail)
        return Score(float(verdict.passed), detail)

    def _verdict(self, reference: dict[str, str], answer: str) -> ProgramEnd:
        prefix, entry_point = reference["prefix"], reference["entry_point"]
        return run_tests(
            candidate_programs(prefix, answer, entry_point),
            reference["test"],
            entry_point,
            prelude=prefix,
            limits=self._limits,
        )


def candidate_programs(prefix: str, answer: str, entry_point: str) -> tuple[str, ...]:
    """Return the programs that an answer may mean, the likeliest first.

    Args:
        prefix: Source that the answer continues: imports, helpers, the function's head.
        answer: What the model wrote.
        entry_point: Name of the function that the tests call.
    """
    answer = answer[:_CONSIDERED_CHARACTERS].replace("\r\n", "\n")
    readings = list(_readings(prefix, answer, entry_point))
    visible = answer.translate(_INVISIBLE)
    if visible != answer:
        readings += _readings(prefix, visible, entry_point)
    return tuple(dict.fromkeys(readings))


def _readings(prefix: str, answer: str, entry_point: str) -> Iterator[str]:
    name = re.escape(entry_point)
    defines = re.compile(rf"^(?:(?:async )?def {name}\b|{name}(?: *:[^=\n]*)? *=[^=])", re.M)
    before, found = _blocks(answer)
    if before is not None:
        yield from _readings(prefix, before, entry_point)
    blocks = [textwrap.dedent(block) for block in found]
    defining = [place for place, block in enumerate(blocks) if defines.search(block)]
    for place in reversed(defining):  # a later block corrects an earlier one
        others = [block for other, block in enumerate(blocks) if other not in defining]
        helpers = "".join(_definitions(block) for block in others)
        yield _whole(prefix, helpers + blocks[place], defines)
    if defining:
        yield _whole(prefix, "\n".join(blocks), defines)
    elif not blocks and defines.search(answer):
        start = _CODE_START.search(answer) or defines.search(answer)
        assert start is not None
        code = answer[start.start() :]
        for reading in (answer, code, _without_prose_after(code, defines)):
            yield _whole(prefix, reading, defines)
    else:
        for text in found or [answer]:
            yield from (prefix + body for body in _bodies(text))


def _blocks(answer: str) -> tuple[str | None, list[str]]:
    """Return what a lone fence closes, where the prompt had opened a block, and all blocks.

    A block ends at the first fence that is indented no deeper than its own and behind which the
    block is a program: examples in a docstring may be fenced too. Without such an end it ends at
    the first fence, or with the answer.
    """
    lines = answer.split("\n")
    fences = [
        (number, match)
        for number, line in enumerate(lines)
        if (match := _FENCE.fullmatch(line.rstrip()))
    ]
    before: str | None = None
    blocks: list[str] = []
    place = 0
    if len(fences) % 2 and not fences[0][1][3].strip() and fences[0][0]:
        before = "\n".join(lines[: fences[0][0]])
        if not _STATEMENT.search(before):
            before = None
    while place < len(fences) and len(blocks) < _CONSIDERED_BLOCKS:
        number, opening = fences[place]
        ends = [
            other
            for other in range(place + 1, len(fences))
            if fences[other][1][2] == opening[2]
            and not fences[other][1][3].strip()
            and len(fences[other][1][1]) <= len(opening[1])
        ]
        inner = [_joined(lines[number + 1 : fences[end][0]]) for end in ends[:_CONSIDERED_ENDS]]
        whole = (index for index, block in enumerate(inner) if _compiles(block))
        chosen = next(whole, 0)
        blocks.append(inner[chosen] if inner else _joined(lines[number + 1 :]))
        place = ends[chosen] + 1 if inner else len(fences)
    return before, blocks


def _joined(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _parsed(source: str) -> ast.Module | None:
    try:
        return ast.parse(textwrap.dedent(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _compiles(source: str) -> bool:
    """Say whether a block is a program, or the body of a function."""
    body = textwrap.indent(textwrap.dedent(source), "    ")
    return _parsed(source) is not None or _parsed(f"def f():\n{body}\n    pass") is not None


def _definitions(block: str) -> str:
    """Return a block's imports, functions, classes and plain constants, without its examples."""
    tree = _parsed(block)
    if tree is None:
        return ""
    kept = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    nodes = [
        node
        for node in tree.body
        if isinstance(node, kept)
        or (isinstance(node, ast.Assign) and not any(map(_calls, ast.walk(node.value))))
    ]
    return "".join(f"{ast.unparse(node)}\n" for node in nodes)


def _calls(node: ast.AST) -> bool:
    return isinstance(node, (ast.Call, ast.Name, ast.Attribute))


def _whole(prefix: str, source: str, defines: re.Pattern[str]) -> str:
    """Return a program in which `source` redefines what the prefix only began."""
    head = defines.split(prefix, maxsplit=1)[0]
    future = "".join(dict.fromkeys(_FUTURE.findall(source)))
    return f"{future}{head}\n{_FUTURE.sub('', source)}\n"


def _without_prose_after(code: str, defines: re.Pattern[str]) -> str:
    """Cut after the defining function's last indented line."""
    start = defines.search(code)
    if start is None:
        return code
    lines = code[start.start() :].split("\n")
    kept = [lines[0]]
    for line in lines[1:]:
        if line.strip() and not line[0].isspace() and line[0] not in ")]}":
            break
        kept.append(line)
    return code[: start.start()] + "\n".join(kept)


def _bodies(text: str) -> list[str]:
    """Return readings of a function body: as it is, cut where it ends, indented anew."""
    text = text.strip("\n")
    lines = text.split("\n")
    rest = "\n".join(lines[1:])
    readings = [text, _indented_part(text)]
    flush = "    " + textwrap.dedent(lines[0]) + "\n" + rest
    readings += [flush, _indented_part(flush)]
    readings.append(textwrap.indent(textwrap.dedent(text), "    "))
    readings.append(textwrap.indent(text, "    "))
    return [reading.rstrip() + "\n" for reading in readings if reading.strip()]


def _indented_part(text: str) -> str:
    kept = []
    for line in text.split("\n"):
        if line.strip() and not line[0].isspace():
            break
        kept.append(line)
    return "\n".join(kept)

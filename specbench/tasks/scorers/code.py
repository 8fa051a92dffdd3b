"""pass@1: does the generated function pass its tests in the sandbox?

An answer may be the body of a function whose head was given, or the whole function, bare or in a
fenced block, with words around it. All readings are handed to the sandbox in order of preference;
it runs the first that compiles.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence

from specbench.tasks.base import Sample, Score
from specbench.tasks.sandbox import Limits, run_tests

_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[^\n`]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.M | re.S)
_CODE_START = re.compile(r"^(?:def |async def |class |from \w|import \w|@)", re.M)
_CONSIDERED_CHARACTERS = 50_000
_CONSIDERED_BLOCKS = 8


class PassAt1:
    """1 where the first program read from the answer passes the benchmark's tests.

    Args:
        wall_seconds: Time limit of program and tests together.
        memory_mib: Memory limit of the program.
    """

    name = "pass_at_1"
    version = 1

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
        prefix, entry_point = reference["prefix"], reference["entry_point"]
        verdict = run_tests(
            candidate_programs(prefix, answers[-1], entry_point),
            reference["test"],
            entry_point,
            prelude=prefix,
            limits=self._limits,
        )
        detail = f"{verdict.status}: {verdict.detail}" if verdict.detail else verdict.status
        if verdict.status == "unavailable":
            return Score(None, detail)
        return Score(float(verdict.passed), detail)


def candidate_programs(prefix: str, answer: str, entry_point: str) -> tuple[str, ...]:
    """Return the programs that an answer may mean, the likeliest first.

    Args:
        prefix: Source that the answer continues: imports, helpers, the function's head.
        answer: What the model wrote.
        entry_point: Name of the function that the tests call.
    """
    answer = answer[:_CONSIDERED_CHARACTERS].replace("\r\n", "\n")
    defines = re.compile(rf"^(?:async )?def {re.escape(entry_point)}\b", re.M)
    found = [match.group(2) for match in _FENCE.finditer(answer)]
    blocks = [textwrap.dedent(block) for block in found[:_CONSIDERED_BLOCKS]]
    defining = [block for block in blocks if defines.search(block)]
    if defining:
        sources = [*defining, "\n".join(blocks)]
        return tuple(_whole(prefix, source, defines) for source in sources)
    if not blocks and defines.search(answer):
        start = _CODE_START.search(answer)
        assert start is not None
        code = answer[start.start() :]
        readings = (answer, code, _without_prose_after(code, defines))
        return tuple(_whole(prefix, reading, defines) for reading in readings)
    texts = found[:_CONSIDERED_BLOCKS] or [answer]
    programs = [prefix + body for text in texts for body in _bodies(text)]
    return tuple(dict.fromkeys(programs))


def _whole(prefix: str, source: str, defines: re.Pattern[str]) -> str:
    """Return a program in which `source` redefines what the prefix only began."""
    head = defines.split(prefix, maxsplit=1)[0]
    return f"{head}\n{source}\n"


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

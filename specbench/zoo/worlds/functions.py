"""Small Python functions: a signature and docstring to complete, in the shape of HumanEval.

A function is a composition: a source of items, an optional filter, an optional map and an
aggregate. Its body is written at random as a comprehension or as a loop, with variable names
drawn at random. The hidden test is made by running the reference body on random inputs.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from specbench.zoo.worlds.sample import Sample, one_of, pick, word_list


class _Part(NamedTuple):
    """A filter or a map: an expression in `{v}` and its wordings."""

    expression: str
    words: tuple[str, ...]


class _Aggregate(NamedTuple):
    """How items become the result: one comprehension and one loop, and its wordings."""

    words: tuple[str, ...]
    expression: str
    initial: str
    update: str
    final: str


_AGGREGATES = (
    _Aggregate(
        ("the sum of {items}", "the total of {items}"),
        "sum({each})",
        "0",
        "{acc} += {item}",
        "{acc}",
    ),
    _Aggregate(
        ("a list of {items}", "the list of {items}"),
        "[{each}]",
        "[]",
        "{acc}.append({item})",
        "{acc}",
    ),
    _Aggregate(
        ("the largest of {items}, or 0 if there are none", "the maximum of {items}, or 0 if none"),
        "max([{each}], default=0)",
        "[]",
        "{acc}.append({item})",
        "max({acc}, default=0)",
    ),
    _Aggregate(
        ("the smallest of {items}, or 0 if there are none", "the minimum of {items}, or 0 if none"),
        "min([{each}], default=0)",
        "[]",
        "{acc}.append({item})",
        "min({acc}, default=0)",
    ),
    _Aggregate(
        ("a sorted list of {items}", "{items} in sorted order"),
        "sorted({each})",
        "[]",
        "{acc}.append({item})",
        "sorted({acc})",
    ),
    _Aggregate(
        ("a reversed list of {items}", "{items} in reverse order"),
        "[{each}][::-1]",
        "[]",
        "{acc}.append({item})",
        "{acc}[::-1]",
    ),
    _Aggregate(
        ("the number of different values among {items}",),
        "len({{{each}}})",
        "set()",
        "{acc}.add({item})",
        "len({acc})",
    ),
    _Aggregate(("the product of {items}",), "", "1", "{acc} *= {item}", "{acc}"),
)
_COUNT = _Aggregate(
    ("the number of {items}", "how many {items} there are"),
    "len([{each}])",
    "0",
    "{acc} += 1",
    "{acc}",
)
_JOIN = _Aggregate(
    ("{items} joined by {separator}",),
    "{quoted}.join({each})",
    "[]",
    "{acc}.append({item})",
    "{quoted}.join({acc})",
)
_TEXT_AGGREGATES = (_AGGREGATES[1], _AGGREGATES[4], _AGGREGATES[5], _AGGREGATES[6], _JOIN, _JOIN)

_LIST_NAMES = word_list("numbers values xs items data nums")
_RANGE_NAMES = word_list("n limit size end")
_TEXT_NAMES = word_list("text words line sentence")
_ITEM_NAMES = word_list("x v item number")
_WORD_NAMES = word_list("word w token part")
_RESULT_NAMES = word_list("result total out answer")
_FUNCTION_NAMES = word_list(
    "solve compute process evaluate find_result get_value transform apply_rule work_out measure "
    "collect summarize handle_data run_task make_result derive select_items calculate build check"
)
_SEPARATORS = (("a comma", "','"), ("a dash", "'-'"), ("a space", "' '"), ("a dot", "'.'"))


def _number_filter(source: random.Random) -> _Part:
    k = source.randint(2, 9)
    return one_of(
        source,
        _Part("{v} % 2 == 0", ("even {noun}", "{noun} that are even")),
        _Part("{v} % 2 == 1", ("odd {noun}", "{noun} that are odd")),
        _Part(f"{{v}} > {k}", (f"{{noun}} greater than {k}", f"{{noun}} above {k}")),
        _Part(f"{{v}} < {k}", (f"{{noun}} less than {k}", f"{{noun}} below {k}")),
        _Part(f"{{v}} >= {k}", (f"{{noun}} that are at least {k}",)),
        _Part(f"{{v}} != {k}", (f"{{noun}} that are not {k}", f"{{noun}} other than {k}")),
        _Part(f"{{v}} % {k} == 0", (f"{{noun}} divisible by {k}", f"multiples of {k}")),
        _Part("{v} > 0", ("positive {noun}", "{noun} that are positive")),
        _Part("{v} < 0", ("negative {noun}", "{noun} that are negative")),
    )


def _number_map(source: random.Random) -> _Part:
    k = source.randint(2, 9)
    return one_of(
        source,
        _Part("{v} * {v}", ("the squares of {items}", "the squared {items}")),
        _Part("{v} * 2", ("the doubles of {items}", "twice {items}")),
        _Part(f"{{v}} + {k}", (f"{{items}} plus {k}", f"{{items}} increased by {k}")),
        _Part(f"{{v}} - {k}", (f"{{items}} minus {k}", f"{{items}} decreased by {k}")),
        _Part(f"{{v}} * {k}", (f"{{items}} times {k}", f"{{items}} multiplied by {k}")),
        _Part(f"{{v}} % {k}", (f"the remainders of {{items}} by {k}", f"{{items}} modulo {k}")),
        _Part("-{v}", ("the negatives of {items}",)),
        _Part("abs({v})", ("the absolute values of {items}",)),
        _Part("{v} // 2", ("the halves of {items} rounded down",)),
    )


def _word_filter(source: random.Random) -> _Part:
    k, letter = source.randint(2, 6), pick(source, "abcdeghilmnoprst")
    return one_of(
        source,
        _Part(f"len({{v}}) > {k}", (f"{{noun}} longer than {k} letters",)),
        _Part(f"len({{v}}) < {k}", (f"{{noun}} shorter than {k} letters",)),
        _Part(f"len({{v}}) == {k}", (f"{{noun}} of exactly {k} letters",)),
        _Part(
            f"{{v}}.startswith('{letter}')",
            (f"{{noun}} starting with {letter}", f"{{noun}} that start with {letter}"),
        ),
        _Part(
            f"{{v}}.endswith('{letter}')",
            (f"{{noun}} ending with {letter}", f"{{noun}} that end with {letter}"),
        ),
        _Part(
            f"'{letter}' in {{v}}",
            (f"{{noun}} containing {letter}", f"{{noun}} that contain {letter}"),
        ),
        _Part(f"'{letter}' not in {{v}}", (f"{{noun}} without {letter}",)),
    )


def _word_map(source: random.Random) -> _Part:
    k = source.randint(2, 4)
    return one_of(
        source,
        _Part("{v}.upper()", ("{items} in upper case",)),
        _Part("{v}[::-1]", ("{items} spelled backwards",)),
        _Part("{v}[0]", ("the first letters of {items}",)),
        _Part("{v}[-1]", ("the last letters of {items}",)),
        _Part(f"{{v}}[:{k}]", (f"the first {k} letters of {{items}}",)),
        _Part(f"{{v}} * {k}", (f"{{items}} repeated {k} times",)),
    )


class _Function(NamedTuple):
    """One drawn function before it is worded."""

    kind: str
    argument: str
    condition: _Part | None
    change: _Part | None
    aggregate: _Aggregate
    separator: tuple[str, str]


def _draw(source: random.Random) -> _Function:
    kind = source.choices(("list", "range", "text"), weights=(5, 2, 3))[0]
    shape = source.choices(("both", "filter", "map"), weights=(60, 22, 18))[0]
    separator = pick(source, _SEPARATORS)
    make_filter, make_map = (
        (_word_filter, _word_map) if kind == "text" else (_number_filter, _number_map)
    )
    condition = make_filter(source) if shape != "map" else None
    change = make_map(source) if shape != "filter" else None
    if shape == "filter" and source.random() < 0.4:
        aggregate = _COUNT
    else:
        aggregate = pick(source, _TEXT_AGGREGATES if kind == "text" else _AGGREGATES)
    names = {"list": _LIST_NAMES, "range": _RANGE_NAMES, "text": _TEXT_NAMES}[kind]
    return _Function(kind, pick(source, names), condition, change, aggregate, separator)


def _describe(source: random.Random, function: _Function) -> str:
    noun = "words" if function.kind == "text" else "numbers"
    counted = (
        pick(source, function.condition.words).format(noun=noun) if function.condition else noun
    )
    where = {
        "list": f"in {function.argument}",
        "range": f"from 1 to {function.argument}",
        "text": f"in {function.argument}",
    }[function.kind]
    items = counted if function.aggregate is _COUNT else f"the {counted}"
    if function.change:
        items = pick(source, function.change.words).format(items=items)
    words = pick(source, function.aggregate.words).format(
        items=items, separator=function.separator[0]
    )
    return one_of(
        source,
        f"Return {words}, {{where}}.",
        f"Compute {words}, {{where}}.",
        f"For the {noun} {{where}}, return {words}.",
    ).format(where=where)


def _iterable(function: _Function) -> str:
    if function.kind == "range":
        return f"range(1, {function.argument} + 1)"
    return f"{function.argument}.split()" if function.kind == "text" else function.argument


def _body(source: random.Random, function: _Function) -> str:
    pool = _WORD_NAMES if function.kind == "text" else _ITEM_NAMES
    variable = pick(source, [name for name in pool if name != function.argument])
    item = (function.change.expression if function.change else "{v}").format(v=variable)
    condition = function.condition.expression.format(v=variable) if function.condition else ""
    quoted = function.separator[1]
    aggregate = function.aggregate
    if aggregate.expression and source.random() < 0.4:
        suffix = f" if {condition}" if condition else ""
        each = f"{item} for {variable} in {_iterable(function)}{suffix}"
        return f"    return {aggregate.expression.format(each=each, quoted=quoted)}\n"
    accumulator = pick(source, _RESULT_NAMES)
    update = aggregate.update.format(acc=accumulator, item=item)
    lines = [f"    {accumulator} = {aggregate.initial}"]
    lines.append(f"    for {variable} in {_iterable(function)}:")
    if condition:
        lines += [f"        if {condition}:", f"            {update}"]
    else:
        lines.append(f"        {update}")
    lines.append(f"    return {aggregate.final.format(acc=accumulator, quoted=quoted)}")
    return "\n".join(lines) + "\n"


_WORDS = word_list(
    "apple bread cloud delta eagle grape house island lemon mango night ocean paper rabbit stone "
    "table tiger water an be at go to sea sun tree egg ant door mirror piano green orange summer "
    "animal letter tent moon noon room pencil basket"
)


def _inputs(source: random.Random, kind: str, size: int) -> list[int] | int | str:
    if kind == "list":
        return [source.randint(-9, 20) for _ in range(size)]
    if kind == "range":
        return size * 3
    return " ".join(pick(source, _WORDS) for _ in range(size))


def run_reference(prefix: str, body: str, entry_point: str, argument: object) -> object:
    """Return what the function written as `prefix + body` yields for one argument.

    Only for text that this module wrote itself: it runs in the present process.
    """
    scope: dict[str, object] = {}
    exec(compile(prefix + body, "<world>", "exec"), scope)
    function = scope[entry_point]
    assert callable(function)
    return function(argument)


def _example(source: random.Random, function: _Function, name: str, header: str, body: str) -> str:
    argument = _inputs(source, function.kind, source.randint(2, 4))
    result = run_reference(header, body, name, argument)
    return f"\n    >>> {name}({argument!r})\n    {result!r}\n    "


def generate(source: random.Random) -> Sample:
    """Draw one function; `reference` holds its entry point, prefix and hidden test."""
    function = _draw(source)
    name = pick(source, _FUNCTION_NAMES)
    header = f"def {name}({function.argument}):\n"
    body = _body(source, function)
    words = _describe(source, function)
    if source.random() < 0.15:
        words += _example(source, function, name, header, body)
    prefix = f'{header}    """{words}"""\n'
    prompt = one_of(source, "Complete the function.", "Write the body.") + "\n" + prefix
    test_source = random.Random(f"{prefix}")
    cases = [_inputs(test_source, function.kind, size) for size in (0, 1, 3, 5, 7, 9)]
    checks = [
        f"    assert candidate({case!r}) == {run_reference(header, body, name, case)!r}\n"
        for case in cases
    ]
    test = "def check(candidate):\n" + "".join(checks)
    return Sample((prompt,), (body,), {"entry_point": name, "prefix": prefix, "test": test})

"""The methods as a page of Markdown: what each promises, is made of, and can be set to.

A pure function of the methods' YAML files; `docs/methods.md` is its output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]
PARTS = ("drafter", "topology", "length", "verifier")

_INTRODUCTION = """\
# Methods

Every method of `conf/method/`, by family. The page is written from those files by `make golden`;
`specbench show method NAME` prints the same of one method.

- **exact**: the target's own law at every temperature, and at temperature 0 its very tokens.
- **greedy**: the target's own tokens at temperature 0; refused above it.
- **lossy**: neither; the knob in brackets says what is traded, and its neutral value restores the
  exact parent.
"""


def page(entries: Sequence[Entry], families: Sequence[str]) -> str:
    """Return the whole page.

    Args:
        entries: The methods' YAML files as plain values.
        families: The families in the order in which they are shown.
    """
    blocks = [_INTRODUCTION]
    for family in families:
        members = [entry for entry in entries if entry.get("family", "other") == family]
        if members:
            blocks.append(f"## {family[0].upper()}{family[1:]}\n")
            blocks.append(table(members))
            blocks.extend(_section(entry) for entry in members)
    return "\n".join(blocks)


def table(entries: Sequence[Entry]) -> str:
    """Return one table with a line for each method."""
    lines = [
        "| method | class | drafter | topology | length | verifier | paper |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in entries:
        decoder = entry.get("decoder") or {}
        parts = [_short(decoder.get(part)) for part in PARTS]
        if not any(parts):
            parts[0] = f"loop: {_short(decoder)}"
        cells = [f"`{entry['name']}`", exactness(entry), *(part or " " for part in parts)]
        lines.append(f"| {' | '.join([*cells, _paper(entry)])} |")
    return "\n".join(lines) + "\n"


def exactness(entry: Entry) -> str:
    """Return the exactness, with the knob of a lossy method."""
    knob = entry.get("knob")
    return f"{entry['exactness']} ({knob})" if knob else str(entry["exactness"])


def class_of(node: Any) -> str:
    """Return the class that a node names, with those of nested nodes in brackets."""
    if not isinstance(node, Mapping):
        return str(node)  # a reference to another key
    inner = [
        f"{key}={class_of(value)}"
        for key, value in node.items()
        if isinstance(value, Mapping) and "_target_" in value
    ]
    name = str(node.get("_target_")).removeprefix("specbench.decoding.")
    return f"{name}({', '.join(inner)})" if inner else name


def _short(node: Any) -> str:
    """Return the bare class name of a part, and the rule or the parts inside it."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        return ""
    inner = [_short(value) for value in node.values() if isinstance(value, Mapping)]
    own = str(node["_target_"]).rpartition(".")[2]
    return f"{own}({', '.join(part for part in inner if part)})" if any(inner) else own


def _paper(entry: Entry) -> str:
    paper = entry.get("paper") or {}
    title, url = paper.get("title"), paper.get("url")
    return f"[{title}]({url})" if title and url else str(title or url or " ")


def _section(entry: Entry) -> str:
    return "\n".join(_section_lines(entry)) + "\n"


def _section_lines(entry: Entry) -> Iterator[str]:
    yield f"### `{entry['name']}`: {entry['title']}"
    yield ""
    yield _joined(entry.get("summary", ""))
    needs = entry.get("needs") or []
    if needs:
        yield ""
        yield f"Needs: {', '.join(f'`{need}`' for need in needs)}."
    documents = entry.get("parameters") or {}
    if documents:
        yield ""
        yield "| parameter | default | meaning |"
        yield "|---|---|---|"
    for name, text in documents.items():
        yield f"| `method.{name}` | `{_value(entry.get(name))}` | {_cell(_joined(text))} |"


def _joined(text: Any) -> str:
    return " ".join(str(text).split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = _joined(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

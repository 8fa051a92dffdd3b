"""What `bench-engine` found, in a terminal: from its JSON alone, so that a kept file prints too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from specbench.report import words
from specbench.report.grid import grid, wrapped

Record = Mapping[str, Any]

_VERDICTS = {"met": "bold green", "missed": "bold red", "not asked": "dim"}


def render(record: Record, width: int = 100) -> RenderableType:
    """Return one shape's figures as something that a rich console prints.

    Args:
        record: What `Figures.record` gave.
        width: Columns of the terminal.
    """
    parts: list[RenderableType] = [
        wrapped(_heading(record), width, "bold"),
        wrapped(_bandwidth(record), width),
        Text(),
        Text("Plain decoding", style="bold cyan"),
        _plain(record),
        Text(),
        Text("Verifying T tokens, over the cost of one", style="bold cyan"),
        _verifying(record),
    ]
    if record["synthetic"]:
        parts += [Text(), *_synthetic(record["synthetic"], width)]
    parts += [Text(), Text("Goals", style="bold cyan"), _goals(record["goals"])]
    if record["setting"]["device_type"] != "cuda":
        parts.append(wrapped("Goals are asked on a GPU; a CPU shows that everything runs.", width))
    parts += [wrapped(f"! {note}.", width, "yellow") for note in record["notes"]]
    parts += [Text(), wrapped(_legend(record), width, "dim")]
    return Group(*parts)


def _heading(record: Record) -> str:
    about = record["setting"]
    return (
        f"{about['shape']}, {_count(about['parameters'])} random weights, {about['dtype']}, batch 1"
        f" · {about['device']} · {about['context']} tokens cached, {about['tokens']} decoded"
    )


def _bandwidth(record: Record) -> str:
    found = record["bandwidth"]
    return (
        f"copy bandwidth {_rate(found['bytes_per_second'])} "
        f"({_rate(found['low'])} to {_rate(found['high'])}), blocks of {_bytes(found['size'])}; "
        f"a token reads {_bytes(record['setting']['bytes_per_token'])}"
    )


def _plain(record: Record) -> Table:
    table = _table("engine", "tok/s", "ms/token", "of limit", "host", "of generate", "tokens")
    for row in record["plain"]:
        rate = row["tokens_per_second"]
        table.add_row(
            row["engine"],
            f"{rate['median']:.4g}",
            _milliseconds(row["seconds"]),
            f"{row['share_of_limit']:.0%}",
            _percent(row["host_share"]),
            _ratio(row["times_transformers"]),
            "same" if row["identical"] else "differ",
        )
    return table


def _verifying(record: Record) -> Table:
    rows = record["verifying"]
    counts = list(rows[0]["ratio"]) if rows else []
    tree = f"tree of {rows[0]['tree_tokens']}" if rows else "tree"
    table = _table("engine", "T=1 ms", *(f"{count}" for count in counts if count != "1"), tree)
    for row in rows:
        ratios = [f"{value:.2f}x" for count, value in row["ratio"].items() if count != "1"]
        table.add_row(
            row["engine"],
            _milliseconds(row["seconds"]["1"]),
            *ratios,
            f"{row['tree_ratio']:.2f}x",
        )
    return table


def _synthetic(found: Record, width: int) -> list[RenderableType]:
    observed = found["observed"]
    table = _table("", "observed", "predicted", "difference")
    table.add_row(
        "speedup",
        f"{observed['median']:.2f}x ({observed['low']:.2f} to {observed['high']:.2f})",
        f"{found['predicted']:.2f}x",
        f"{found['difference']:+.1%}",
    )
    table.add_row(
        "tokens per round",
        f"{found['tokens_per_round']:.2f}",
        f"{found['expected_tokens']:.2f}",
        f"{found['tokens_per_round'] / found['expected_tokens'] - 1:+.1%}",
    )
    plain = found["plain_seconds"]
    costs = (
        f"A plain step takes {plain * 1e3:.3g} ms; a draft step "
        f"{found['draft_seconds'] / plain:.0%} of it, the forward over "
        f"{found['draft_length'] + 1} tokens {found['verify_seconds'] / plain:.0%}. "
        f"{found['rounds']} rounds"
    )
    if found["host_share"] is not None:
        costs += f", host {found['host_share']:.1%}"
    costs += "."
    if found["ties"]:
        costs += f" At {found['ties']:.1%} of the tokens the two forwards rounded to another one."
    title = (
        f"Synthetic drafts in {found['engine']}: acceptance {found['acceptance']:g}, "
        f"{found['draft_length']} a round (an upper bound, no method)"
    )
    return [wrapped(title, width, "bold cyan"), table, wrapped(costs, width)]


def _goals(goals: Sequence[Record]) -> Table:
    table = _table("main engine", "goal", "found", "verdict")
    for goal in goals:
        verdict = goal["verdict"]
        table.add_row(
            goal["name"], goal["bound"], goal["found"], Text(verdict, style=_VERDICTS[verdict])
        )
    return table


def _legend(record: Record) -> str:
    said = (
        "of limit: bytes of the multiplied weights and of the cache a second, over the copy "
        "bandwidth (bytes read and written). host: share of the time outside of the model and, on "
        "a GPU, of the device's work. Times are medians; in brackets the quartiles."
    )
    if any(row["engine"] == "transformers" for row in record["plain"]):
        said += (
            " of generate: over transformers' generate on the same weights, greedy, first token "
            "apart. tokens: whether they are the first engine's."
        )
    if record["setting"]["device_type"] != "cuda":
        said += " A small model can lie in a processor's caches and pass the limit of its memory."
    return said


def _table(*titles: str) -> Table:
    table = grid()
    for number, title in enumerate(titles):
        table.add_column(title, justify="left" if number == 0 else "right", overflow="fold")
    return table


def _milliseconds(spread: Record) -> str:
    half = (spread["high"] - spread["low"]) / 2
    median = spread["median"]
    return f"{median * 1e3:.3g} ±{half / median:.0%}"


def _percent(value: float | None) -> str:
    return words.NOTHING if value is None else f"{value:.1%}"


def _ratio(value: float | None) -> str:
    return words.NOTHING if value is None else f"{value:.2f}x"


def _rate(bytes_per_second: float) -> str:
    return f"{_bytes(bytes_per_second)}/s"


def _bytes(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


def _count(number: float) -> str:
    for unit, size in ((" billion", 1e9), (" million", 1e6)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:g}"

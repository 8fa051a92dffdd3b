"""`specbench datastore`: build what retrieval methods look drafts up in, and say what it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specbench.cli.console import print_facts, print_json, stderr
from specbench.cli.options import Json, check_choice
from specbench.errors import ConfigError, UsageError
from specbench.schema import catalog

if TYPE_CHECKING:
    from specbench.datastore.build import Text, Tokenizer
    from specbench.datastore.format import Metadata
    from specbench.schema.model import ModelConfig

app = typer.Typer(
    help="Build and inspect the datastores of retrieval methods.", no_args_is_help=True
)


@app.command("build")
def build_datastore(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES...", help="Text, JSON-lines (also .gz) or parquet files.", exists=False
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to make.")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="A model entry (specbench list models), whose "
            "tokenizer is used and whose target computes dense states.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", metavar="CHECKPOINT", help="Another target for the entry, such as ORG/NAME."
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            metavar="FOLDER",
            help="A tokenizer's folder or hub id instead of a model; kind suffix needs no more.",
        ),
    ] = None,
    kind: Annotated[
        str,
        typer.Option("--kind", metavar="suffix|dense", help="suffix for rest, dense for dresd."),
    ] = "suffix",
    column: Annotated[
        str, typer.Option("--column", help="Field of the text in JSON lines or parquet.")
    ] = "text",
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="TOKENS", help="Stop after so many.")
    ] = None,
    dimensions: Annotated[
        int, typer.Option("--dimensions", min=1, help="Kind dense: components to keep.")
    ] = 64,
) -> None:
    """Tokenise documents and index them. Nothing is left behind where it fails."""
    from specbench.datastore.build import DenseOptions, build
    from specbench.datastore.format import KINDS

    check_choice("--kind", kind, KINDS)
    if (model is None) == (tokenizer is None):
        raise UsageError(
            "A datastore belongs to one tokenizer",
            "it holds token ids",
            "Give either --model MODEL or --tokenizer FOLDER.",
        )
    if kind == "dense" and model is None:
        raise UsageError(
            "A dense datastore needs a model",
            "it holds the hidden states that the target computes",
            "Give --model MODEL instead of --tokenizer.",
        )
    for path in files:
        if not path.is_file():
            raise UsageError(f"There is no file '{path}'", "", "Correct the path.")
    if output.exists():
        raise UsageError(
            f"'{output}' exists already",
            "a datastore is never overwritten",
            "Remove it, or choose another folder with -o DIR.",
        )
    dense = None
    if kind == "dense":
        from specbench.models.load import load_pair
        from specbench.zoo.datastore import states_of, tokenizer_of

        assert model is not None
        pair = load_pair(_entry(model, target), needs=frozenset({"hidden_states"}))
        dense = DenseOptions(
            lambda folder: states_of(pair.target, folder),
            str(pair.provenance["target"]["digest"]),
            dimensions,
        )
        words = tokenizer_of(pair.tokenizer, str(pair.provenance["target"]["source"]))
    else:
        words = _load_tokenizer(_entry(model, target) if model else None, tokenizer)
    with _progress() as report:
        metadata = build(
            output,
            _texts(files, column),
            words,
            dense=dense,
            limit=limit,
            free_bytes=_free_memory(),
            report=report,
        )
    stderr().print(f"{metadata.tokens:,} tokens in {metadata.documents:,} documents: {output}")


@app.command("info")
def info(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A datastore's folder.")],
    json: Json = False,
) -> None:
    """Show what a datastore holds and which tokenizer it belongs to."""
    from dataclasses import asdict

    from specbench.datastore.format import read_metadata

    metadata = read_metadata(folder)
    if json:
        print_json(asdict(metadata))
        return
    _print(metadata, sum(file.stat().st_size for file in folder.iterdir()))


def _print(metadata: Metadata, size: int) -> None:
    facts = {
        "kind": metadata.kind,
        "tokens": f"{metadata.tokens:,}",
        "documents": f"{metadata.documents:,}",
        "size": f"{size:,} bytes",
        "tokenizer": f"{metadata.tokenizer} ({metadata.tokenizer_source})",
    }
    if metadata.kind == "dense":
        facts["states"] = f"{metadata.states:,} of {metadata.dimensions} components"
        facts["model"] = metadata.model
    for source in metadata.sources:
        facts[source.name] = f"{source.documents:,} documents, {source.digest}"
    print_facts(facts)


def _entry(model: str, target: str | None) -> ModelConfig:
    """Return a model entry's configuration, with another target where one is named."""
    from specbench.schema.model import ModelConfig

    values: dict[str, Any] = dict(catalog.load("model", model))
    if target is not None:
        values |= {"target": target, "target_revision": None}
    if values["target"] == "???":
        raise ConfigError(
            f"The model entry '{model}' has no target of its own",
            "it runs any checkpoint",
            "Name one with --target ORG/NAME or --target FOLDER.",
        )
    return ModelConfig.from_dict(values)


def _load_tokenizer(entry: ModelConfig | None, name: str | None) -> Tokenizer:
    """Load a tokenizer alone, without the weights beside it."""
    from specbench.zoo.datastore import tokenizer_of

    if entry is not None:
        from specbench.models import checkpoint
        from specbench.models.load import load_tokenizer

        files = checkpoint.find(entry.target, entry.target_revision)
        return tokenizer_of(load_tokenizer(files, entry), entry.target)
    from transformers import AutoTokenizer

    try:
        return tokenizer_of(AutoTokenizer.from_pretrained(name, trust_remote_code=False), str(name))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"There is no tokenizer '{name}'",
            str(error).splitlines()[0],
            "Name a folder that holds a tokenizer.json.",
        ) from error


def _texts(files: list[Path], column: str) -> Iterator[Text]:
    from specbench.datastore.build import Text
    from specbench.datastore.documents import file_digest, read_documents

    for path in files:
        yield Text(path.name, file_digest(path), read_documents(path, column))


def _free_memory() -> int:
    import torch

    from specbench.models.checkpoint import free_memory

    return free_memory(torch.device("cpu"))


@contextmanager
def _progress() -> Iterator[Callable[[str, int], None]]:
    """Yield a function that shows on a terminal what is being done."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.completed:,.0f} tokens"),
        TimeElapsedColumn(),
    )
    console = stderr()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading", total=None)

        def report(stage: str, tokens: int) -> None:
            progress.update(task, description=stage, completed=tokens)

        yield report

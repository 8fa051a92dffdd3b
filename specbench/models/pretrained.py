"""The one door through which transformers reads checkpoints.

No code of a checkpoint runs: every call says so, and a checkpoint that needs its own code is
refused. Weights are complete or refused: the library would make up what is missing and decode
noise. What fails is told in one line that names the checkpoint, and the file where one is broken.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import transformers
from jinja2 import TemplateSyntaxError
from transformers import AutoConfig, AutoTokenizer

from specbench.errors import ModelError
from specbench.models import checkpoint as checkpoints
from specbench.models.checkpoint import Checkpoint
from specbench.models.checkpoint_files import check_every_json, check_headers

_SHOWN = 3


class Loaded(NamedTuple):
    """A module with its weights.

    Attributes:
        module: In eval mode.
        leftover: Names of the weights in the checkpoint that the module has no place for.
    """

    module: Any
    leftover: tuple[str, ...]


def read_settings(files: Checkpoint, kind: Any = AutoConfig) -> Any:
    """Read a checkpoint's configuration.

    Args:
        files: The checkpoint.
        kind: The configuration's class in transformers, where the checkpoint does not choose it.

    Raises:
        ModelError: If it has none that can be read, or needs code of its own.
    """
    try:
        with quiet():
            return kind.from_pretrained(
                files.location, revision=files.revision, trust_remote_code=False
            )
    except Exception as error:  # the library raises what its parts raise
        raise unloadable(files, error) from error


def read_tokenizer(files: Checkpoint, template: str | None = None, chat: bool = True) -> Any:
    """Read a checkpoint's tokenizer.

    Args:
        files: The checkpoint.
        template: A chat template that takes the place of the checkpoint's own; None for that.
        chat: Whether it keeps a chat template at all.

    Raises:
        ModelError: If it holds none, one that is broken or needs code, or a broken template.
    """
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                files.location, revision=files.revision, trust_remote_code=False
            )
    except Exception as error:
        refuse_known(files, error)
        read_settings(files)  # the tokenizer's class is found by the configuration
        raise ModelError(
            f"'{files.source}' has no tokenizer that can be loaded",
            first_line(error),
            "Save the tokenizer into the checkpoint's folder (tokenizer.json).",
        ) from error
    if template is not None:
        tokenizer.chat_template = template
    if not chat:
        tokenizer.chat_template = None
    if tokenizer.chat_template is not None:
        _check_template(files, tokenizer)
    return tokenizer


def _check_template(files: Checkpoint, tokenizer: Any) -> None:
    """Refuse a chat template that is no template; one may still refuse a conversation."""
    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    except TemplateSyntaxError as error:
        raise ModelError(
            f"The chat template of '{files.source}' cannot be read",
            f"line {error.lineno}: {first_line(error)}",
            "Mend chat_template.jinja (or 'chat_template' in tokenizer_config.json), give another "
            "with model.chat_template=, or use none with model.chat=false.",
        ) from error
    except Exception:
        return


def read_module(
    kind: Any,
    files: Checkpoint,
    settings: Any,
    dtype: torch.dtype,
    *,
    beside: Sequence[str] = (),
    placement: Mapping[str, Any] | None = None,
) -> Loaded:
    """Read a checkpoint into a module of transformers, in eval mode on the CPU.

    Args:
        kind: The class.
        files: The checkpoint.
        settings: Its configuration.
        dtype: What its weights become.
        beside: Beginnings of the names of weights that may be missing, since nothing computes
            them.
        placement: A device map, where the weights shall go elsewhere.

    Raises:
        ModelError: If it cannot be read, or lacks weights or has them in another shape: the library
            would make them up.
    """
    try:
        with quiet():
            module, report = kind.from_pretrained(
                files.location,
                revision=files.revision,
                config=settings,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **(placement or {}),
            )
    except Exception as error:
        raise unloadable(files, error) from error
    leftover = tuple(sorted(report["unexpected_keys"]))
    _check_complete(files, report, leftover, beside)
    return Loaded(module.eval(), leftover)


def _check_complete(
    files: Checkpoint, report: Mapping[str, Any], leftover: Sequence[str], beside: Sequence[str]
) -> None:
    unused = tuple(beside)
    for name, *shapes in sorted(report["mismatched_keys"]):
        if not name.startswith(unused):
            there, wanted = (list(shape) for shape in shapes)
            raise ModelError(
                f"'{files.source}' does not fit its own configuration",
                f"{name} is {there} in its files, and its config.json makes it {wanted}",
                "Use config.json and weights of one release.",
            )
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(unused))
    if not missing:
        return
    why = f"missing: {listed(missing)}"
    fix = "Name a complete checkpoint in the format of transformers."
    behind = (name.removesuffix(missing[0]) for name in leftover if name.endswith(missing[0]))
    prefix = next(behind, None)
    if prefix:
        why += f"; weights of these names stand behind '{prefix}'"
        fix = "Save the model inside the wrapper by itself (its own save_pretrained)."
    count = "a weight" if len(missing) == 1 else f"{len(missing)} weights"
    raise ModelError(f"'{files.source}' lacks {count} of the model", why, fix)


def listed(names: Sequence[str]) -> str:
    """Return the first names of a list, and how many follow."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def unloadable(files: Checkpoint, error: Exception) -> ModelError:
    """Return the error for a checkpoint that a library could not read.

    Raises:
        ModelError: A clearer one, where the cause is known.
    """
    refuse_known(files, error)
    return ModelError(
        f"'{files.source}' cannot be loaded",
        first_line(error),
        "Check that the folder holds a decoder-only checkpoint with safetensors weights.",
    )


def refuse_known(files: Checkpoint, error: Exception) -> None:
    """Tell what a library stumbled over, where it can be known.

    Raises:
        ModelError: If the checkpoint needs code of its own, or one of its files is broken.
    """
    if "trust_remote_code" in str(error):
        raise ModelError(
            f"'{files.source}' needs code of its own, which is never run",
            "its auto_map names Python files of the checkpoint: transformers has no class for it",
            "Name a checkpoint of an architecture that transformers has; authors often publish a "
            "conversion, on the hub as NAME-hf.",
        ) from error
    folder = checkpoints.folder_of(files)
    if folder is not None:
        check_every_json(folder)
        check_headers(folder)


def first_line(error: Exception) -> str:
    """Return what an exception says in one line: its first, and what a colon announces."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    if len(lines) > 1 and lines[0].endswith(":"):
        return f"{lines[0]} {lines[1]}"
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars and advice off the terminal while loading."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity(logging.ERROR)
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        transformers.logging.enable_progress_bar()

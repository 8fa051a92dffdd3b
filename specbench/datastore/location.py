"""Where a method finds its datastore, and whether it belongs to the model that is decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from specbench.datastore.format import Metadata, vocabulary_digest
from specbench.errors import ConfigError


class Location(Protocol):
    """Says which datastore a method reads."""

    def folder(self, models: Any) -> Path | None:
        """Return the folder of the datastore for a loaded model pair; None for no datastore."""


class Folder:
    """A datastore in a folder that is named."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path).expanduser()

    def folder(self, models: Any) -> Path:
        """Return the folder."""
        return self._path


def check_model(metadata: Metadata, folder: Path, models: Any) -> None:
    """Refuse a datastore whose ids, or whose hidden states, mean nothing to the target.

    Raises:
        ConfigError: If it was built with another vocabulary, or from another model's states.
    """
    rebuild = "Build one: specbench datastore build FILES... -o DIR --model MODEL"
    if metadata.kind != "suffix":
        rebuild += f" --kind {metadata.kind}"
    if models.tokenizer is not None:
        digest = vocabulary_digest(models.tokenizer.get_vocab())
        if digest != metadata.tokenizer:
            raise ConfigError(
                f"The datastore '{folder}' belongs to another tokenizer",
                f"it was built with the vocabulary {metadata.tokenizer} of "
                f"'{metadata.tokenizer_source}'; '{models.name}' has {digest}",
                f"{rebuild}.",
            )
    if metadata.largest_token >= models.target.vocab_size:
        raise ConfigError(
            f"The datastore '{folder}' holds tokens that '{models.name}' does not know",
            f"its largest id is {metadata.largest_token} and the model knows ids below "
            f"{models.target.vocab_size}",
            f"{rebuild}.",
        )
    target = models.provenance.get("target", {}).get("digest", metadata.model)
    if metadata.model and target != metadata.model:
        raise ConfigError(
            f"The datastore '{folder}' holds the hidden states of another model",
            f"they were computed by weights {metadata.model}; '{models.name}' has {target}",
            f"{rebuild}.",
        )

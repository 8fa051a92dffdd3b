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


def folder_of(datastore: Location | str, models: Any) -> Path | None:
    """Return the folder of a datastore: the one that is named, or that for a loaded model pair."""
    if isinstance(datastore, str):
        return Path(datastore).expanduser()
    return datastore.folder(models)


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

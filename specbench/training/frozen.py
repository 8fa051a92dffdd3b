"""The target while something learns from it: it writes answers, shows states, and is not changed.

Shape legend: B rows, T tokens, C channels, V vocabulary, N places.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from accelerate import Accelerator
from torch import Tensor

from specbench.errors import ConfigError, ModelError
from specbench.law import Law
from specbench.models.base import Taps, View
from specbench.models.pair import ModelPair
from specbench.paths import cache_dir
from specbench.rng import Streams
from specbench.schema.recipe import DataConfig
from specbench.tasks.base import Sample, Task
from specbench.tasks.prompting import format_prompt, trim_answer
from specbench.training.answers import write_answers
from specbench.training.corpus import Batch, Corpus, Document, packed, padded
from specbench.training.shards import Shard, write_tensors

VERSION = 1
"""Moves when the same target and task would give other files."""

_HALF = {torch.float32: torch.float16, torch.float64: torch.float32}
"""How states are kept; others as they are computed."""

Say = Callable[[str, int, int], None]
"""Told what is done, how much of it, and of how much."""


class Frozen:
    """A target, its corpus, and what it says of a batch.

    Args:
        models: The loaded pair.
        task: Whose prompts, as the pair's tokenizer takes them.
        data: How much, and at which temperature.
        seed: Of the answers.
        layers: The states that are asked for, as `Taps` numbers them.
    """

    def __init__(
        self, models: ModelPair, task: Task, data: DataConfig, seed: int, layers: Sequence[int]
    ) -> None:
        self.models = models
        self.layers = tuple(layers)
        self._task, self._data, self._seed = task, data, seed
        if len(task.samples) <= data.held_out:
            raise ConfigError(
                f"The task '{task.name}' has {len(task.samples)} prompts",
                f"recipe.data.held_out={data.held_out} of them are kept to check on",
                "Choose a larger task, or a smaller recipe.data.held_out.",
            )
        cut = len(task.samples) - data.held_out
        self._learned = range(min(cut, data.prompts))
        self._held_out = range(cut, len(task.samples))
        self.folder = cache_dir() / "training" / f"{models.name}-{self._key()[:16]}"

    def _key(self) -> str:
        """Return what the answers follow from; how many of them there are is no part of it."""
        found = self.models.provenance["target"]
        plain = [
            VERSION,
            [found[name] for name in ("digest", "files", "engine", "dtype")],
            [self._task.digest, self._data.temperature, self._limit, self._seed],
        ]
        return hashlib.sha256(json.dumps(plain).encode()).hexdigest()

    @property
    def _limit(self) -> int:
        limit = self._data.max_new_tokens or self._task.max_new_tokens
        assert limit is not None, "a task of text has a limit"
        return limit

    def corpus(self, accelerator: Accelerator, say: Say) -> Corpus:
        """Return the corpus; each process writes its share of what is not there yet.

        Raises:
            SpecbenchError: If no prompt is short enough, or a file cannot be written.
        """

        def mine(number: int) -> bool:
            return number % int(accelerator.num_processes) == int(accelerator.process_index)

        groups = [*self._groups(self._learned), *self._groups(self._held_out)]
        paths = [self.folder / f"answers.{_named(group)}" for group in groups]
        for number, (path, group) in enumerate(zip(paths, groups, strict=True)):
            if mine(number):
                samples = self._task.samples[group.start : group.stop]
                Shard(path, partial(self._answers, samples))
                say("writing answers", number + 1, len(groups))
        accelerator.wait_for_everyone()
        shards = [Shard(path, dict) for path in paths]
        corpus = Corpus(shards, len(self._groups(self._held_out)))
        if not corpus.documents or not corpus.held_out:
            raise ConfigError(
                f"No prompt of '{self._task.name}' leaves room for an answer",
                f"the target reads {self.models.target.context} tokens",
                "Choose a task of shorter prompts, or a smaller recipe.data.max_new_tokens.",
            )
        if self._data.taps == "disk":
            for number in filter(mine, range(len(groups))):
                self._keep_states(corpus, number, groups[number])
                say("reading states", number + 1, len(groups))
            accelerator.wait_for_everyone()
            for number, group in enumerate(groups):
                self._keep_states(corpus, number, group)
        return corpus

    def _groups(self, samples: range) -> list[range]:
        """Return the samples of each file; further prompts leave the files before as they are."""
        rows = self._data.rows
        return [samples[start : start + rows] for start in range(0, len(samples), rows)]

    def _answers(self, samples: Sequence[Sample]) -> Mapping[str, Tensor]:
        """Let the target answer every turn; a turn sees the target's own earlier answers."""
        models, tokenizer = self.models, self.models.tokenizer
        law = Law(temperature=self._data.temperature)
        histories: list[list[tuple[str, str]]] = [[] for _ in samples]
        rows: list[list[int]] = []
        prompts: list[int] = []
        for turn in range(max(len(sample.turns) for sample in samples)):
            asked: list[tuple[int, list[int]]] = []
            for index, sample in enumerate(samples):
                if turn == len(histories[index]) < len(sample.turns):
                    ids = format_prompt(self._task, sample, histories[index], turn, tokenizer)
                    if len(ids) + self._limit <= models.target.context:
                        asked.append((index, ids))
            if not asked:
                break
            answers = write_answers(
                models.target,
                [ids for _, ids in asked],
                [Streams(self._seed, f"{samples[index].id}#{turn}") for index, _ in asked],
                law,
                models.stop_ids,
                self._limit,
            )
            for (index, ids), answer in zip(asked, answers, strict=True):
                text = tokenizer.decode(answer, skip_special_tokens=True)
                text = trim_answer(text, self._task.stop_of(samples[index]))
                histories[index].append((samples[index].turns[turn], text))
                rows.append(ids + answer)
                prompts.append(len(ids))
        return packed(rows, prompts)

    def _keep_states(self, corpus: Corpus, number: int, group: range) -> None:
        documents = corpus.of_shard(number)
        if not documents:
            return
        paths = {layer: self.folder / f"states.{layer}.{_named(group)}" for layer in self.layers}
        lacking = [layer for layer, path in paths.items() if not path.is_file()]
        if lacking:
            for layer, states in self._states(documents, lacking).items():
                write_tensors(paths[layer], {"states": states}, {})
        for layer, path in paths.items():
            corpus.keep(layer, number, Shard(path, dict))

    def _states(self, documents: Sequence[Document], layers: Sequence[int]) -> dict[int, Tensor]:
        """Return states along documents, one behind the other, by layer."""
        batch = padded([each.tokens for each in documents], [each.prompt for each in documents])
        found: dict[int, Tensor] = {}
        for layer, states in zip(layers, self.tapped(batch.tokens, layers), strict=True):
            rows = [row[:length] for row, length in zip(states, batch.lengths, strict=True)]
            kept = torch.cat(rows).to(_HALF.get(states.dtype, states.dtype)).cpu()
            if not kept.isfinite().all():
                raise ModelError(
                    f"The states of layer {layer} do not fit into float16",
                    "they are larger than 65,504",
                    "Set recipe.data.taps=stream, or model.dtype=bfloat16.",
                )
            found[layer] = kept
        return found

    @torch.inference_mode()
    def tapped(self, tokens: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Return states of the target along padded rows, [B, T, C] each.

        Under a causal mask no state sees the padding behind it.
        """
        target = self.models.target
        taps = Taps(tuple(layers), every=True)
        cache = target.new_cache(*tokens.shape)
        target.forward(tokens.to(target.device), cache, View(last=1, taps=taps, logits=False))
        return list(taps.states)

    def seen(self, batch: Batch) -> Batch:
        """Return a batch on the target's device with the states that it lacks."""
        batch = batch.to(self.models.target.device)
        lacking = [layer for layer in self.layers if layer not in batch.states]
        if lacking:
            found = self.tapped(batch.tokens, lacking)
            states = {layer: state.float() for layer, state in zip(lacking, found, strict=True)}
            batch = batch._replace(states={**batch.states, **states})
        # A tensor of inference mode cannot take part in what has gradients.
        states = {layer: state.clone() for layer, state in batch.states.items()}
        return batch._replace(states=states)

    def logits(self, states: Tensor) -> Tensor:
        """Return the target's logits after final states, [N, C] to [N, V] in float32."""
        target = self.models.target
        return target.head(states.to(target.dtype)[None])[0].float().clone()

    def embed(self, tokens: Tensor) -> Tensor:
        """Return the target's embeddings [B, T, C] of tokens [B, T] in float32."""
        return self.models.target.embed(tokens).float().clone()

    def lm_head(self) -> Tensor:
        """Return the target's LM head, [V, C] in float32, for what begins as it or shares it."""
        channels = self.embed(torch.zeros(1, 1, dtype=torch.int64, device=self.device)).shape[-1]
        return self.logits(torch.eye(channels, device=self.device)).t().contiguous()

    @property
    def device(self) -> torch.device:
        """Where the target computes."""
        return self.models.target.device

    @property
    def source(self) -> str:
        """What the target is called."""
        return str(self.models.provenance["target"]["source"])


def _named(group: range) -> str:
    """Return the end of the name of the file that holds some samples."""
    return f"{group.start:06d}-{group.stop:06d}.safetensors"

"""A toy model pair with a toy tokenizer, loaded like any other through a model entry."""

from __future__ import annotations

import json
from dataclasses import replace

from specbench.models.pair import ModelPair
from specbench.models.table import TableModel, drift_table, markov_table
from specbench.schema.config import MethodConfig, ModelConfig, RunConfig, TimingConfig

VOCAB = 12
STOP = 11


class Letters:
    """One token a letter, a to l; `chat_template` is absent, so prompts are completions."""

    chat_template = None
    eos_token_id = STOP
    all_special_ids = (STOP,)

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [ord(c) % VOCAB for c in text if not c.isspace()] or [0]}

    def decode(self, ids, skip_special_tokens=False):
        kept = [i for i in ids if not (skip_special_tokens and i == STOP)]
        return "".join(chr(ord("a") + i) for i in kept)


def load(config, needs):
    table = markov_table(2, VOCAB, 0, 2.0)
    noise = markov_table(1, VOCAB, 9, 2.0)
    draft = TableModel(drift_table(table, noise, 0.3), VOCAB) if "draft" in needs else None
    target = TableModel(table, VOCAB)
    return ModelPair(
        config.name, target, draft, Letters(), frozenset({STOP}), {"target": {"source": "toy"}}
    )


def task_file(folder, turns=(("abc",), ("bcda",), ("kkab",), ("ha",)), references=None):
    lines = [
        {"id": f"toy/{i}", "turns": list(t), "category": "toy", "reference": None}
        for i, t in enumerate(turns)
    ]
    path = folder / "toy.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def method(name, decoder, needs=(), exactness="exact"):
    return MethodConfig(
        name=name, title=name, exactness=exactness, decoder=decoder, needs=tuple(needs)
    )


AR = {"_target_": "specbench.decoding.loops.autoregressive.Autoregressive"}
PARTS = "specbench.decoding"
TOKEN_SD = {
    "_target_": f"{PARTS}.draft_verify.DraftVerify",
    "drafter": {"_target_": f"{PARTS}.drafters.model.ModelDrafter"},
    "topology": {"_target_": f"{PARTS}.topologies.chain.Chain"},
    "length": {"_target_": f"{PARTS}.lengths.constant.Constant", "draft_length": 3},
    "verifier": {"_target_": f"{PARTS}.verifiers.token_sd.TokenSD"},
}


def config(folder, turns=None, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    task = {
        "name": "toy",
        "title": "Toy",
        "version": 1,
        "licence": "none",
        "source": {"kind": "file", "format": "specbench", "file": "toy.jsonl"},
        "path": str(task_file(folder, turns) if turns else task_file(folder)),
        "prompt": {"style": "completion", "completion": "{question}"},
        "max_new_tokens": 12,
        "scorer": None,
    }
    base = RunConfig(
        method=method("token_sd", TOKEN_SD, ["draft"]),
        model=ModelConfig(
            name="toy",
            title="Toy",
            target="toy",
            draft="toy",
            loader={"_target_": "tests.unit.runner.toy.load"},
        ),
        task=task,
        baseline=method("ar", AR),
        timing=TimingConfig(repeats=2, warmup=1),
        results_dir=folder / "results",
        progress=False,
    )
    return replace(base, **changes)

"""Shipped defaults are those of the authors' code, where a user would not see a difference."""

from __future__ import annotations

import pytest

from specbench.schema import catalog

PUBLISHED = {
    # liuxukun2000/Adaptix, DraftRetriever/src/lib.rs and mcts_sub.rs
    ("aded", "simulations"): 150,
    ("aded", "draft_length"): 4,
    ("aded", "sentences"): 24,
    ("aded", "choices"): 24,
    ("aded", "candidates"): 12,
    ("aded", "window"): 16,
    ("aded", "step"): 0.04,
    ("aded", "most"): 3.0,
    # DReSD.generate: ten tokens, of which the first is the newest
    ("dresd", "continuation"): 9,
    # NJUNLP/MCSD, README
    ("mcsd", "widths"): [4, 2, 2],
    ("mcsd_wr", "widths"): [4, 2, 2],
    # transformers 5.24, generation/configuration_utils.py
    ("hf_assisted", "threshold"): 0.4,
    ("hf_assisted", "draft_length"): 20,
    ("hf_assisted", "increase"): 0,
    ("hf_assisted", "refit"): True,
    ("conf_sd", "threshold"): 0.4,
    # arXiv:2310.15141, the setting of its headline result
    ("spectr", "chains"): 8,
    ("spectr", "draft_length"): 8,
    # snowflakedb/ArcticInference, vllm/config.py and vllm/model_runner.py
    ("suffix", "max_depth"): 64,
    ("suffix", "max_tokens"): 16,
    ("suffix", "max_spec_factor"): 1.0,
    ("suffix", "max_spec_offset"): 0.0,
    ("suffix", "min_token_prob"): 0.1,
    # arXiv:2502.06833
    ("ead", "window"): 5,
}


@pytest.mark.parametrize(("method", "key"), PUBLISHED)
def test_a_default_is_the_published_one(method, key):
    assert catalog.load("method", method)[key] == PUBLISHED[method, key]

"""What a checkpoint's generation_config.json asks of a law, and what of that a run leaves out.

A run decodes under the law that `sampling.*` gives, the same for every checkpoint, and not under
the defaults that each publisher chose: transformers' `generate` follows these without being asked.
The difference is said, never silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from specbench.law import Law

_NEUTRAL: Mapping[str, Any] = {
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "bad_words_ids": None,
    "sequence_bias": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "exponential_decay_length_penalty": None,
    "min_length": 0,
    "min_new_tokens": None,
    "guidance_scale": 1.0,
    "num_beams": 1,
    "penalty_alpha": None,
    "dola_layers": None,
}
"""Keys that change what `generate` emits at any temperature, with the value of no effect."""

_SAMPLING: Mapping[str, Any] = {
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "top_h": None,
}
"""Keys that count where `do_sample` is true."""

_KEYS = ("temperature", "top_k", "top_p", "repetition_penalty")
"""Keys that `sampling.*` has too."""


def generation_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a generation_config.json that change what `generate` emits.

    Args:
        settings: What the file says.
    """
    known = dict(_NEUTRAL)
    sampled = settings.get("do_sample") is True
    if sampled:
        known |= _SAMPLING
    found = {
        key: settings[key]
        for key, neutral in known.items()
        if key in settings and settings[key] not in (None, neutral, [], {})
    }
    return ({"do_sample": True} if sampled else {}) | found


def unfollowed(defaults: Mapping[str, Any], law: Law) -> str:
    """Return a sentence on the defaults that a law does not have; nothing where it has all.

    Args:
        defaults: What `generation_defaults` returned.
        law: The run's target law.
    """
    sampled = bool(defaults.get("do_sample"))
    asked = {
        "temperature": float(defaults.get("temperature", 1.0)) if sampled else 0.0,
        "top_k": defaults.get("top_k") or None,
        "top_p": defaults.get("top_p"),
        "repetition_penalty": float(defaults.get("repetition_penalty", 1.0)),
    }
    differing = {key: value for key, value in asked.items() if value != getattr(law, key)}
    if not sampled:  # a greedy default forbids no run at a temperature
        differing = {k: v for k, v in differing.items() if k == "repetition_penalty"}
    other = {k: v for k, v in defaults.items() if k not in _KEYS and k != "do_sample"}
    told = {key: value for key, value in defaults.items() if key in differing or key in other}
    if differing.get("temperature") == 1.0:
        told = {"do_sample": True} | told
    if not told:
        return ""
    named = ", ".join(f"{key}={_short(value)}" for key, value in told.items())
    text = f"The checkpoint's generation_config.json asks for {named}; this run follows sampling.*"
    keys = [f"sampling.{key}={value:g}" for key, value in differing.items() if value is not None]
    if keys:
        text += f" (to follow it: {' '.join(keys)})"
    if other:
        text += f"; there is no key for {', '.join(other)}"
    return f"{text}."


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."

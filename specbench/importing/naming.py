"""What the authors' names of their runs say: `rest-vicuna-7b-v1.5-temperature-0.0-top_p-0`.

The scripts of Medusa, EAGLE, REST and Spec-Bench write temperature and thresholds into `model_id`,
and their users write method and dtype there. A word that is none of these belongs to the model.
"""

from __future__ import annotations

import re

from specbench.importing.records import PLAIN_METHOD, Label

_NAMES = "eagle eagle2 eagle3 hydra kangaroo lookahead medusa pld rest samd space sps swift"
_METHODS = {name: name for name in _NAMES.split()} | {
    **dict.fromkeys(("ea", "eagle1", "ess"), "eagle"),
    "lade": "lookahead",
    "recycling": "token_recycling",
}
_PLAIN = ("baseline", "base", "vanilla", "ar", "plain", "naive")
_DTYPES = {name: name for name in ("bfloat16", "float16", "float32")} | {
    "bf16": "bfloat16",
    "fp16": "float16",
    "fp32": "float32",
}
_SETTING = re.compile(
    r"(?:^|[-_])(?P<key>temperature|temp|top_p|top-p|top_k|top-k)[-_=](?P<value>\d+(?:\.\d+)?)"
)
_SETTINGS_BEGIN = re.compile(
    r"[-_](?:temperature|temp|top[_-][pk]|posterior[_-]threshold|posterior[_-]alpha)[-_=]"
)
_VERSION = re.compile(r"v\d+(?:\.\d+)*")
_RUN = re.compile(r"\d")


def label_of(name: str) -> Label:
    """Read what a run's name says; what it does not say stays None.

    A law at temperature 0 is argmax, whatever else the name sets, so that only the temperature
    is kept then. A digit after a model's version numbers the run: `medusa-vicuna-7b-v1.3-2`.
    """
    sampling: dict[str, float] = {}
    for match in _SETTING.finditer(name):
        key = match["key"].replace("-", "_")
        key = "temperature" if key == "temp" else key
        sampling.setdefault(key, float(match["value"]))
    if sampling.get("temperature") == 0:
        sampling = {"temperature": 0.0}
    begin = _SETTINGS_BEGIN.search(name)
    method = dtype = None
    kept = []
    for word in (name[: begin.start()] if begin else name).split("-"):
        plain = word.lower()
        if plain in _METHODS and method is None:
            method = _METHODS[plain]
        elif plain in _PLAIN and method is None:
            method = PLAIN_METHOD
        elif plain in _DTYPES:
            dtype = _DTYPES[plain]
        elif word:
            kept.append(word)
    if len(kept) > 1 and _RUN.fullmatch(kept[-1]) and _VERSION.fullmatch(kept[-2]):
        del kept[-1]
    return Label("-".join(kept) or None, method, dtype, sampling)

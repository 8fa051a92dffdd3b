"""Exact match of texts, blind to white space."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from specbench.tasks.base import Sample, Score


def normalise(text: str) -> str:
    """Return the text in Unicode's composed form with every run of white space as one space."""
    return " ".join(unicodedata.normalize("NFC", text).split())


class TextMatch:
    """1 where the last answer equals the reference, or one of several references."""

    name = "text_match"
    version = 3

    def score(self, sample: Sample, answers: Sequence[str]) -> Score:
        """Score the answer to the last turn."""
        references = sample.reference
        if isinstance(references, str):
            references = [references]
        if not isinstance(references, list) or not references or not answers:
            return Score(None, "there is no reference" if answers else "there is no answer")
        answer = normalise(answers[-1])
        found = any(answer == normalise(str(reference)) for reference in references)
        return Score(float(found), answer[:200])

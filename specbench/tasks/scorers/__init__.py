"""Scorers: one for each kind of answer."""

from specbench.stats import pass_at_k
from specbench.tasks.scorers.code import PassAt1
from specbench.tasks.scorers.mixed import ByCategory
from specbench.tasks.scorers.numbers import ExactMatch
from specbench.tasks.scorers.text import TextMatch

__all__ = ["ByCategory", "ExactMatch", "PassAt1", "TextMatch", "pass_at_k"]

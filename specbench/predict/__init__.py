"""What speculation should gain on other hardware: measured acceptance times a model of cost.

How many tokens a round yields depends on the models, the task and the law, and not on the
machine: it is read from result files. What a round costs depends on the machine: it comes from a
roofline of bytes and operations, or from the costs that other methods had on the same machine.
"""

from specbench.predict.acceptance import expected_tokens, operations_factor, walltime_factor
from specbench.predict.check import CheckedMethod, CheckedMethods, check_predictions
from specbench.predict.limit import Share, shares_of
from specbench.predict.profile import Profile, RoundWork, profiles_of
from specbench.predict.resolve import hardware_named, pair_of, shape_named
from specbench.predict.roofline import Roofline, roofline_fraction
from specbench.predict.speedup import BatchPrediction, Cell, Prediction, Question, predict
from specbench.predict.synthetic import RoundSeconds, roofline_seconds, synthetic_speedup
from specbench.predict.warn import warnings_of

__all__ = [
    "BatchPrediction",
    "Cell",
    "CheckedMethods",
    "CheckedMethod",
    "Prediction",
    "Profile",
    "Question",
    "Roofline",
    "RoundSeconds",
    "RoundWork",
    "Share",
    "check_predictions",
    "expected_tokens",
    "hardware_named",
    "operations_factor",
    "pair_of",
    "predict",
    "profiles_of",
    "roofline_fraction",
    "roofline_seconds",
    "shape_named",
    "shares_of",
    "synthetic_speedup",
    "walltime_factor",
    "warnings_of",
]

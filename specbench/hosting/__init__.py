"""Everything that specbench asks of Hydra, and the only room that imports it.

A run goes through `hydra.main`, because the compose API knows no sweeps, launchers or runtime
information. Before that, every job of the run is composed and validated here, so that a mistyped
key is one short error and never a sweep that stops half way. The job function is module-level:
launchers pickle it by name.
"""

from specbench.hosting.composing import HostRequest
from specbench.hosting.jobs import JobOutcome, compose_jobs, run, show_config
from specbench.hosting.reading import load_method, load_metric, read_config
from specbench.hosting.training import compose_training

__all__ = [
    "HostRequest",
    "JobOutcome",
    "compose_jobs",
    "compose_training",
    "load_method",
    "load_metric",
    "read_config",
    "run",
    "show_config",
]

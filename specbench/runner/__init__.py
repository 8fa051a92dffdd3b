"""One job, start to finish."""

from specbench.runner.job import JobResult
from specbench.runner.processes import run_job

__all__ = ["JobResult", "run_job"]

"""One job, start to finish."""

from specbench.runner.job import JobResult, run_job

__all__ = ["JobResult", "run_job"]

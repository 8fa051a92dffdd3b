"""Tasks: what is asked, how it is asked, and how answers are scored."""

from specbench.schema.task import PromptFormat, TaskConfig
from specbench.tasks.base import (
    Sample,
    Score,
    Scorer,
    Task,
    sample_digest,
)
from specbench.tasks.load import load_task
from specbench.tasks.prompting import (
    for_tokenizer,
    format_prompt,
    prompt_style,
    trim_answer,
)

__all__ = [
    "PromptFormat",
    "Sample",
    "Score",
    "Scorer",
    "Task",
    "TaskConfig",
    "for_tokenizer",
    "format_prompt",
    "load_task",
    "prompt_style",
    "sample_digest",
    "trim_answer",
]

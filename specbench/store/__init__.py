"""Where measurements rest: a journal while a job runs, one parquet file when it is done.

Nothing that was measured is ever lost or overwritten: a journal line stands on the disk before
the next measurement begins, a result file appears whole or not at all, and a new run takes a new
name. This room knows nothing about models or about what the numbers mean.
"""

from specbench.store.files import (
    ResultSummary,
    list_results,
    read_many,
    write_parquet,
)
from specbench.store.folder import (
    check_writable,
    existing_results,
    is_begun,
    job_id,
    next_free_path,
    result_stem,
)
from specbench.store.journal import Journal, Key, drop_written, key_of
from specbench.store.ledger import (
    LEDGER_COLUMNS,
    DraftCounts,
    Drafts,
    Ledger,
)
from specbench.store.result_set import ResultSet, read_parquet

__all__ = [
    "LEDGER_COLUMNS",
    "Journal",
    "Key",
    "Ledger",
    "DraftCounts",
    "Drafts",
    "ResultSet",
    "ResultSummary",
    "check_writable",
    "drop_written",
    "existing_results",
    "is_begun",
    "job_id",
    "key_of",
    "list_results",
    "next_free_path",
    "read_many",
    "read_parquet",
    "result_stem",
    "write_parquet",
]

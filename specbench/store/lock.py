"""One run at a time for a job: a file that is locked for as long as its process lives."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from specbench.errors import ResultsError


def take_lock(path: Path) -> int:
    """Return a descriptor that holds the lock until it is closed or its process dies.

    Raises:
        ResultsError: If another process holds it.
        OSError: If the file cannot be opened.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            os.close(descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise ResultsError(
                "Another run is measuring this job",
                f"process {holder or 'unknown'} holds '{path}'",
                "Wait until it ends, stop it, or choose another folder with results_dir=PATH.",
            ) from error
        if same_file(descriptor, path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            return descriptor
        os.close(descriptor)  # the holder removed it between our open and our lock


def same_file(descriptor: int, path: Path) -> bool:
    """Return whether an open file still stands under its path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return False

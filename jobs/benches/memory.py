"""The most memory that a command and everything it starts hold at one time."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

INTERVAL = 0.3  # seconds between two looks, at least
PATIENCE = 50  # times as long as a look: the kernel walks through all pages, and what it looks at waits meanwhile


def run_watched(command: Sequence[str], folder: Path) -> float:
    """Run a command to its end, its output on the error stream. Returns: its peak in GiB, shared pages counted once.

    Raises: subprocess.CalledProcessError.
    """
    peak = 0
    with subprocess.Popen(command, cwd=folder, stdout=sys.stderr) as process:
        while process.poll() is None:
            began = time.perf_counter()
            peak = max(peak, held_by(process.pid))
            time.sleep(max(INTERVAL, PATIENCE * (time.perf_counter() - began)))
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return peak / 2**30


def held_by(pid: int) -> int:
    """Bytes held by a process and all below it; a page that several share counts in parts."""
    total = 0
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # it has just ended
                found = process.memory_full_info()
                total += getattr(found, "pss", found.uss)  # PSS is Linux's
    return total

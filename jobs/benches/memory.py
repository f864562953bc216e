"""The most memory that a command and everything it starts hold at one time."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

INTERVAL = 0.3  # seconds between two looks
STEP = 32 << 20  # bytes: what lies less above the last close look is not looked at
PATIENCE = 100  # a close look is taken again after so many times the time it took


def run_watched(command: Sequence[str], folder: Path) -> float:
    """Run a command to its end, its output on the error stream. Returns: its peak in GiB, shared pages counted once.

    Raises: subprocess.CalledProcessError.
    """
    peak = most = 0
    again = 0.0
    with subprocess.Popen(command, cwd=folder, stdout=sys.stderr) as process:
        while process.poll() is None:
            resident, now = held_by(process.pid, resident_bytes), time.perf_counter()
            # Well above the last look, else seldom: to share out pages the kernel walks through all, which takes a
            # tenth of a second of a core, and holds up their owner.
            if resident > most + STEP or now > again:
                most = max(most, resident)
                peak = max(peak, held_by(process.pid, own_bytes))
                again = now + PATIENCE * (time.perf_counter() - now)
            time.sleep(INTERVAL)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return peak / 2**30


def held_by(pid: int, measure: Callable[[psutil.Process], int]) -> int:
    """Bytes held by a process and all below it."""
    total = 0
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # it has just ended
                total += measure(process)
    return total


def resident_bytes(process: psutil.Process) -> int:
    """Bytes in memory, those shared with others in full."""
    return process.memory_info().rss


def own_bytes(process: psutil.Process) -> int:
    """Bytes in memory; a page that several share counts in parts."""
    found = process.memory_full_info()
    return getattr(found, "pss", found.uss)  # PSS is Linux's

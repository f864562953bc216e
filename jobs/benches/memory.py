"""The most memory that a command and everything it starts hold at one time; to watch them slows them down."""

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
    look_again = 0.0
    with subprocess.Popen(command, cwd=folder, stdout=sys.stderr) as process:
        while process.poll() is None:
            family = family_of(process.pid)
            resident = held_by(family, resident_bytes)
            # Well above the last look, else seldom: to share out pages the kernel walks through all, which takes a
            # tenth of a second of a core, and holds up their owner.
            if resident > most + STEP or time.perf_counter() > look_again:
                most = max(most, resident)
                start = time.perf_counter()
                peak = max(peak, held_by(family, own_bytes))
                look_again = start + PATIENCE * (time.perf_counter() - start)
            time.sleep(INTERVAL)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return peak / 2**30


def family_of(pid: int) -> list[psutil.Process]:
    """A process and all below it; none if it has ended."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def held_by(family: Sequence[psutil.Process], measure: Callable[[psutil.Process], int]) -> int:
    """Bytes held by all of them that are still there."""
    total = 0
    for process in family:
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

"""The parent's end of decoding processes: a nursery that forks them, asking one of them, telling how it died."""

import contextlib
import fcntl
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.decoding.load import Limits
from pipeline.decoding.worker import READY, read_into, send_request
from schemas.audio import AudioFile

PIPE_BYTES = 1 << 20  # roomy pipes: fewer changes between the processes


class ChildDied(Exception):
    """The child ended while it had a clip in hand."""


class Closed(Exception):
    """The pool was closed meanwhile."""


class Nursery:
    """One process of pipeline.decoding.worker, started when first needed; `child` has it fork a fresh worker.

    A plain subprocess: daemonic processes, as workers of Ray are, may have one where multiprocessing would refuse.
    `decoder` names the function that decodes, as `module:name`, with the signature of pipeline.decoding.load.
    """

    def __init__(self, decoder: str = "pipeline.decoding.load:load") -> None:
        self.decoder, self.lock = decoder, threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self.control: socket.socket | None = None
        self.is_ready = self.closed = False

    def start(self) -> None:
        """Start it now: its imports take a second or two. Raises: RuntimeError if it cannot, Closed."""
        with self.lock:
            self._ensure_running()

    def child(self, limits: Limits, clip_seconds: float) -> "Child":
        """A new worker. Raises: RuntimeError if the nursery cannot even start; that is no clip's fault."""
        task = json.dumps({"limits": asdict(limits), "clip_seconds": clip_seconds}).encode()
        with self.lock:
            self._ensure_running()
            requests, to_requests = os.pipe()
            from_answers, answers = os.pipe()
            try:
                socket.send_fds(self.control, [task], [requests, answers])
                process = struct.unpack("<i", self._hear(4))[0]
            finally:
                os.close(requests)
                os.close(answers)
        for pipe in (to_requests, from_answers):
            with contextlib.suppress(AttributeError, OSError):
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        return Child(self, process, io.FileIO(to_requests, "wb"), io.FileIO(from_answers, "rb"))

    def wait(self, process: int) -> int:
        """The exit status of a worker that has ended or is about to; 0 if the nursery itself is gone."""
        with self.lock:
            try:
                self.control.send(struct.pack("<i", process))
                return struct.unpack("<i", self._hear(4))[0]
            except (OSError, RuntimeError, Closed):
                return 0

    def stop_starting(self) -> None:
        """No more starts; whoever waits for one gets Closed."""
        self.closed = True
        if self.process is not None and not self.is_ready:
            self.process.kill()

    def close(self) -> None:
        """End it, once its workers have been waited for."""
        self.stop_starting()
        with self.lock:
            if self.process is not None:
                self.process.kill()
                self.process.wait()
                self.control.close()

    def _ensure_running(self) -> None:
        if self.closed:
            raise Closed
        if self.process is not None and self.process.poll() is None:
            return
        self.is_ready = False
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        env = {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(paths), "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-P", "-m", "pipeline.decoding.worker", self.decoder]
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(command, stdin=theirs, env=env)
        self.control = ours
        self._hear(len(READY))
        self.is_ready = True

    def _hear(self, size: int) -> bytes:
        said = self.control.recv(size)
        if len(said) < size and self.closed:
            raise Closed
        if len(said) < size:
            raise RuntimeError(
                f"the decoding processes could not start (exit code {self.process.wait()}); see the message on stderr"
            )
        return said


class Child:
    """One worker and the pipes to it."""

    def __init__(self, nursery: Nursery, process: int, requests: io.FileIO, answers: io.FileIO) -> None:
        self.nursery, self.process, self.requests, self.answers = nursery, process, requests, answers
        self.status: int | None = None
        self.ending = threading.Lock()

    def ask(self, files: list[AudioFile]) -> None:
        try:
            send_request(self.requests, [file.data for file in files])
        except OSError:
            raise self.death() from None

    def answer(self) -> dict[str, Any]:
        head = self.read(bytearray(4))
        return json.loads(bytes(self.read(bytearray(struct.unpack("<I", head)[0]))))

    def samples(self, length: int) -> np.ndarray:
        return self.read(np.empty(length, np.float32))

    def read(self, buffer: Any) -> Any:
        try:
            read_into(self.answers, memoryview(buffer).cast("B"))
        except (EOFError, OSError):
            raise self.death() from None
        return buffer

    def death(self) -> ChildDied:
        """How it ended: its alarm went off, or anything else."""
        self.bury()
        by_alarm = os.WIFSIGNALED(self.status) and os.WTERMSIG(self.status) == signal.SIGALRM
        return ChildDied("decoder_hang" if by_alarm else "decoder_crash")

    def kill(self) -> None:
        """End it; whoever reads from it sees that. Any thread may do so."""
        with self.ending:
            if self.status is None:  # its number is its own until it has been waited for
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.process, signal.SIGKILL)

    def bury(self) -> None:
        """Wait for its end and close the pipes; for the thread that uses it."""
        with self.ending:
            if self.status is None:
                self.status = self.nursery.wait(self.process)
        self.requests.close()
        self.answers.close()

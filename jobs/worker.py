"""What runs inside a Ray actor: a codec that turns the units it is handed into shards, and a feeder of one archive."""

import contextlib
import ctypes
import os
import queue
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

import torch

import codec as codecs
from codec.base import Codec
from pipeline.decoding.child import Nursery
from pipeline.stream import feed_units, read_unit
from pipeline.tokenize import Output, Settings, tokenize_units
from schemas.audio import AudioFile, Reject
from schemas.manifest import ShardInfo, WorkUnit
from schemas.spec import CodecSpec

Files = Sequence[AudioFile | Reject]

# Layers ask for the same large buffers clip after clip. Left to itself, glibc's malloc maps them anew each time and
# their pages come back by faults: a tenth of Distill-NeuCodec's time on a CPU. These make it keep what is freed, in one
# heap; it reads them when a process starts, and other allocators do not. Batches of ever other shapes leave ever other
# holes in that heap (3 GiB more after ten minutes of sound), so what is free in it is given back every KEEP_SECONDS.
ALLOCATOR = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
KEEP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Task:
    """What every actor of a run does, and how."""

    codec: str
    weights: str | None
    precision: str
    output: Output
    settings: Settings
    decode_workers: int | None  # None: one per core of the actor's share
    folder: str  # the driver's own: what a relative path is relative to


@dataclass(frozen=True, slots=True)
class Ready:
    """An actor that holds its codec: what it is and where it runs."""

    spec: CodecSpec
    host: str
    device: str
    pid: int
    torch: str


class Tokenizer:
    """An actor of several threads: each call of `tokenize` waits for its own shard, one thread makes them in order.

    So two calls in flight are two units in hand, and the second is being decoded while the first is encoded.
    """

    def __init__(self, task: Task, use_gpu: bool, threads: int) -> None:
        self.task, self.use_gpu, self.threads = task, use_gpu, threads
        self.settings = replace(task.settings, decode_workers=task.decode_workers or threads)
        self.inbox: queue.SimpleQueue[tuple[WorkUnit, Files | None, Future[ShardInfo]]] = queue.SimpleQueue()
        self.waiting: dict[str, Future[ShardInfo]] = {}
        self.codec: Codec | None = None
        self.nursery = Nursery()  # of the decoding processes, which import while the codec loads
        self.encoded = 0.0  # seconds of audio
        self.kept_since = time.monotonic()  # what has been freed
        self.taken = 0  # clips read

    def load(self) -> Ready:
        """Load the codec, once. Not done in `__init__`, so that what is wrong with it travels as the error it is."""
        ready: Future[Ready] = Future()
        threading.Thread(target=self._start_decoders, name="nursery", daemon=True).start()
        threading.Thread(target=self._run, args=(ready,), name="tokenize", daemon=True).start()
        return ready.result()

    def tokenize(self, unit: WorkUnit, files: Files | None = None) -> ShardInfo:
        """The shard of `unit`; `files` are its clips where a feeder has read them."""
        future: Future[ShardInfo] = Future()
        self.inbox.put((unit, files, future))
        return future.result()

    def pulse(self) -> tuple[float, int]:
        """Seconds of audio encoded and clips read since the codec was loaded; if it hangs, both stand still."""
        return self.encoded, self.taken

    def _start_decoders(self) -> None:
        with contextlib.suppress(Exception):  # who first needs one meets the same error
            self.nursery.start()

    def _run(self, ready: Future[Ready]) -> None:
        """The thread that loads the codec and works: a second that computes would leave OpenMP with more threads than
        cores, and then each of them is put to sleep after each layer and woken for the next."""
        try:
            ready.set_result(self._load())
        except BaseException as error:  # whatever it is, `load` waits for it
            ready.set_exception(error)
        else:
            self._work()

    def _load(self) -> Ready:
        if self.use_gpu and not torch.cuda.is_available():
            raise ValueError("Ray lends this actor a GPU that torch cannot use; install a build of torch for this GPU")
        with contextlib.suppress(OSError):  # another machine may not have it; then only full paths work
            os.chdir(self.task.folder)
        device = "cuda" if self.use_gpu else "cpu"
        torch.set_num_threads(self.threads)
        self.codec = codecs.load(self.task.codec, device, self.task.weights, self.task.precision)
        name = torch.cuda.get_device_name() if self.use_gpu else f"cpu, {self.threads} threads"
        return Ready(self.codec.spec, socket.gethostname(), name, os.getpid(), torch.__version__)

    def _work(self) -> None:
        assert self.codec is not None
        while True:
            try:
                made = tokenize_units(
                    self._hand(),
                    self.codec,
                    self.task.output,
                    self.settings,
                    self._progress,
                    self._failed,
                    self.nursery,
                )
                for info in made:
                    self.waiting.pop(info.name).set_result(info)
            except Exception as error:  # of no unit alone: all in hand go back
                failed, self.waiting = self.waiting, {}
                for future in failed.values():
                    future.set_exception(error)

    def _progress(self, seconds: float) -> None:
        self.encoded += seconds
        if not self.use_gpu and time.monotonic() - self.kept_since > KEEP_SECONDS:
            give_back_memory()
            self.kept_since = time.monotonic()

    def _failed(self, unit: WorkUnit, error: Exception) -> None:
        if (future := self.waiting.pop(unit.name, None)) is not None:  # a unit may fail at both its ends
            future.set_exception(error)

    def _hand(self) -> Iterator[tuple[WorkUnit, Iterable[AudioFile | Reject]]]:
        """Units as they come, for ever."""
        while True:
            unit, files, future = self.inbox.get()
            self.waiting[unit.name] = future
            yield unit, self._counted(read_unit(unit) if files is None else files)

    def _counted(self, files: Iterable[AudioFile | Reject]) -> Iterator[AudioFile | Reject]:
        for file in files:
            self.taken += 1
            yield file


def give_back_memory() -> None:
    """Give what is free in the heap back to the system; only glibc's malloc has a way to be asked."""
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


class Feeder:
    """Reads a .gz, .bz2 or .xz archive front to back, hands out the stored bytes of one wanted unit after the other."""

    def __init__(self, units: Sequence[WorkUnit], wanted: set[str]) -> None:
        self.walk = feed_units(units, wanted)

    def next(self) -> tuple[str | None, Files]:
        """The next unit's name and clips, as two objects: the driver looks at the name only."""
        try:
            unit, files = next(self.walk)
        except StopIteration:
            return None, []
        return unit.name, files

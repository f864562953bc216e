"""The child process that decodes: clips come in on standard input, mono float32 sound goes out, one answer per clip.

    python -m pipeline.decode_worker '{"decoder": "pipeline.decoding:load", "limits": {...}, "clip_seconds": 60}'

A request is u32 N, N times u64 size, then the bytes of N clips. An answer is u32 length, that much JSON, and float32
samples: {"pieces": [[start, end, samples], ...]} or {"reason": ..., "message": ...}.
"""

import importlib
import io
import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable, Iterable
from typing import Any

READY = b"neutok"
MEMORY_BYTES = 6 << 30  # of data one decoder may allocate, so that lying bytes cost a clip and not the machine


def main() -> None:
    task = json.loads(sys.argv[1])
    requests, answers = _private_pipes()
    _quiet_signals()
    import torch

    from pipeline.decoding import Limits

    torch.set_num_threads(1)
    load = find(task["decoder"])
    limits = Limits(**task["limits"])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    _silence()
    write_all(answers, READY)
    while request := read_request(requests):
        for data in request:
            answer(answers, load, data, limits, task["clip_seconds"])


def answer(
    answers: io.FileIO, load: Callable[..., Iterable[Any]], data: bytes, limits: Any, clip_seconds: float
) -> None:
    """Decode one clip and send what came of it. A decoder that takes too long is ended by the kernel's alarm."""
    from pipeline.decoding import Refused

    signal.setitimer(signal.ITIMER_REAL, clip_seconds)
    pieces, waveforms = [], []
    said: dict[str, Any] = {"pieces": pieces}
    try:
        for piece in load(data, limits):
            pieces.append([piece.start, piece.end, len(piece.waveform)])
            waveforms.append(piece.waveform)
    except Refused as refused:
        said, waveforms = {"reason": refused.reason, "message": refused.message}, []
    except Exception as error:
        said, waveforms = {"reason": "unreadable", "message": f"the decoder failed: {type(error).__name__}"}, []
    signal.setitimer(signal.ITIMER_REAL, 0)
    header = json.dumps(said).encode()
    write_all(answers, struct.pack("<I", len(header)) + header)
    for waveform in waveforms:
        write_all(answers, memoryview(waveform).cast("B"))


def find(path: str) -> Callable[..., Any]:
    """The function at `module:name`."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def read_request(pipe: io.FileIO) -> list[bytes]:
    """The clips of the next request; [] at the end. All are read before the first is decoded, so neither side waits."""
    head = pipe.read(4)
    if len(head) < 4:
        return []
    (count,) = struct.unpack("<I", head)
    sizes = struct.unpack(f"<{count}Q", read_exactly(pipe, 8 * count))
    return [bytes(read_exactly(pipe, size)) for size in sizes]


def send_request(pipe: io.FileIO, clips: list[bytes]) -> None:
    write_all(pipe, struct.pack(f"<I{len(clips)}Q", len(clips), *map(len, clips)))
    for data in clips:
        write_all(pipe, data)


def read_exactly(pipe: io.FileIO, size: int) -> bytearray:
    """Raises: EOFError if the other side ends before."""
    buffer = bytearray(size)
    read_into(pipe, memoryview(buffer))
    return buffer


def read_into(pipe: io.FileIO, view: memoryview) -> None:
    while len(view):
        got = pipe.readinto(view)
        if not got:
            raise EOFError("the other side of the pipe has ended")
        view = view[got:]


def write_all(pipe: io.FileIO, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while len(view):
        view = view[pipe.write(view) :]


def _private_pipes() -> tuple[io.FileIO, io.FileIO]:
    """Standard input and output for us alone: what a native library prints must not end among the answers."""
    requests, answers = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    return io.FileIO(requests, "rb"), io.FileIO(answers, "wb")


def _silence() -> None:
    """From here on native libraries only tell about damaged clips, which the answers do as well."""
    os.dup2(1, 2)


def _quiet_signals() -> None:
    """Ctrl-C is for the parent to handle; the alarm must end us, whatever was inherited."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})


if __name__ == "__main__":
    main()

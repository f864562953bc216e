"""The processes that decode: a nursery that imports everything once, and the workers it forks, fresh in a moment.

    python -m pipeline.decoding.worker pipeline.decoding.load:load

Standard input is the nursery's control socket. Two pipe ends sent over it, with {"limits": {...}, "clip_seconds": 60},
make a worker, answered by its process id; a process id alone is answered by that worker's exit status, once it has
ended.

A worker's request is u32 N, N times u64 size, then the bytes of N clips. Its answer is u32 length and that much JSON:
{"reason", "message"}, or {"start", "end", "samples", "last"} and so many float32 samples; a clip that was cut has one
answer per piece. {"trouble"} says what is wrong with this machine, and nothing of the clip.
"""

import importlib
import io
import json
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any

READY = b"neutok"
SLOWEST_BYTES = 100_000  # stored bytes a second that any decoder manages, for clips of any length
MEMORY_BYTES = 6 << 30  # of data one decoder may allocate, so that lying bytes cost a clip and not the machine


def main() -> None:
    """Be the nursery until the other end of the control socket is closed."""
    control = socket.socket(fileno=os.dup(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to handle
    import torch

    from pipeline.decoding.load import Limits

    torch.set_num_threads(1)
    load = find(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # what native libraries say from here on is about damaged clips; the answers say so as well
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    control.send(READY)
    while True:
        message, pipes, _, _ = socket.recv_fds(control, 4096, 2)
        if not message:
            os._exit(0)
        if not pipes:
            control.send(struct.pack("<i", os.waitpid(struct.unpack("<i", message)[0], 0)[1]))
            continue
        process = os.fork()
        if process == 0:
            control.close()
            task = json.loads(message)
            requests, answers = io.FileIO(pipes[0], "rb"), io.FileIO(pipes[1], "wb")
            work(requests, answers, load, Limits(**task["limits"]), task["clip_seconds"])
            os._exit(0)
        for pipe in pipes:
            os.close(pipe)
        control.send(struct.pack("<i", process))


def work(requests: io.FileIO, answers: io.FileIO, load: Callable[..., Any], limits: Any, clip_seconds: float) -> None:
    """Be a worker until there are no more requests. The alarm ends it, whatever was inherited."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    try:
        while request := read_request(requests):
            for data in request:
                answer(answers, load, data, limits, clip_seconds)
    except (OSError, EOFError):  # the parent is gone
        return


def answer(
    answers: io.FileIO, load: Callable[..., Iterator[Any]], data: bytes, limits: Any, clip_seconds: float
) -> None:
    """Decode one clip and send what came of it. A decoder that takes too long is ended by the kernel's alarm."""
    from pipeline.decoding.load import NoRoom, Refused

    if limits.split_seconds is not None or limits.max_seconds > clip_seconds:  # hours of sound take their time
        clip_seconds += len(data) / SLOWEST_BYTES
    signal.setitimer(signal.ITIMER_REAL, clip_seconds)
    try:
        pieces = load(data, limits)
        piece = next(pieces, None)  # the rest of them is decoded by now
        if piece is None:
            raise Refused("empty", "the decoder gave no sound")
    except Refused as refused:
        signal.setitimer(signal.ITIMER_REAL, 0)
        send(answers, {"reason": refused.reason, "message": refused.message})
        return
    except NoRoom as trouble:
        signal.setitimer(signal.ITIMER_REAL, 0)
        send(answers, {"trouble": str(trouble)})
        return
    except Exception as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        send(answers, {"reason": "unreadable", "message": f"the decoder failed: {type(error).__name__}"})
        return
    signal.setitimer(signal.ITIMER_REAL, 0)
    while piece is not None:
        following = next(pieces, None)
        said = {"start": piece.start, "end": piece.end, "samples": len(piece.waveform), "last": following is None}
        send(answers, said)
        write_all(answers, memoryview(piece.waveform).cast("B"))
        piece = following


def send(answers: io.FileIO, said: dict[str, Any]) -> None:
    text = json.dumps(said).encode()
    write_all(answers, struct.pack("<I", len(text)) + text)


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


if __name__ == "__main__":
    main()

"""Where a run's progress is seen: a bar on a terminal, plain lines elsewhere, JSONL in `log/`, Ray's metrics."""

import json
import os
import socket
import sys
import time
from datetime import UTC, datetime
from typing import Any, TextIO

import fsspec

from jobs.progress import Progress, Snapshot, by_reason
from pipeline import storage
from pipeline.reporting.amounts import lasting, megabytes
from schemas.manifest import ShardManifest

LINE_SECONDS = 15.0
REMOTE_FLUSH_SECONDS = 60.0
REMOTE_RECORDS = 2_000  # an object cannot be appended to: it is rewritten, so it must stay small


class RunLog:
    """JSONL records below `<output>/log/`; the only files of an output that may hold times and hosts."""

    def __init__(self, output: str) -> None:
        self.folder = storage.join(output, "log")
        self.local = storage.is_local(output)
        self.name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{socket.gethostname()}-{os.getpid()}"
        self.part, self.lines, self.flushed = 0, list[str](), time.monotonic()

    def write(self, event: str, **values: Any) -> None:
        record = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **values}
        self.lines.append(json.dumps(record, default=str) + "\n")
        if self.local or time.monotonic() - self.flushed > REMOTE_FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        self.flushed = time.monotonic()
        if not self.lines:
            return
        with fsspec.open(
            f"{self.folder}/{self.name}-{self.part:04d}.jsonl", "a" if self.local else "w", auto_mkdir=True
        ) as file:
            file.write("".join(self.lines))
        if self.local:
            self.lines.clear()
        elif len(self.lines) > REMOTE_RECORDS:
            self.part, self.lines = self.part + 1, []


class Reporter:
    """Shows a `Progress` every now and then. `screen` decides: a bar if it is a terminal, else a line every 15 s."""

    def __init__(self, progress: Progress, log: RunLog, screen: TextIO = sys.stderr) -> None:
        self.progress, self.log, self.screen = progress, log, screen
        self.gauges: Gauges | None = None
        self.bar = None
        self.next_line = time.monotonic() + LINE_SECONDS
        if screen.isatty():
            from tqdm import tqdm

            self.bar = tqdm(
                total=1.0, file=screen, bar_format="{percentage:3.0f}%|{bar:24}| {desc}", dynamic_ncols=True
            )

    def tick(self) -> None:
        """To be called often; it shows and writes at its own pace."""
        if self.bar is not None:
            snapshot = self.progress.snapshot()
            self.bar.n = min(1.0, snapshot.share)
            self.bar.set_description_str(snapshot.line())
        if time.monotonic() >= self.next_line:
            self.next_line = time.monotonic() + LINE_SECONDS
            self.show(self.progress.snapshot())

    def show(self, snapshot: Snapshot) -> None:
        if self.bar is None:
            print(snapshot.line(), file=self.screen, flush=True)
        self.log.write("progress", **snapshot.record())
        self.gauges = self.gauges or Gauges()
        self.gauges.set(snapshot)

    def say(self, text: str) -> None:
        """One line that the bar must not run over."""
        if self.bar is not None:
            self.bar.write(text, file=self.screen)
        else:
            print(text, file=self.screen, flush=True)

    def close(self) -> None:
        self.show(self.progress.snapshot())
        if self.bar is not None:
            self.tick()
            self.bar.close()
        self.log.flush()


class Gauges:
    """The same numbers as Ray metrics, set by the driver from what is committed; a worker's own would die with it."""

    def __init__(self) -> None:
        from ray.util.metrics import Gauge

        self.plain = {
            name: Gauge(f"neutok_{name}", description=text)
            for name, text in (
                ("hours_done", "hours of audio encoded"),
                ("hours_left", "hours of audio still to encode, estimated"),
                ("times_real_time", "hours of audio encoded per hour, over the last five minutes"),
                ("eta_seconds", "seconds until the run is done, estimated"),
                ("units_done", "work units whose shard is committed"),
                ("units", "work units of the run"),
                ("actors", "actors that hold a codec"),
            )
        }
        self.rejects = Gauge("neutok_rejects", description="clips that became no row", tag_keys=("reason",))
        self.actor = Gauge("neutok_actor_times_real_time", description="speed of one actor", tag_keys=("actor",))
        self.seen: set[str] = set()

    def set(self, snapshot: Snapshot) -> None:
        values = {
            "hours_done": snapshot.seconds_done / 3600,
            "hours_left": None if snapshot.seconds_left is None else snapshot.seconds_left / 3600,
            "times_real_time": snapshot.speed,
            "eta_seconds": snapshot.eta_seconds,
            "units_done": snapshot.units_done,
            "units": snapshot.units,
            "actors": len(snapshot.actors),
        }
        for name, value in values.items():
            if value is not None:
                self.plain[name].set(value)
        for reason, count in snapshot.rejects.items():
            self.rejects.set(count, tags={"reason": reason})
        for name in self.seen - set(snapshot.actors):
            self.actor.set(0.0, tags={"actor": name})  # gone; a gauge keeps its last value otherwise
        for name, speed in snapshot.actors.items():
            self.actor.set(speed, tags={"actor": name})
        self.seen |= set(snapshot.actors)


def summary(manifest: ShardManifest, output: str) -> str:
    """What a finished output holds and where, for the screen."""
    shards = manifest.shards
    rows, clips = sum(s.num_records for s in shards), sum(s.num_clips for s in shards)
    frames, num_bytes = sum(s.num_frames for s in shards), sum(s.num_bytes for s in shards)
    rejects: dict[str, int] = {}
    for shard in shards:
        for reason, count in shard.skipped.items():
            rejects[reason] = rejects.get(reason, 0) + count
    return "\n".join(
        (
            f"{rows:,} rows of {clips:,} clips, {lasting(sum(s.seconds for s in shards) / 3600)}, {frames:,} frames, "
            f"{megabytes(num_bytes)} in {len(shards):,} shards",
            f"rejects: {by_reason(rejects)}, {reject_share(manifest):.2%} of the clips"
            + ("; each in rejects/" if rejects else ""),
            f"tokens in {output}/data, all shards listed in {output}/manifest.json",
        )
    )


def reject_share(manifest: ShardManifest) -> float:
    """Rejected clips per clip that went in."""
    clips = sum(shard.num_clips for shard in manifest.shards)
    return sum(sum(shard.skipped.values()) for shard in manifest.shards) / clips if clips else 0.0

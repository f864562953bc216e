"""What there is to do, what is done, and what is whole."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class WorkUnit:
    """A run of consecutive clips of one source: rows [first, last) of an index file. It makes one output shard."""

    name: str  # of the shard, unique in a run, safe as a file name
    corpus: str
    source: str  # path or URL of the archive, table or folder that holds the sound
    index: str  # path or URL of the index file of that source
    first: int
    last: int
    num_bytes: int  # stored audio, exact or (Parquet rows) estimated
    sequential: bool = False  # a .gz, .bz2 or .xz archive: one feeder reads it front to back


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """What one finished unit holds; its sidecar `done/<name>.json`, free of times and machines."""

    name: str
    num_clips: int  # clips that went in = source clips of the rows + rejects
    num_records: int
    num_frames: int
    num_samples: int  # at the codec's input rate
    seconds: float
    data: str  # paths below the output folder
    rejects: str
    num_bytes: int
    sha256: str
    rejects_sha256: str
    skipped: dict[str, int]  # rejects by reason
    corpus: str = ""
    samples_by_language: dict[str, int] = field(default_factory=dict)  # "" where no language is given

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "ShardInfo":
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class ShardManifest:
    """All shards of a finished output, in unit order, with their totals."""

    version: int
    run: dict[str, Any]  # the identity of run.json: codec, precision, unit size, plan version, index hash
    shards: tuple[ShardInfo, ...]
    totals: dict[str, Any]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "ShardManifest":
        fields = json.loads(text)
        return cls(**{**fields, "shards": tuple(ShardInfo(**shard) for shard in fields["shards"])})

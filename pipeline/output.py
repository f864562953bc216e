"""Where the parts of an output lie.

    data/<unit>.parquet|.tar   rejects/<unit>.parquet   done/<unit>.json   manifest.json   run.json   index/   log/

Only log/ may hold times, hosts and attempts; all else follows from the input, the codec and the settings.
"""

from dataclasses import dataclass

from pipeline import storage
from pipeline.sinks import SINKS


@dataclass(frozen=True, slots=True)
class Output:
    """A folder or fsspec URL for shards of one format. Raises: ValueError for an unknown format."""

    folder: str
    format: str = "parquet"

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", storage.plain(self.folder))
        if self.format not in SINKS:
            raise ValueError(f"unknown format {self.format!r}; known: {', '.join(sorted(SINKS))}")

    def path(self, *parts: str) -> str:
        return storage.join(self.folder, *parts)

    def data(self, unit: str) -> str:
        return self.path("data", unit + SINKS[self.format].SUFFIX)

    def rejects(self, unit: str) -> str:
        return self.path("rejects", unit + ".parquet")

    def sidecar(self, unit: str) -> str:
        return self.path("done", unit + ".json")

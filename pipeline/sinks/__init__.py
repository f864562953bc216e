"""The forms a token shard is written in, by name: `--format`."""

from types import ModuleType

from pipeline.sinks import parquet, webdataset

SINKS: dict[str, ModuleType] = {"parquet": parquet, "webdataset": webdataset}
"""Each has SUFFIX, `write(file, records, spec)` and `read(path, spec)`."""

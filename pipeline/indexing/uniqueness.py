"""Keys unique over all index files of a run, and one row for a clip that is listed twice."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.indexing import keys
from pipeline.indexing.table import SCHEMA, origin, write_index
from pipeline.sources import Corpus, Source


class Place(NamedTuple):
    """A row that shares its key with another."""

    file: int
    row: int
    source: str
    split: str | None


def resolve_keys(corpus: Corpus, files: Sequence[tuple[Source, str]]) -> None:
    """Make keys unique over all index files: those that collide all get 8 hex digits of their own source path.

    A clip met again under the same source path, or one of a corpus that lists a clip in several splits, is one clip:
    the others become rejects. Memory: 16 bytes a clip; only suspects are compared as text.
    """
    hashes = [native_hashes(path) for _, path in files]
    taken = np.concatenate(hashes)
    taken.sort()
    suspects = keys.repeated(taken)
    places: dict[str, list[Place]] = {}  # by key
    changed = {number for number, (_, path) in enumerate(files) if was_resolved(path)}
    for number, (source, path) in enumerate(files):
        rows = np.flatnonzero(keys.among(hashes[number], suspects))
        if len(rows):
            changed.add(number)
            table = pq.read_table(storage.open_read(path), columns=["key", "base_key", "member", "offset", "split"])
            for row, values in zip(rows.tolist(), table.take(rows).to_pylist(), strict=True):
                where = origin(source.name, source.kind, values["member"], values["offset"])
                place = Place(number, row, where, values["split"])
                places.setdefault(values["base_key"] or values["key"], []).append(place)
    decided: dict[int, dict[int, tuple[str, str, str]]] = {number: {} for number in sorted(changed)}
    for key, met in places.items():
        if len(met) > 1:
            for number, row, new, twin in decide(corpus, key, met, taken):
                decided[number][row] = (key, new, twin)
    for number, rows in decided.items():
        rewrite(files[number][1], rows)


def decide(corpus: Corpus, key: str, met: Sequence[Place], taken: np.ndarray) -> list[tuple[int, int, str, str]]:
    """(file, row, key, message): the key each gets, and why it is a duplicate, or ""; `taken` is sorted."""
    if corpus.same_clip:
        order = {split: rank for rank, split in enumerate(corpus.same_clip)}
        first = min(met, key=lambda place: (order.get(place.split or "", len(order)), place.file, place.row))
        why = f"the same clip is listed under split {first.split}"
        return [(place.file, place.row, key, "" if place is first else why) for place in met]
    new = distinct_keys(key, sorted({place.source for place in met}), taken)
    seen: set[str] = set()
    result = []
    for place in met:
        why = "a member of the same name came before it" if place.source in seen else ""
        seen.add(place.source)
        result.append((place.file, place.row, new[place.source], why))
    return result


def distinct_keys(key: str, sources: Sequence[str], taken: np.ndarray) -> dict[str, str]:
    """The key of each source: with 8 digits of it, more only where somebody's own key looks just like that."""
    if len(sources) == 1:
        return {sources[0]: key}
    for digits in (8, 16, 32):
        longer = {source: keys.with_source(key, source, digits) for source in sources}
        found = keys.hash_keys(pa.array(list(longer.values())))
        if len(set(longer.values())) == len(sources) and not keys.among(found, taken).any():
            return longer
    return {source: keys.with_source(key, source, 64) for source in sources}


def native_hashes(path: str) -> np.ndarray:
    """uint64 [N]: of each row's key as it was before any collision."""
    parts = [np.empty(0, np.uint64)]
    with pq.ParquetFile(storage.open_read(path)) as file:
        for batch in file.iter_batches(65_536, columns=["key", "base_key"]):
            native = pc.coalesce(batch.column("base_key"), batch.column("key"))
            parts.append(keys.hash_keys(native))
    return np.concatenate(parts)


def was_resolved(path: str) -> bool:
    """Whether an earlier resolution left its marks, which another set of sources may lift."""
    with pq.ParquetFile(storage.open_read(path)) as file:
        return any(
            batch.column("base_key").null_count < len(batch)
            or pc.any(pc.equal(batch.column("reject"), "duplicate_key")).as_py()
            for batch in file.iter_batches(65_536, columns=["base_key", "reject"])
        )


def rewrite(path: str, decided: Mapping[int, tuple[str, str, str]]) -> None:
    """The index file with these keys, in place of whatever was decided before; otherwise byte for byte as it was."""

    def batches() -> Iterator[pa.RecordBatch]:
        start = 0
        with pq.ParquetFile(storage.open_read(path)) as file:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group).to_pylist()
                for number, row in enumerate(rows, start):
                    undo(row)
                    if number in decided:
                        apply(row, *decided[number])
                start += len(rows)
                yield pa.RecordBatch.from_pylist(rows, schema=SCHEMA)

    with pq.ParquetFile(storage.open_read(path)) as file:
        head = file.metadata.metadata[b"neutok"].decode()
    write_index(path, batches(), lambda: head)


def undo(row: dict[str, Any]) -> None:
    if row["base_key"] is not None:
        row["key"], row["base_key"] = row["base_key"], None
    if row["reject"] == "duplicate_key":
        row["reject"], row["message"] = None, ""


def apply(row: dict[str, Any], key: str, new: str, twin: str) -> None:
    if new != key:
        row["key"], row["base_key"] = new, key
    if twin and row["reject"] is None:  # what was refused before keeps its reason
        row["reject"], row["message"] = "duplicate_key", twin

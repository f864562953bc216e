"""One pass over one source: every clip's place, and its labels joined on, as rows of an index file. No decoding."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import pyarrow as pa

from pipeline import finding, storage
from pipeline.indexing import keys
from pipeline.indexing.labels import Labels, clean, language_fields, to_json
from pipeline.indexing.languages import language_code
from pipeline.indexing.table import BATCH_ROWS, INDEX_VERSION, origin, to_batch, write_index
from pipeline.readers import MAX_CLIP_BYTES, Damaged, Member, packed, parquet, tar, zipped
from pipeline.sources import ARCHIVES, Corpus, Layout, Source

HEADER_BUFFER = 4096  # bytes read at a header: its member's label too, but none of the sound


@dataclass(frozen=True)
class Selection:
    """Which clips of a corpus are wanted; all, unless said otherwise. Splits may be written with `-`, `.` or `_`."""

    splits: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()  # in any form that pipeline.indexing.languages knows
    limit: int | None = None  # clips, counted in index order over all sources
    keep_known_bad: bool = False  # clips on their corpus's own list of bad ones are rejects, unless this is set

    @property
    def codes(self) -> frozenset[str]:
        """The languages as ISO codes. Raises: ValueError for what is no language."""
        codes = {language: language_code(language) for language in self.languages}
        if unknown := [language for language, code in codes.items() if code is None]:
            raise ValueError(f"--language {unknown[0]!r} is no language; give codes such as en, de, yue")
        return frozenset(code for code in codes.values() if code)


@dataclass(frozen=True)
class Listing:
    """What listing one source found."""

    num_clips: int
    seconds: float | None
    orphan_labels: int
    shared_labels: dict[str, tuple[int, int]]  # see Layout.shared
    num_left_out: int
    sequential: bool
    problems: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)  # met, selected or not
    languages: list[str] = field(default_factory=list)


def same_split(split: str, wanted: Sequence[str]) -> bool:
    return re.sub(r"[-._]", "-", split) in {re.sub(r"[-._]", "-", name) for name in wanted}


def list_source(
    corpus: Corpus, source: Source, layout: Layout, beside: Sequence[str], path: str, selection: Selection
) -> Listing:
    """Write the index file of one source. Raises: what the store raises; damage is counted, never raised."""
    listing = Builder(corpus, source, layout, selection)
    try:
        for name in beside:
            listing.read_beside(name)
        rows = listing.table_rows() if source.kind == "parquet" else listing.member_rows()
        head = {"version": INDEX_VERSION, "corpus": corpus.name, "name": clean(source.name), "kind": source.kind}
        write_index(
            path, listing.batches(rows), lambda: json.dumps(head | {"packing": listing.packing}, sort_keys=True)
        )
        return listing.summary()
    finally:
        layout.close()


class Builder:
    """The state of one pass over one source."""

    def __init__(self, corpus: Corpus, source: Source, layout: Layout, selection: Selection) -> None:
        self.corpus, self.source, self.layout, self.selection = corpus, source, layout, selection
        self.codes = selection.codes
        self.problems: list[str] = []
        self.packing, self.stopped = "", False
        self.num_clips, self.num_left_out, self.seconds = 0, 0, None
        self.splits: set[str] = set()
        self.languages: set[str] = set()

    # -- where members come from

    def members(self) -> Iterator[tuple[Member, BinaryIO | None]]:
        if self.source.kind == "tree":
            yield from self.tree_members()
            return
        path, problems = self.source.path, self.problems.append
        found = packed.sniff(path)  # by its bytes: an ending may be wrong
        self.packing = found if found != "zip" else ""
        stream = packed.open_stream(path, self.packing, HEADER_BUFFER)
        try:
            if found == "zip":
                with storage.open_read(path, HEADER_BUFFER) as file:
                    yield from zipped.members(stream, file, self.layout.is_label, problems)
            else:
                yield from tar.members(stream, self.layout.is_label, problems)
        finally:
            stream.close()

    def tree_members(self) -> Iterator[tuple[Member, BinaryIO | None]]:
        for entry in self.source.files:
            name = entry.path[len(self.source.path) :].lstrip("/")
            why = "" if clean(name) == name else "its file name is not UTF-8; rename it"
            if entry.mark == finding.DANGLING:
                why = "not a file but a link to nothing; fetch what it points to"
            member = Member(clean(name) or "", 0, entry.size, entry.size, problem=why)
            if why and self.layout.is_label(name):
                self.problems.append(f"{member.name}: {why}")
            if why or not self.layout.is_label(name):
                yield member, None
                continue
            with storage.open_read(entry.path) as file:
                yield member, file

    def read_beside(self, path: str) -> None:
        """Labels that lie outside the source, in a file or in an archive of their own."""
        if not ARCHIVES.search(path):
            with storage.open_read(path) as file:
                self.read_labels(path, file)
            return
        stream = packed.open_stream(path, packed.sniff(path))
        try:
            for member, content in tar.members(stream, self.layout.is_label, self.problems.append):
                if content:
                    self.read_labels(member.name, content)
        finally:
            stream.close()

    def read_labels(self, name: str, content: BinaryIO) -> None:
        try:
            self.layout.read_labels(name, content)
        except Damaged as damage:
            self.problems.append(str(damage))

    # -- rows, in stored order

    def member_rows(self) -> Iterator[tuple[str, Member, Labels]]:
        """Clips wait, as Arrow columns, until the labels behind them have been read."""
        waiting: list[pa.RecordBatch] = []
        fresh: list[tuple[str, Member]] = []
        for member, content in self.members():
            if content is not None:
                self.read_labels(member.name, content)
            elif (id := self.layout.clip(member.name)) is not None:
                fresh.append((id, member))
                if len(fresh) == BATCH_ROWS:
                    waiting.append(to_waiting(fresh))
                    fresh = []
        waiting.append(to_waiting(fresh))
        for batch in waiting:
            for row in batch.to_pylist():
                id, name = row.pop("id"), row["name"]
                yield id, Member(**row), self.layout.labels(id, name)

    def table_rows(self) -> Iterator[tuple[str, Member, Labels]]:
        try:
            for member, row in parquet.rows(self.source.path, self.problems.append):
                if member.problem:
                    yield f"{ARCHIVES.sub('', self.source.name)}_{member.offset}", member, Labels()
                    continue
                id, labels = self.layout.row(row, member.offset)
                yield id or f"{ARCHIVES.sub('', self.source.name)}_{member.offset}", member, labels
        except Damaged as damage:
            self.problems.append(str(damage))

    # -- rows of the index

    def batches(self, rows: Iterator[tuple[str, Member, Labels]]) -> Iterator[pa.RecordBatch]:
        columns: list[tuple[Any, ...]] = []
        for id, member, labels in rows:
            row = self.row(id, member, labels)
            if row is None:
                continue
            if self.selection.limit is not None and self.num_clips >= self.selection.limit:
                self.stopped = True
                break
            self.num_clips += 1
            columns.append(row)
            if len(columns) == BATCH_ROWS:
                yield to_batch(columns)
                columns = []
        if columns:
            yield to_batch(columns)

    def row(self, id: str, member: Member, labels: Labels) -> tuple[Any, ...] | None:
        """The index row of a clip, or None if it was not selected."""
        language, extra = language_fields(labels)
        split = labels.split
        self.splits.update([split] if split else [])
        self.languages.update([language] if language else [])
        left_out = (self.codes and language not in self.codes) or (
            self.selection.splits and not (split and same_split(split, self.selection.splits))
        )
        if left_out:
            self.num_left_out += 1
            return None
        reject, message = self.verdict(member, labels)
        if labels.seconds is not None:
            self.seconds = (self.seconds or 0.0) + labels.seconds
        source = origin(self.source.name, self.source.kind, member.name, member.offset)
        return (
            keys.make_key(self.corpus.name, id, source),
            None,
            clean(member.name),
            member.offset,
            member.size,
            member.packed,
            member.method,
            member.crc,
            clean(labels.text),
            language,
            clean(labels.speaker),
            clean(labels.recording),
            clean(split),
            clean(labels.license),
            to_json(extra),
            labels.seconds,
            reject,
            clean(message),
        )

    def verdict(self, member: Member, labels: Labels) -> tuple[str | None, str]:
        """The reason why a clip is no clip to tokenize, as far as can be told without its sound."""
        if member.problem:
            reason = "missing" if "not a file" in member.problem else "unreadable"
            return reason, member.problem
        if labels.reject and not (labels.reject == "known_bad" and self.selection.keep_known_bad):
            return labels.reject, labels.message
        if member.size == 0 and self.source.kind != "parquet":
            return "empty", "0 bytes"
        if member.size > MAX_CLIP_BYTES:
            return "unreadable", f"{member.size} bytes stored, more than {MAX_CLIP_BYTES}"
        return None, ""

    def summary(self) -> Listing:
        broken = [f"{count} x {what}" for what, count in sorted(self.layout.problems.items())]
        return Listing(
            num_clips=self.num_clips,
            seconds=self.seconds,
            orphan_labels=0 if self.stopped else self.layout.orphans,  # not all clips were asked for theirs
            shared_labels={} if self.stopped else self.layout.shared,
            num_left_out=self.num_left_out,
            sequential=bool(self.packing),
            problems=[clean(problem) or "" for problem in self.problems] + broken,
            splits=sorted(self.splits),
            languages=sorted(self.languages),
        )


WAITING = pa.schema(
    {
        "id": pa.string(),
        "name": pa.string(),
        "offset": pa.int64(),
        "size": pa.int64(),
        "packed": pa.int64(),
        "method": pa.int32(),
        "crc": pa.uint32(),
        "problem": pa.string(),
    }
)


def to_waiting(clips: Sequence[tuple[str, Member]]) -> pa.RecordBatch:
    rows = [(clean(id), clean(m.name), m.offset, m.size, m.packed, m.method, m.crc, m.problem) for id, m in clips]
    return to_batch(rows, WAITING)

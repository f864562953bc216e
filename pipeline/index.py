"""What a corpus holds: every clip with its place and its labels, listed once without decoding, cut into work units.

One Parquet file a source lies below `<folder>/index/`. Its bytes follow from the corpus and the selection alone: no
times, no paths of this machine. It is used again as long as its source has not changed (`<folder>/log/index/` notes
when that was).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import keys, storage
from pipeline.corpora import CORPORA
from pipeline.languages import language_code
from pipeline.listing import INDEX_VERSION, SCHEMA, Listing, Selection, list_source, origin, same_split
from pipeline.sources import Corpus, Source, find_sources
from schemas.manifest import WorkUnit

__all__ = ["Index", "Selection", "build_index"]

MAX_NAME_CHARS = 100


@dataclass(frozen=True)
class Index:
    """The clips of a run: those that are rows of the index files, in work units."""

    units: tuple[WorkUnit, ...]
    hash: str  # of all that decides what is written: clips, labels, places, the cut into units
    num_clips: int
    num_bytes: int  # stored audio; of Parquet rows estimated
    seconds: float | None  # as far as the corpus says; None if it says nothing
    rejects: dict[str, int]  # known before any decoding, by reason; they are among num_clips
    orphan_labels: int  # labels whose sound is missing: no clips
    problems: tuple[str, ...] = ()  # of whole sources: damage, broken label lines; for the screen
    num_sources: int = 0
    num_left_out: int = 0  # clips that the selection passed over


def build_index(corpus: str, inputs: Sequence[str], folder: str, selection: Selection, unit_bytes: int) -> Index:
    """List every clip of the inputs below `<folder>/index/`, resolve keys over all sources, cut work units.

    Args: inputs: local paths, globs, brace ranges, folders, URLs. folder: where the output goes, any fsspec URL.
    unit_bytes: stored audio of one unit, about.
    Raises: ValueError for an unknown corpus, inputs that match nothing, or a selection that leaves nothing.
    """
    if corpus not in CORPORA:
        raise ValueError(f"unknown corpus {corpus!r}; known: {', '.join(sorted(CORPORA))}")
    if unit_bytes < 1:
        raise ValueError(f"a work unit needs at least 1 byte, got {unit_bytes}")
    folder = storage.plain(folder)
    assert selection.codes is not None  # raises for a language that is none
    sources = find_sources(CORPORA[corpus], inputs, exclude=folder)
    listings, left, entries = [], selection.limit, {}
    for slug, source in zip(slugs(corpus, sources), sources, strict=True):
        if left is not None and left <= 0:
            break
        if is_elsewhere(CORPORA[corpus], source, selection):
            continue
        path = storage.join(folder, "index", f"{slug}.parquet")
        listing = refreshed(CORPORA[corpus], source, path, folder, slug, replace(selection, limit=left), entries)
        listings.append((slug, source, path, listing))
        left = None if left is None else left - listing.num_clips
    if not sum(listing.num_clips for *_, listing in listings):
        raise ValueError(nothing_left(corpus, sources, selection, [listing for *_, listing in listings]))
    resolve_keys(CORPORA[corpus], [(source, path) for _, source, path, _ in listings])
    return cut(corpus, listings, selection, unit_bytes)


def is_elsewhere(corpus: Corpus, source: Source, selection: Selection) -> bool:
    """True if the path alone tells that a source holds nothing of the selection; then it is not even opened."""
    layout = corpus.layout(source)
    language, split = language_code(layout.language), layout.split
    return (bool(selection.languages and language) and language not in selection.codes) or (
        bool(selection.splits and split) and not same_split(split, selection.splits)
    )


def refreshed(
    corpus: Corpus,
    source: Source,
    path: str,
    folder: str,
    slug: str,
    selection: Selection,
    entries: dict[str, storage.Entry | None],
) -> Listing:
    """The listing of a source: the one that is there if nothing has changed since, else a new one.

    `entries` remembers which label files exist: thousands of archives may ask for the same.
    """
    note = storage.join(folder, "log", "index", f"{slug}.json")
    layout = corpus.layout(source)
    for name in layout.beside():
        if name not in entries:
            entries[name] = storage.entry(name) if storage.exists(name) else None
    beside = [entry for name in layout.beside() if (entry := entries[name])]
    state = {
        "version": INDEX_VERSION,
        "corpus": corpus.name,
        "source": source.name,
        "files": storage.signature([*source.files, *beside]),
        "selection": asdict(selection),
    }
    state = json.loads(json.dumps(state))
    if storage.exists(path) and storage.exists(note):
        try:
            known = json.loads(storage.read_bytes(note))
            if known["state"] == state:
                return Listing(**known["listing"])
        except (ValueError, KeyError, TypeError):
            pass  # a note that cannot be read is no note
    listing = list_source(corpus, source, layout, [entry.path for entry in beside], path, selection)
    data = json.dumps({"state": state, "listing": asdict(listing)}, indent=1, sort_keys=True).encode()
    storage.write_atomic(note, lambda file: file.write(data))
    return listing


def slugs(corpus: str, sources: Sequence[Source]) -> list[str]:
    """A name for each source that is safe as a file name, also where case does not count, and unique."""
    names = [keys.UNSAFE.sub("_", source.name.strip("/")) or corpus for source in sources]
    for ending in ("_tar", "_zip", "_parquet"):
        names = [name.removesuffix(ending) or corpus for name in names]
    seen = Counter(name.lower() for name in names)
    safe = []
    for name, source in zip(names, sources, strict=True):
        if seen[name.lower()] > 1 or len(name) > MAX_NAME_CHARS:
            name = keys.with_source(name[-MAX_NAME_CHARS:], f"{source.kind}:{source.name}")
        safe.append(name)
    assert len({name.lower() for name in safe}) == len(safe), "two sources of one name"
    return safe


def nothing_left(corpus: str, sources: Sequence[Source], selection: Selection, listings: Sequence[Listing]) -> str:
    asked = [f"--split {' '.join(selection.splits)}"] if selection.splits else []
    asked += [f"--language {' '.join(selection.languages)}"] if selection.languages else []
    problems = sorted({problem for listing in listings for problem in listing.problems})
    splits = sorted({split for listing in listings for split in listing.splits})
    languages = sorted({language for listing in listings for language in listing.languages})
    said = [f"no clips of corpus {corpus!r} in {len(sources)} sources ({sources[0].name or sources[0].path}, ...)"]
    if asked:
        said.append(f"asked for {' '.join(asked)}; there are splits {splits} and languages {languages}")
    if problems:
        said.append("; ".join(problems[:5]))
    return "; ".join(said)


def resolve_keys(corpus: Corpus, files: Sequence[tuple[Source, str]]) -> None:
    """Make keys unique over all index files: those that collide all get 8 hex digits of their own source path.

    A clip met again under the same source path, or one of a corpus that lists a clip in several splits, is one clip:
    the others become rejects. Memory: 8 bytes a clip; only suspects are compared as text.
    """
    hashes = [native_hashes(path) for _, path in files]
    everything = np.concatenate(hashes)
    suspects = keys.repeated(everything)
    taken = np.sort(everything)
    places: dict[str, list[tuple[int, int, str, str | None]]] = {}  # key -> (file, row, source path, split)
    changed = {number for number, (_, path) in enumerate(files) if was_resolved(path)}
    for number, (source, path) in enumerate(files):
        rows = np.flatnonzero(np.isin(hashes[number], suspects))
        if len(rows):
            changed.add(number)
            table = pq.read_table(storage.open_read(path), columns=["key", "base_key", "member", "offset", "split"])
            for row, values in zip(rows.tolist(), table.take(rows).to_pylist(), strict=True):
                place = (
                    number,
                    row,
                    origin(source.name, source.kind, values["member"], values["offset"]),
                    values["split"],
                )
                places.setdefault(values["base_key"] or values["key"], []).append(place)
    decided = [
        (number, row, key, new, twin)
        for key, met in places.items()
        if len(met) > 1
        for number, row, new, twin in decide(corpus, key, met, taken)
    ]
    for number in sorted(changed):
        rewrite(files[number][1], {row: (key, new, twin) for n, row, key, new, twin in decided if n == number})


def decide(
    corpus: Corpus, key: str, met: Sequence[tuple[int, int, str, str | None]], taken: np.ndarray
) -> list[tuple[int, int, str, str]]:
    """(file, row, key, message): the key each gets, and why it is a duplicate, or ""."""
    if corpus.same_clip:
        order = {split: place for place, split in enumerate(corpus.same_clip)}
        first = min(met, key=lambda place: (order.get(place[3] or "", len(order)), place[:2]))
        why = f"the same clip is listed under split {first[3]}"
        return [(number, row, key, "" if (number, row) == first[:2] else why) for number, row, _, _ in met]
    distinct = {source for _, _, source, _ in met}
    seen: set[str] = set()
    result = []
    for number, row, source, _ in met:
        why = "a member of the same name came before it" if source in seen else ""
        seen.add(source)
        result.append((number, row, unique(key, source, taken) if len(distinct) > 1 else key, why))
    return result


def unique(key: str, source: str, taken: np.ndarray) -> str:
    """The key with digits of its source; more than 8 only where somebody's own key already looks like that."""
    for digits in (8, 16, 32, 64):
        longer = keys.with_source(key, source, digits)
        found = keys.hash_keys(pa.array([longer]))[0]
        place = int(np.searchsorted(taken, found))
        if place == len(taken) or taken[place] != found:
            return longer
    raise AssertionError(f"no free key for {source}")


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


def rewrite(path: str, decided: dict[int, tuple[str, str, str]]) -> None:
    """The index file with these keys in place of whatever was decided before; left alone if that was the same."""
    old = pq.read_table(storage.open_read(path))
    columns = {name: old.column(name).to_pylist() for name in ("key", "base_key", "reject", "message")}
    for row, base in enumerate(columns["base_key"]):
        if base is not None:
            columns["key"][row], columns["base_key"][row] = base, None
        if columns["reject"][row] == "duplicate_key":
            columns["reject"][row], columns["message"][row] = None, ""
    for row, (key, new, twin) in decided.items():
        if new != key:
            columns["key"][row], columns["base_key"][row] = new, key
        if twin and columns["reject"][row] is None:
            columns["reject"][row], columns["message"][row] = "duplicate_key", twin
    table = old
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), SCHEMA.field(name), pa.array(values, pa.string()))
    if not table.equals(old):
        write_index(path, table)


def write_index(path: str, table: pa.Table) -> None:
    storage.write_atomic(path, lambda file: pq.write_table(table, file, compression="zstd", row_group_size=16_384))


def cut(
    corpus: str, listings: Sequence[tuple[str, Source, str, Listing]], selection: Selection, unit_bytes: int
) -> Index:
    """Work units, and the totals of the index."""
    units: list[WorkUnit] = []
    digest = hashlib.sha256(json.dumps([INDEX_VERSION, corpus, unit_bytes]).encode())
    rejects: Counter[str] = Counter()
    for slug, source, path, listing in listings:
        digest.update(f"{slug} {hashlib.sha256(storage.read_bytes(path)).hexdigest()}\n".encode())
        table = pq.read_table(storage.open_read(path), columns=["size", "reject"])
        rejects.update(reason for reason in table.column("reject").to_pylist() if reason)
        units += cut_source(corpus, slug, source, path, table.column("size").to_numpy(), unit_bytes, listing.sequential)
    seconds = [listing.seconds for *_, listing in listings if listing.seconds is not None]
    return Index(
        units=tuple(units),
        hash=digest.hexdigest(),
        num_clips=sum(listing.num_clips for *_, listing in listings),
        num_bytes=sum(unit.num_bytes for unit in units),
        seconds=sum(seconds) if seconds else None,
        rejects=dict(sorted(rejects.items())),
        orphan_labels=count_orphans([listing for *_, listing in listings]),
        problems=tuple(
            f"{source.name or source.path}: {problem}"
            for _, source, _, listing in listings
            for problem in listing.problems
        ),
        num_sources=len(listings),
        num_left_out=sum(listing.num_left_out for *_, listing in listings),
    )


def count_orphans(listings: Sequence[Listing]) -> int:
    """Labels without sound; those of a file that several sources share are held against all of them together."""
    totals: dict[str, int] = {}
    for listing in listings:
        for path, (count, used) in listing.shared_labels.items():
            totals[path] = totals.get(path, count) - used
    return sum(listing.orphan_labels for listing in listings) + sum(max(0, left) for left in totals.values())


def cut_source(
    corpus: str, slug: str, source: Source, path: str, sizes: np.ndarray, unit_bytes: int, sequential: bool
) -> list[WorkUnit]:
    """Runs of consecutive rows: a unit ends with the clip that fills it."""
    before = np.concatenate([[0], np.cumsum(sizes)])
    starts = np.flatnonzero(np.diff(before[:-1] // unit_bytes, prepend=-1))
    ends = np.append(starts[1:], len(sizes))
    return [
        WorkUnit(
            name=f"{slug}-{number:05d}",
            corpus=corpus,
            source=source.path,
            index=path,
            first=int(first),
            last=int(last),
            num_bytes=int(before[last] - before[first]),
            sequential=sequential,
        )
        for number, (first, last) in enumerate(zip(starts, ends, strict=True))
    ]

"""What a corpus holds: every clip with its place and its labels, listed once without decoding, cut into work units.

One Parquet file a source lies below `<folder>/index/`. Its bytes follow from the corpus and the selection alone: no
times, no paths of this machine. It is used again as long as its source has not changed (`<folder>/log/index/` notes
when that was).
"""

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipeline import finding, storage
from pipeline.corpora import CORPORA
from pipeline.indexing import keys
from pipeline.indexing.languages import language_code
from pipeline.indexing.listing import Listing, Selection, list_source, same_split
from pipeline.indexing.table import INDEX_VERSION
from pipeline.indexing.uniqueness import resolve_keys
from pipeline.sources import Corpus, Layout, Source, find_sources
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


@dataclass(frozen=True, slots=True)
class Task:
    """The listing of one source: a value that another process can take."""

    corpus: str
    source: Source
    slug: str
    folder: str
    beside: tuple[finding.Entry, ...]  # label files outside the source
    selection: Selection

    @property
    def path(self) -> str:
        return storage.join(self.folder, "index", f"{self.slug}.parquet")

    @property
    def note(self) -> str:
        return storage.join(self.folder, "log", "index", f"{self.slug}.json")


def build_index(
    corpus: str,
    inputs: Sequence[str],
    folder: str,
    selection: Selection,
    unit_bytes: int,
    run: Callable[[Callable[[Task], Listing], Iterable[Task]], Iterable[Listing]] = map,
) -> Index:
    """List every clip of the inputs below `<folder>/index/`, resolve keys over all sources, cut work units.

    Args: inputs: local paths, globs, brace ranges, folders, URLs. folder: where the output goes, any fsspec URL.
    unit_bytes: stored audio of one unit, about. run: `map`, or that of a pool of processes; it must keep the order.
    Raises: ValueError for an unknown corpus, inputs that match nothing, a selection that leaves nothing, or if the
    folder holds a run that was begun with other clips; its index is left as it is.
    """
    if corpus not in CORPORA:
        raise ValueError(f"unknown corpus {corpus!r}; known: {', '.join(sorted(CORPORA))}")
    if unit_bytes < 1:
        raise ValueError(f"a work unit needs at least 1 byte, got {unit_bytes}")
    folder = storage.plain(folder)
    assert selection.codes is not None  # raises for a language that is none
    sources = find_sources(CORPORA[corpus], inputs, exclude=folder)

    def planned(folder: str) -> list[Task]:
        return list(plan(CORPORA[corpus], sources, folder, selection))

    def listed(tasks: list[Task]) -> Index:
        all_of = selection.limit is None
        done = list(zip(tasks, run(refreshed, tasks), strict=True)) if all_of else list(first_clips(tasks))
        if not sum(listing.num_clips for _, listing in done):
            raise ValueError(nothing_left(corpus, sources, selection, [listing for _, listing in done]))
        forget_others([task for task, _ in done])
        resolve_keys(CORPORA[corpus], [(task.source, task.path) for task, _ in done])
        return cut(corpus, done, unit_bytes)

    tasks, begun = planned(folder), begun_with(folder)
    if begun is not None and not is_current(tasks, folder):
        with tempfile.TemporaryDirectory(prefix="neutok-index-") as elsewhere:
            if listed(planned(elsewhere)).hash != begun:
                raise ValueError(
                    f"{folder} holds a run that was begun with other clips: files of --input have come, gone or "
                    "changed since, or the selection or unit size is another; restore them, or give another --output"
                )
    return listed(tasks)


def forget_others(tasks: Sequence[Task]) -> None:
    """Remove what a listing of another selection has left in the folder: its clips would be missed in the output."""
    names = {f"{task.slug}.parquet" for task in tasks}
    for path in finding.list_files(storage.join(tasks[0].folder, "index")):
        name = path.rpartition("/")[2]
        if name.endswith(".parquet") and name not in names:
            storage.remove(path)


def begun_with(folder: str) -> str | None:
    """The hash of the index that the run in this folder began with, if there is one."""
    try:
        return json.loads(storage.read_bytes(storage.join(folder, "run.json"))).get("index")
    except FileNotFoundError:
        return None


def is_current(tasks: Sequence[Task], folder: str) -> bool:
    """Whether the index files in a folder are those of the tasks, so that listing again would write none."""
    there = [path for path in finding.list_files(storage.join(folder, "index")) if path.endswith(".parquet")]
    return len(there) == len(tasks) and all(noted(task, state_of(task)) for task in tasks)


def plan(corpus: Corpus, sources: Sequence[Source], folder: str, selection: Selection) -> Iterator[Task]:
    """What is to be listed; a source that holds nothing of the selection, by its path alone, is not even opened."""
    known: dict[str, finding.Entry | None] = {}  # thousands of archives may ask for the same label files
    for slug, source in zip(slugs(corpus.name, sources), sources, strict=True):
        layout = corpus.layout(source)
        if is_elsewhere(layout, selection):
            continue
        for name in layout.beside():
            if name not in known:
                known[name] = finding.entry(name) if storage.exists(name) else None
        beside = tuple(entry for name in layout.beside() if (entry := known[name]))
        yield Task(corpus.name, source, slug, folder, beside, selection)


def first_clips(tasks: Iterable[Task]) -> Iterator[tuple[Task, Listing]]:
    """Source after source until the limit is reached; those behind it are not opened."""
    met = 0
    for task in tasks:
        limit = task.selection.limit or 0
        if met >= limit:
            return
        task = replace(task, selection=replace(task.selection, limit=limit - met))
        listing = refreshed(task)
        met += listing.num_clips
        yield task, listing


def is_elsewhere(layout: Layout, selection: Selection) -> bool:
    language, split = language_code(layout.language), layout.split
    return (bool(selection.languages and language) and language not in selection.codes) or (
        bool(selection.splits and split) and not same_split(split or "", selection.splits)
    )


def refreshed(task: Task) -> Listing:
    """The listing of a source: the one that is there if nothing has changed since, else a new one."""
    state = state_of(task)
    if known := noted(task, state):
        return known
    corpus, beside = CORPORA[task.corpus], [entry.path for entry in task.beside]
    storage.remove(task.note)  # from here on the index file is not the one it speaks of
    listing = list_source(corpus, task.source, corpus.layout(task.source), beside, task.path, task.selection)
    data = json.dumps({"state": state, "listing": asdict(listing)}, indent=1, sort_keys=True).encode()
    storage.write_atomic(task.note, lambda file: file.write(data))
    return listing


def state_of(task: Task) -> dict[str, Any]:
    """What a listing follows from, as JSON has it."""
    state = {
        "version": INDEX_VERSION,
        "corpus": task.corpus,
        "source": task.source.name,
        "files": finding.signature([*task.source.files, *task.beside]),
        "selection": asdict(task.selection),
    }
    return json.loads(json.dumps(state))


def noted(task: Task, state: dict[str, Any]) -> Listing | None:
    """The listing that made the index file that is there, if it followed from this state."""
    if storage.exists(task.path) and storage.exists(task.note):
        try:
            known = json.loads(storage.read_bytes(task.note))
            if known["state"] == state:
                return Listing(**known["listing"])
        except (ValueError, KeyError, TypeError):
            pass  # a note that cannot be read is no note
    return None


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
    """Why there is nothing to do: what was asked for, what there is, and what is broken."""
    asked = [f"--split {' '.join(selection.splits)}"] if selection.splits else []
    asked += [f"--language {' '.join(selection.languages)}"] if selection.languages else []
    layouts = [CORPORA[corpus].layout(source) for source in sources]
    splits = {split for listing in listings for split in listing.splits} | {x.split for x in layouts if x.split}
    languages = {code for listing in listings for code in listing.languages}
    languages |= {code for layout in layouts if (code := language_code(layout.language))}
    problems = sorted({problem for listing in listings for problem in listing.problems})
    said = [f"no clips of corpus {corpus!r} in {len(sources)} source(s), the first {sources[0].path}"]
    if asked:
        said.append(f"asked for {' '.join(asked)}; there are splits {sorted(splits)} and languages {sorted(languages)}")
    return "; ".join(said + problems[:5])


def cut(corpus: str, done: Sequence[tuple[Task, Listing]], unit_bytes: int) -> Index:
    """Work units, and the totals of the index."""
    units: list[WorkUnit] = []
    digest = hashlib.sha256(json.dumps([INDEX_VERSION, corpus, unit_bytes]).encode())
    rejects: Counter[str] = Counter()
    for task, listing in done:
        digest.update(f"{task.slug} {hashlib.sha256(storage.read_bytes(task.path)).hexdigest()}\n".encode())
        table = pq.read_table(storage.open_read(task.path), columns=["size", "reject"])
        rejects.update(reason for reason in table.column("reject").to_pylist() if reason)
        units += cut_source(task, table.column("size").to_numpy(), unit_bytes, listing.sequential)
    listings = [listing for _, listing in done]
    seconds = [listing.seconds for listing in listings if listing.seconds is not None]
    return Index(
        units=tuple(units),
        hash=digest.hexdigest(),
        num_clips=sum(listing.num_clips for listing in listings),
        num_bytes=sum(unit.num_bytes for unit in units),
        seconds=sum(seconds) if seconds else None,
        rejects=dict(sorted(rejects.items())),
        orphan_labels=count_orphans(listings),
        problems=tuple(
            f"{task.source.name or task.source.path}: {problem}"
            for task, listing in done
            for problem in listing.problems
        ),
        num_sources=len(listings),
        num_left_out=sum(listing.num_left_out for listing in listings),
    )


def count_orphans(listings: Sequence[Listing]) -> int:
    """Labels without sound; those of a file that several sources share are held against all of them together."""
    totals: dict[str, int] = {}
    for listing in listings:
        for path, (count, used) in listing.shared_labels.items():
            totals[path] = totals.get(path, count) - used
    return sum(listing.orphan_labels for listing in listings) + sum(max(0, left) for left in totals.values())


def cut_source(task: Task, sizes: np.ndarray, unit_bytes: int, sequential: bool) -> list[WorkUnit]:
    """Runs of consecutive rows: a unit ends with the clip that fills it."""
    if not len(sizes):
        return []
    before = np.concatenate([[0], np.cumsum(sizes)])
    starts = np.flatnonzero(np.diff(before[:-1] // unit_bytes, prepend=-1))
    ends = np.append(starts[1:], len(sizes))
    return [
        WorkUnit(
            name=f"{task.slug}-{number:05d}",
            corpus=task.corpus,
            source=task.source.path,
            index=task.path,
            first=int(first),
            last=int(last),
            num_bytes=int(before[last] - before[first]),
            sequential=sequential,
        )
        for number, (first, last) in enumerate(zip(starts, ends, strict=True))
    ]

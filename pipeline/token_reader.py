"""Rows of token sets on demand, from blocks loaded ahead in the background and kept while their window lasts."""

import logging
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from pipeline.templates import digest
from pipeline.token_blocks import Block, Broken
from pipeline.token_index import Shards
from pipeline.token_source import Source
from pipeline.token_store import BlockStore

logger = logging.getLogger(__name__)
WAITS = (1.0, 5.0, 15.0)  # seconds between tries, where a storage does not answer


class Reader:
    """Reads rows by number; one thread loads. Blocks of two windows of each set are kept: the present and the next."""

    def __init__(self, sources: Sequence[Source], columns: Sequence[str], window: int, local: str | None) -> None:
        self.sources, self.columns = sources, columns
        self._shards, self._store = Shards.open(), BlockStore(local) if local else None
        self._loader = ThreadPoolExecutor(1)
        self._blocks: list[OrderedDict[int, Future[Block | None] | Block | None]] = [OrderedDict() for _ in sources]
        self._room = [
            8 + math.ceil(2.5 * window * source.rows_per_slot * (len(source.index.borders) - 1) / len(source.rows))
            for source in sources
        ]

    def want(self, source: int, rows: np.ndarray) -> None:
        """Begin to load the blocks of these rows."""
        blocks, first = np.unique(self.sources[source].index.block_of(rows), return_index=True)
        for block in blocks[np.argsort(first)].tolist():
            self._begin(source, block)

    def find(self, source: int, rows: np.ndarray) -> list[tuple[Block, int] | None]:
        """The block of each row and its place there; None for a row that is broken. Raises: OSError from storage."""
        index = self.sources[source].index
        blocks = index.block_of(rows)
        places = (rows - index.borders[blocks]).tolist()
        loaded = {block: self._block(source, block) for block in set(blocks.tolist())}
        found = [(loaded[block], place) for block, place in zip(blocks.tolist(), places, strict=True)]
        if all(block is not None and not block.broken for block in loaded.values()):
            return found
        return [None if block is None or place in block.broken else (block, place) for block, place in found]

    def close(self) -> None:
        self._loader.shutdown(wait=True, cancel_futures=True)

    def _begin(self, source: int, block: int) -> None:
        kept = self._blocks[source]
        if block in kept:
            kept.move_to_end(block)
            return
        while len(kept) >= self._room[source]:
            kept.popitem(last=False)
        kept[block] = self._loader.submit(self._load, source, block)

    def _block(self, source: int, block: int) -> Block | None:
        self._begin(source, block)
        kept = self._blocks[source]
        if isinstance(kept[block], Future):
            kept[block] = kept[block].result()
        return kept[block]

    def _load(self, source: int, block: int) -> Block | None:
        index = self.sources[source].index
        shard = index.shards[index.block_shard[block]]
        name = f"{index.hash[:16]}/{digest(*self.columns)[:8]}-{block:06d}.arrow"
        for wait in (*WAITS, None):
            try:
                if self._store and (stored := self._store.load(name)):
                    return stored
                found = index.read(block, self.columns, self._shards)
                if self._store:
                    self._store.save(name, found)
                for place, problem in found.broken.items():
                    logger.warning("%s: row %d is broken: %s", shard, index.borders[block] + place, problem)
                return found
            except Broken as problem:
                rows = index.borders[block : block + 2]
                logger.warning("%s: rows %d to %d are broken: %s", shard, rows[0], rows[1] - 1, problem)
                return None
            except OSError as error:
                if wait is None:
                    raise
                logger.warning("%s: no answer from the storage (%s), again in %g s", shard, type(error).__name__, wait)
                time.sleep(wait)
        raise AssertionError

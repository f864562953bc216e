"""Rows of token sets on demand: one thread loads blocks ahead and gathers from them what the next steps need."""

import logging
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from pipeline.tokens.blocks import Block, Broken
from pipeline.tokens.chunk import Chunk, gather
from pipeline.tokens.index import Shards
from pipeline.tokens.source import Source
from pipeline.tokens.store import BlockStore
from pipeline.tokens.templates import digest

logger = logging.getLogger(__name__)
WAITS = (1.0, 5.0, 15.0)  # seconds between tries, where a storage does not answer


class Reader:
    """Reads rows by their numbers in the index. The blocks of two windows of each set are kept: this and the next."""

    def __init__(self, sources: Sequence[Source], columns: Sequence[str], window: int, local: str | None) -> None:
        self.sources, self.columns = sources, columns
        self._shards, self._store = Shards.open(), BlockStore(local) if local else None
        self._loader = ThreadPoolExecutor(1)
        self._blocks: list[OrderedDict[int, Block | None]] = [OrderedDict() for _ in sources]
        self._room = [
            8 + math.ceil(2.5 * window * source.rows_per_slot * (len(source.index.borders) - 1) / len(source.rows))
            for source in sources
        ]

    def ask(self, source: int, rows: np.ndarray) -> Future[Chunk]:
        """Begin to gather these rows. The result raises: OSError, where the storage fails."""
        return self._loader.submit(self._gather, source, rows)

    def close(self) -> None:
        self._loader.shutdown(wait=True, cancel_futures=True)

    def _gather(self, source: int, rows: np.ndarray) -> Chunk:
        index = self.sources[source].index
        blocks = index.block_of(rows)
        found = {block: self._block(source, block) for block in np.unique(blocks).tolist()}
        return gather(found, blocks, rows - index.borders[blocks])

    def _block(self, source: int, block: int) -> Block | None:
        kept = self._blocks[source]
        if block not in kept:
            while len(kept) >= self._room[source]:
                kept.popitem(last=False)
            kept[block] = self._load(source, block)
        kept.move_to_end(block)
        return kept[block]

    def _load(self, source: int, block: int) -> Block | None:
        """A block, None if it is broken; a storage that does not answer is asked again."""
        index = self.sources[source].index
        shard = index.shards[index.block_shard[block]]
        name = f"{index.hash[:16]}/{digest(*self.columns)[:8]}-{block:06d}.arrow"
        if self._store and (stored := self._store.load(name)):
            return stored
        for wait in (*WAITS, None):
            try:
                found = index.read(block, self.columns, self._shards)
                for place, problem in found.broken.items():
                    logger.warning("%s: row %d is broken: %s", shard, index.borders[block] + place, problem)
                if self._store:
                    self._store.save(name, found)
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

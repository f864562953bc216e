"""Blocks kept on a local disk as they were read: fetched and decoded once a machine, not once a worker and epoch."""

import contextlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from pipeline import storage
from pipeline.tokens.blocks import Block, Broken


class BlockStore:
    """A folder of Arrow files, one a block, mapped into memory. They may be deleted at any time."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def load(self, name: str) -> Block | None:
        """The block of that name, if it is there; it stays on the disk until it is looked at."""
        path = self.folder / name
        try:
            with pa.memory_map(str(path)) as file:
                return Block.of(pa.ipc.open_file(file).read_all())
        except FileNotFoundError:
            return None
        except (OSError, pa.ArrowException, Broken):
            path.unlink(missing_ok=True)  # cut off by a full disk
            return None

    def save(self, name: str, block: Block) -> None:
        """Keep a block, unless some of it is broken or the disk is full."""
        if block.broken:
            return
        codes = pa.LargeListArray.from_arrays(block.bounds.astype(np.int64), block.codes)
        labels = block.labels  # without columns, it has no rows that one could be appended to
        table = pa.table([*labels.columns, codes], names=[*labels.column_names, "codes"])

        def write(file: BinaryIO) -> None:
            with pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)

        with contextlib.suppress(OSError):
            storage.write_atomic(str(self.folder / name), write)

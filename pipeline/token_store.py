"""Blocks kept on a local disk as they were read: decoded and fetched once a machine, not once a worker and epoch."""

import contextlib
import json
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from pipeline import storage
from pipeline.token_blocks import Block

SEPARATOR = "\0"


class BlockStore:
    """A folder of Arrow files of one row, one a block, mapped into memory. They may be deleted at any time."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def load(self, name: str) -> Block | None:
        """The block of that name, if it is there; its codes stay on the disk until they are looked at."""
        path = self.folder / name
        try:
            with pa.memory_map(str(path)) as file:
                row = pa.ipc.open_file(file).read_all()
            codes, bounds = (row.column(name).chunk(0).values.to_numpy() for name in ("codes", "bounds"))
            labels = {name[1:]: _values(row.column(name)[0].as_py()) for name in row.column_names[2:]}
            return Block(codes, bounds, labels, {})
        except FileNotFoundError:
            return None
        except (OSError, pa.ArrowException, LookupError, ValueError):
            path.unlink(missing_ok=True)  # cut off by a full disk
            return None

    def save(self, name: str, block: Block) -> None:
        """Keep a block, unless some of it is broken or the disk is full."""
        if block.broken:
            return
        arrays = {"codes": pa.array(block.codes), "bounds": pa.array(block.bounds)}
        lists = {name: pa.LargeListArray.from_arrays([0, len(array)], array) for name, array in arrays.items()}
        texts = {f"_{name}": pa.array([_text(values)], pa.large_string()) for name, values in block.columns.items()}
        table = pa.table(lists | texts)

        def write(file: BinaryIO) -> None:
            with pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)

        with contextlib.suppress(OSError):
            storage.write_atomic(str(self.folder / name), write)


def _text(values: list[Any]) -> str:
    """Strings one after the other, which Python takes apart ten times faster than Arrow; anything else as JSON."""
    if all(type(value) is str and SEPARATOR not in value for value in values):
        return SEPARATOR + SEPARATOR.join(values)
    return json.dumps(values)


def _values(text: str) -> list[Any]:
    return text[1:].split(SEPARATOR) if text.startswith(SEPARATOR) else json.loads(text)

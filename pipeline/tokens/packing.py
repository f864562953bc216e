"""Rows packed into sequences of one length: planned from the lengths alone, best fit first, so every reader agrees."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipeline.shuffle import scramble

PLAN_ROWS = 4096  # rows planned together, at least: enough that most gaps find a row of their size
IGNORED = -100  # the label that torch's cross entropy leaves out


@dataclass(frozen=True)
class Packs:
    """Pack p holds the pieces `bounds[p]:bounds[p + 1]`; piece m is `count[m]` ids of row[m], from `start[m]` on."""

    bounds: np.ndarray  # int64 [packs + 1]
    row: np.ndarray  # int64 [pieces], in the index
    start: np.ndarray  # int64 [pieces]
    count: np.ndarray  # int64 [pieces]
    borders: np.ndarray  # int64 [blocks + 1], in packs: the packs of a block hold rows that lie together

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def padding(self, size: int) -> float:
        """The share of all places that stay empty."""
        return 1 - int(self.count.sum()) / (len(self) * size)


def plan(rows: np.ndarray, lengths: np.ndarray, borders: np.ndarray, size: int, splits: bool) -> Packs:
    """Pack rows into sequences of `size` ids.

    Args: rows: int64 [N], rising. lengths: int [N], ids of each, above 0. borders: of the blocks of the index; a pack
    holds rows of neighbouring blocks only. splits: whether a row longer than `size` is cut in pieces.
    Raises: ValueError if a row is longer than `size` and may not be cut; leave it out before.
    """
    if not splits and len(lengths) and lengths.max() > size:
        raise ValueError(f"a row of {lengths.max()} ids does not fit a sequence of {size}")
    pieces = -(-lengths.astype(np.int64) // size)
    row = np.repeat(rows, pieces)
    start = (np.arange(len(row)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) * size
    count = np.minimum(np.repeat(lengths, pieces) - start, size)
    firsts = np.unique(np.searchsorted(row, borders[:-1]))
    firsts = firsts[firsts < len(row)]
    firsts = firsts[np.diff(firsts // PLAN_ROWS, prepend=-1) > 0]  # small blocks are planned together
    packs: list[list[int]] = []
    ends = [0]
    for first, last in pairwise([*firsts.tolist(), len(row)]):
        packs += best_fit(np.arange(first, last), count[first:last], size)
        ends.append(len(packs))
    order = np.concatenate([np.array(pack) for pack in packs]) if packs else np.empty(0, np.int64)
    bounds = np.append(0, np.cumsum([len(pack) for pack in packs])).astype(np.int64)
    return Packs(bounds, row[order], start[order], count[order], np.array(ends))


def best_fit(pieces: np.ndarray, lengths: np.ndarray, size: int) -> list[list[int]]:
    """Longest first, each into the pack that it leaves least room in. Equal lengths come in a random, fixed order."""
    order = np.lexsort((scramble(pieces), -lengths))
    packs: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(size + 1)]
    rooms = 0  # bit r is set where some pack has room r: the smallest room that fits is the lowest bit from `length` on
    for piece, length in zip(pieces[order].tolist(), lengths[order].tolist(), strict=True):
        if fitting := rooms >> length:
            room = length + (fitting & -fitting).bit_length() - 1
            pack = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
        else:
            room, pack = size, len(packs)
            packs.append([])
        packs[pack].append(piece)
        if room > length:
            with_room[room - length].append(pack)
            rooms |= 1 << (room - length)
    return packs


def lay_out(packs: Sequence[Sequence[tuple[np.ndarray, int]]], size: int, pad: int) -> dict[str, np.ndarray]:
    """Packs of (ids, how many of them are prompt) as training arrays, int64 [packs, size].

    Returns: input_ids; labels, IGNORED at prompts and padding; position_ids, from 0 in each piece; sequence_ids, from
    1, 0 at padding: positions may attend to each other where these agree.
    """
    shape = (len(packs), size)
    ids, labels = np.full(shape, pad, np.int64), np.full(shape, IGNORED, np.int64)
    positions, sequences = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    rising = np.arange(size)
    for p, pack in enumerate(packs):
        first = 0
        for number, (piece, prompt) in enumerate(pack, 1):
            last = first + len(piece)
            ids[p, first:last] = piece
            labels[p, first + prompt : last] = piece[prompt:]
            positions[p, first:last] = rising[: len(piece)]
            sequences[p, first:last] = number
            first = last
    return {"input_ids": ids, "labels": labels, "position_ids": positions, "sequence_ids": sequences}

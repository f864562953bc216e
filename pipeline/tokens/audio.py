"""Tokens joined with the sound they were made from: segments on frame borders, with the codes of exactly those frames.

What distillation from stored codes and codec fine-tuning read:

    clips = IndexedClips("mls", build_index("mls", ["s3://bucket/mls"], "out/mls", Selection(), 128 << 20))
    dataset = TokenDataset("out/mls", batch_size=32, view=AudioView([clips], spec))
"""

import json
import logging
import os
from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipeline import storage
from pipeline.clips import IndexedClips
from pipeline.decoding.cutting import clip_of
from pipeline.decoding.load import LONGEST_CUT_SECONDS, Refused, load_native
from pipeline.decoding.resample import resample
from pipeline.indexing.keys import hash_keys
from pipeline.order import crop_start
from pipeline.tokens.chunk import Chunk
from pipeline.tokens.views import Place
from schemas.audio import Reject
from schemas.spec import CodecSpec

logger = logging.getLogger(__name__)
Segment = dict[str, Any]  # of one row: waveform [T], codes [K, F], num_samples, num_frames, key; perhaps target [T]


class AudioView:
    """Segments of `seconds`, at a place drawn for the slot. A row whose sound is gone or another now is a broken row.

    Items are dictionaries: `waveform` float32 [b, 1, T] at the codec's input rate and `codes` int64 [b, K, F], both 0
    past `num_samples` and `num_frames` [b]; `keys`, `filler` [b], `step`; with `target` also the sound at the output
    rate, float32 [b, 1, T'].

    Args: clips: the corpora that the tokens were made from, as indexed. spec: of the codec that made them. seconds:
    a whole number of frames. target: whether to give the sound at the output rate, too.
    Raises: ValueError for seconds that are no whole number of frames.
    """

    columns = ("__key__", "codes", "num_samples", "extra")

    def __init__(
        self, clips: Sequence[IndexedClips], spec: CodecSpec, seconds: float = 6.0, target: bool = False
    ) -> None:
        self.clips, self.spec, self.target, self._process = list(clips), spec, target, os.getpid()
        self.samples = round(seconds * spec.input_rate)
        self.frames, rest = divmod(self.samples, spec.hop_length)
        if rest or not self.frames:
            raise ValueError(
                f"segments must be whole frames of {spec.hop_length} samples at {spec.input_rate} Hz; got {seconds} s"
            )
        hashes = [_key_hashes(corpus) for corpus in self.clips]
        corpus = np.repeat(np.arange(len(hashes), dtype=np.int32), [len(part) for part in hashes])
        row = np.concatenate([np.arange(len(part)) for part in hashes])
        order = np.argsort(np.concatenate(hashes), kind="stable")
        self._hashes, self._corpus, self._row = np.concatenate(hashes)[order], corpus[order], row[order]

    def make(self, rows: Sequence[Place | None], luck: Sequence[int]) -> list[Segment | None]:
        if self._process != os.getpid():  # forked: files that another process opened have one position for both
            self.clips, self._process = [copy(clips) for clips in self.clips], os.getpid()
        return [row and self._segment(*row, number) for row, number in zip(rows, luck, strict=True)]

    def stack(self, step: int, contents: Sequence[Segment], filler: list[bool]) -> dict[str, Any]:
        names = ("waveform", "codes", *(("target",) if self.target else ()))
        stacked = {name: torch.from_numpy(np.stack([segment[name] for segment in contents])) for name in names}
        counts = {name: torch.tensor([segment[name] for segment in contents]) for name in ("num_samples", "num_frames")}
        keys = [segment["key"] for segment in contents]
        return {**stacked, **counts, "keys": keys, "filler": torch.tensor(filler), "step": step}

    def _segment(self, chunk: Chunk, row: int, luck: int) -> Segment | None:
        key, extra, num_samples = (chunk.columns[name][row] for name in ("__key__", "extra", "num_samples"))
        codes = chunk.codes[row].reshape(-1, self.spec.num_codebooks)
        try:
            waveform, rate = self._sound(key, extra)
            whole = resample(waveform, rate, self.spec.input_rate)
            if len(whole) != num_samples or len(codes) != self.spec.num_frames(num_samples):
                raise Refused("missing", f"{len(whole)} samples where the codes are of {num_samples}")
        except Refused as refused:
            logger.warning("%s cannot be joined with its sound: %s", key, refused.message)
            return None
        first = int(crop_start(luck, num_samples // self.spec.hop_length, self.frames))
        start = first * self.spec.hop_length
        sound = whole[start : start + self.samples]
        segment = {
            "key": key,
            "waveform": _padded(sound, self.samples)[None],
            "num_samples": len(sound),
            "num_frames": min(len(codes) - first, self.frames),
            "codes": np.ascontiguousarray(_padded(codes[first : first + self.frames].astype(np.int64), self.frames).T),
        }
        if self.target:
            begin, length = self.spec.num_output_samples(first), self.spec.num_output_samples(self.frames)
            target = resample(waveform, rate, self.spec.output_rate)[begin : begin + length]
            segment["target"] = _padded(target, length)[None]
        return segment

    def _sound(self, key: str, extra: str) -> tuple[np.ndarray, int]:
        """The sound of a row at its own rate: of its clip, or of the piece of a clip that it is. Raises: Refused."""
        clip = clip_of(key, extra)
        wanted = hash_keys(pa.array([clip]))[0]
        first, last = (int(np.searchsorted(self._hashes, wanted, side)) for side in ("left", "right"))
        for place in range(first, last):
            file = self.clips[self._corpus[place]].read(int(self._row[place]))
            if file.utterance.id == clip:
                break
        else:
            raise Refused("missing", "no clip of that key in the corpora given")
        if isinstance(file, Reject):
            raise Refused(file.reason, file.message)
        waveform, rate = load_native(file.data, LONGEST_CUT_SECONDS)
        if clip != key:
            piece = json.loads(extra)
            waveform = waveform[round(piece["start"] * rate) : round(piece["end"] * rate)]
        return waveform, rate


def _key_hashes(clips: IndexedClips) -> np.ndarray:
    """A hash of the key of each clip, in the order of the clips' numbers."""
    hashes = []
    for (path, _), usable in zip(clips.files, clips.usable, strict=True):
        keys = pq.read_table(storage.open_read(path), columns=["key"]).column("key")
        hashes.append(hash_keys(keys.take(usable)))
    return np.concatenate(hashes)


def _padded(array: np.ndarray, length: int) -> np.ndarray:
    missing = length - len(array)
    return np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1)) if missing else array

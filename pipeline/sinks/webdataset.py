"""Token shards as WebDataset tars: `<key>.json` and `<key>.npy` (uint16) beside each other, one pair a row."""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np

from pipeline import storage
from schemas.spec import CodecSpec
from schemas.tokens import LABELS, TokenRecord, record_of

SUFFIX = ".tar"


def write(file: BinaryIO, records: Iterable[TokenRecord], spec: CodecSpec) -> None:
    """Rows in the order given; the same rows give the same bytes, as no member has a time or an owner."""
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for record in records:
            _add(tar, f"{record.utterance.id}.json", json.dumps(labels(record, spec), ensure_ascii=False).encode())
            _add(tar, f"{record.utterance.id}.npy", npy(record.codes))


def read(path: str, spec: CodecSpec) -> Iterator[TokenRecord]:
    """The rows of a shard. Raises: tarfile.TarError or ValueError if it is no whole shard."""
    with storage.open_read(path) as file, tarfile.open(fileobj=file, mode="r|") as tar:
        while (member := tar.next()) is not None:  # the iterator would give the .npy once more
            row = json.loads(_content(tar, member, ".json"))
            payload = _content(tar, tar.next(), ".npy")
            codes = np.lib.format.read_array(io.BytesIO(payload), allow_pickle=False)
            yield record_of({**row, "__key__": member.name.removesuffix(".json")}, codes, spec.num_codebooks)


def labels(record: TokenRecord, spec: CodecSpec) -> dict[str, Any]:
    """The columns of a Parquet row but for key and codes."""
    utterance = record.utterance
    return {
        **{name: getattr(utterance, name) for name in LABELS},
        "num_samples": record.num_samples,
        "duration": record.num_samples / spec.input_rate,
        "source": utterance.source,
        "extra": utterance.extra,
    }


def npy(codes: np.ndarray) -> bytes:
    """uint16 [F], or [F, K] of a codec with several codebooks."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(codes[0] if len(codes) == 1 else codes.T), version=(1, 0))
    return file.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o444
    tar.addfile(member, io.BytesIO(data))


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo | None, ending: str) -> bytes:
    if member is None or not member.isfile() or not member.name.endswith(ending):
        raise ValueError(f"expected a member ending in {ending}, found {member and member.name}")
    return tar.extractfile(member).read()

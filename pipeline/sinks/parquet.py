"""Token shards as Parquet: `load_dataset("parquet", data_dir="OUT/data")` opens them as they are."""

import importlib.metadata
import json
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from schemas.spec import CodecSpec
from schemas.tokens import REJECT_SCHEMA, TOKEN_SCHEMA, TokenRecord, record_of, token_batch

SUFFIX = ".parquet"
GROUP_ROWS = 2048  # of a row group: what a stream fetches at once, and what a viewer shows
GROUP_CODES = 4_000_000  # and at most so many codes: 8 MB
OPTIONS = {
    "compression": "zstd",
    "compression_level": 3,
    "use_dictionary": True,  # for codes as well: close to 16 bits each at worst, and every reader knows it
    "write_page_index": True,
    "use_content_defined_chunking": True,  # the Hub then stores only what differs between two versions
    "write_statistics": [name for name in TOKEN_SCHEMA.names if name != "codes"],
}


def write(file: BinaryIO, records: Iterable[TokenRecord], spec: CodecSpec) -> None:
    """Rows in the order given; the same rows give the same bytes."""
    schema = TOKEN_SCHEMA.with_metadata(provenance(spec))
    with pq.ParquetWriter(file, schema, **OPTIONS) as writer:
        for group in _groups(records):
            batch = token_batch(group, spec.input_rate).replace_schema_metadata(schema.metadata)
            writer.write_batch(batch, row_group_size=len(group))


def read(path: str, spec: CodecSpec) -> Iterator[TokenRecord]:
    """The rows of a shard. Raises: pyarrow.ArrowInvalid if the file is no whole Parquet."""
    with storage.open_read(path) as stored, pq.ParquetFile(stored) as file:
        for batch in file.iter_batches(GROUP_ROWS, columns=TOKEN_SCHEMA.names):
            codes = batch.column("codes")
            ends, flat = codes.offsets.to_numpy(), codes.values.to_numpy()
            rows = batch.drop_columns(["codes"]).to_pylist()
            for row, start, end in zip(rows, ends[:-1], ends[1:], strict=True):
                yield record_of(row, flat[start:end], spec.num_codebooks)


def write_rejects(file: BinaryIO, rejects: pa.RecordBatch) -> None:
    """The rejects of a unit, also if there is none."""
    with pq.ParquetWriter(file, REJECT_SCHEMA, compression="zstd") as writer:
        writer.write_batch(rejects)


def provenance(spec: CodecSpec) -> dict[str, str]:
    """What made the codes, each value JSON; `codec` holds all of the codec's numbers, its weights' hash among them."""
    rule = f"floor(num_samples / {spec.hop_length})" + (f" + {spec.extra_frames}" if spec.extra_frames else "")
    return {
        "codec": json.dumps(spec.to_json(), sort_keys=True),
        "frames": json.dumps(f"{rule}, num_samples at {spec.input_rate} Hz; codes are frame-major"),
        "neutok": json.dumps(version()),
    }


def version() -> str:
    """Of neutok, as installed; "0" for a tree that is not."""
    try:
        return importlib.metadata.version("neutok")
    except importlib.metadata.PackageNotFoundError:
        return "0"


def _groups(records: Iterable[TokenRecord]) -> Iterator[list[TokenRecord]]:
    group: list[TokenRecord] = []
    codes = 0
    for record in records:
        group.append(record)
        codes += record.codes.size
        if len(group) >= GROUP_ROWS or codes >= GROUP_CODES:
            yield group
            group, codes = [], 0
    if group:
        yield group

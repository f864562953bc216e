"""Keys of rows: safe as file names, and unique over a whole output of many million clips."""

import hashlib
import re

import numpy as np
import pyarrow as pa

UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
MAX_KEY_CHARS = 200  # a key becomes a file name, and file systems end at 255 bytes


def make_key(corpus: str, native_id: str, source: str) -> str:
    """Corpus, `_`, native id, in [A-Za-z0-9_-]; one too long for a file name is cut and told apart by its source."""
    key = UNSAFE.sub("_", f"{corpus}_{native_id}")
    return key if len(key) <= MAX_KEY_CHARS else with_source(key[: MAX_KEY_CHARS - 9], source)


def with_source(key: str, source: str, digits: int = 8) -> str:
    """The key followed by hex digits of its source path."""
    return f"{key}_{hashlib.sha256(source.encode('utf-8', 'replace')).hexdigest()[:digits]}"


def hash_keys(keys: pa.Array) -> np.ndarray:
    """uint64 [N], one a key: equal keys have equal hashes; different ones almost never."""
    digests = [hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys.to_pylist()]
    return np.frombuffer(b"".join(digests), np.uint64)


def repeated(ordered: np.ndarray) -> np.ndarray:
    """The hashes that occur more than once among sorted ones, sorted, once each."""
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def among(hashes: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """bool [N]: whether each of these hashes is one of those, which are sorted and many: nothing sorts them again."""
    if not len(ordered):
        return np.zeros(len(hashes), bool)
    places = np.searchsorted(ordered, hashes)
    return ordered[np.minimum(places, len(ordered) - 1)] == hashes

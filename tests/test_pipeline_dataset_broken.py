"""Token shards that are damaged or gone, and options that do not fit: replaced in their slots, told, or refused."""

import logging
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset import TokenDataset
from pipeline.tokens.index import Keep
from pipeline.tokens.templates import Plain
from tests.token_toys import keys, record, write_set


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("toy"), [230, 120, 51])


def corrupt(path, group):
    """Garbage over the codes of one row group."""
    chunk = pq.ParquetFile(path).metadata.row_group(group).column(1)
    data = bytearray(path.read_bytes())
    first = chunk.dictionary_page_offset or chunk.data_page_offset
    data[first : first + chunk.total_compressed_size] = os.urandom(chunk.total_compressed_size)
    written = path.stat().st_mtime_ns
    path.write_bytes(data)
    os.utime(path, ns=(written, written))  # as a disk does it: nothing shows from outside


def test_broken_rows_are_replaced_in_their_slots_and_no_other_moves(tmp_path, caplog):
    folder = write_set(tmp_path, [200, 200], group_rows=40)
    dataset = TokenDataset(folder, 16, window=100)
    whole = list(dataset)
    corrupt(tmp_path / "toy-000.parquet", 2)
    bad = {f"toy_{n:06d}" for n in range(80, 120)}
    with caplog.at_level(logging.WARNING):
        broken = list(dataset)
    replaced = 0
    for before, after in zip(whole, broken, strict=True):
        for old, new, filler in zip(before["__key__"], after["__key__"], after.filler, strict=True):
            if old in bad:
                assert new not in bad and filler
                replaced += 1
            else:
                assert new == old and not filler
    assert caplog.text.count("rows 80 to 119 are broken: row group 2 does not decode") == 1
    assert caplog.text.count("stands in for") == replaced == 40 and keys(broken) == keys(list(dataset))
    # the same on two ranks: the rule knows nothing of them
    ranks = [list(TokenDataset(folder, 16, window=100, rank=rank, world=2)) for rank in (0, 1)]
    assert [keys(pair) for pair in zip(*ranks, strict=True)] == [keys([b]) for b in broken]


def test_what_is_broken_before_it_is_listed_is_told_and_left_out(tmp_path, caplog):
    folder = write_set(tmp_path, [120, 60], group_rows=40)
    write_set(tmp_path, [50, 30], first=180, corpus="tar", kind="tar")
    corrupt(tmp_path / "toy-000.parquet", 1)
    (tmp_path / "toy-001.parquet").write_bytes((tmp_path / "toy-001.parquet").read_bytes()[:-100])
    data = (tmp_path / "tar-000.tar").read_bytes()
    (tmp_path / "tar-000.tar").write_bytes(data[: data.index(b"tar_000200.npy") + 100])
    data = (tmp_path / "tar-001.tar").read_bytes()
    (tmp_path / "tar-001.tar").write_bytes(data.replace(b'"text": "Row number 233."', b'"text": "Row number 233.]'))
    with caplog.at_level(logging.WARNING):
        dataset = TokenDataset(folder, 5)
    for told in ("row group 1, 40 rows", "toy-001.parquet is broken and left out, in part: all of it", "tar_000233: "):
        assert told in caplog.text
    found = sorted(key[4:] for b in dataset for key, filler in zip(b["__key__"], b.filler, strict=True) if not filler)
    left = [*range(40), *range(80, 120), *range(180, 200), *range(230, 233), *range(234, 260)]
    assert found == [f"{n:06d}" for n in left]


def test_a_tar_that_ends_within_a_row_is_told_and_keeps_the_others(tmp_path, caplog):
    folder = write_set(tmp_path, [30], kind="tar")
    data = (tmp_path / "toy-000.tar").read_bytes()
    (tmp_path / "toy-000.tar").write_bytes(data[: data.index(b"toy_000029.npy")])  # as if its last member never was
    with caplog.at_level(logging.WARNING):
        dataset = TokenDataset(folder, 29)
    assert "toy_000029: no partner beside it" in caplog.text
    assert sorted(keys(list(dataset))) == [f"toy_{n:06d}" for n in range(29)]


def test_a_shard_that_is_gone_is_replaced_and_a_set_without_any_stops(tmp_path):
    folder = write_set(tmp_path, [100, 100])
    dataset = TokenDataset(folder, 10, window=1000)
    (tmp_path / "toy-000.parquet").unlink()
    batches = list(dataset)
    assert len(batches) == 20 and min(keys(batches)) == "toy_000100"
    (tmp_path / "toy-001.parquet").unlink()
    with pytest.raises(RuntimeError, match="rows of 'tokens' in turn cannot be read"):
        list(dataset)


def test_broken_rows_of_a_pack_leave_room_and_the_others_stay(tmp_path):
    folder = write_set(tmp_path, [200, 200], group_rows=40)
    dataset = TokenDataset(folder, 2, template=Plain(end_id=1), sequence_length=1024)
    corrupt(tmp_path / "toy-001.parquet", 0)
    seen = []
    for batch in dataset:
        for ids, numbers, filler in zip(batch["input_ids"], batch["sequence_ids"], batch["filler"], strict=True):
            pieces = [ids[numbers == piece] for piece in range(1, int(numbers.max()) + 1)]
            seen += [int(ids[0]) * 65_536 + int(ids[1]) for ids in pieces if not filler]
    assert sorted(seen) == [n for n in range(400) if not 200 <= n < 240]


def test_a_damaged_member_of_a_tar_costs_its_row_alone(tmp_path):
    folder = write_set(tmp_path, [100], kind="tar")
    dataset = TokenDataset(folder, 10)
    data = (tmp_path / "toy-000.tar").read_bytes()
    place = data.index(b"toy_000042.npy") + 512
    (tmp_path / "toy-000.tar").write_bytes(data[:place] + b"garbage" + data[place + 7 :])
    rows = [key for b in dataset for key, filler in zip(b["__key__"], b.filler, strict=True) if not filler]
    assert sorted(rows) == [f"toy_{n:06d}" for n in range(100) if n != 42]


def test_a_code_outside_the_codebook_of_a_template_is_a_broken_row(tmp_path):
    folder = write_set(tmp_path, [40])
    limit = int(max(record(n).codes.max() for n in range(40)))
    batches = list(TokenDataset(folder, 8, template=Plain(codebook_size=limit)))
    assert sum(sum(b.filler) for b in batches) == 1 and all(ids.max() < limit for b in batches for ids in b["ids"])


def test_a_storage_that_fails_stops_the_run_instead_of_being_replaced(toy, monkeypatch):
    dataset = TokenDataset(toy, 16)
    monkeypatch.setattr("pipeline.tokens.reader.WAITS", (0.0,))
    tries = []

    def fails(*args, **kwargs):
        tries.append(1)
        raise OSError("no route to host")

    monkeypatch.setattr("pipeline.tokens.blocks.open_parquet", fails)
    monkeypatch.setattr("pipeline.tokens.blocks.read_through", fails)
    with pytest.raises(OSError, match="no route to host"):
        next(iter(dataset))
    assert len(tries) >= 4  # each try opens, then looks whether it is the file or the storage


def test_filters_that_match_nothing_are_refused(toy):
    with pytest.raises(ValueError, match=r"no row has language xx; there are: \['de', 'en'\]"):
        TokenDataset(toy, 8, keep=Keep(languages=("xx",)))
    with pytest.raises(ValueError, match="no row of 'tokens' is left"):
        TokenDataset(toy, 8, keep=Keep(min_codes=10_000))


def test_what_does_not_fit_is_refused_before_any_work(toy, tmp_path):
    with pytest.raises(ValueError, match="batch of 10 cannot be shared evenly by 4 ranks"):
        TokenDataset(toy, 10, rank=0, world=4)
    with pytest.raises(ValueError, match="no column phones; it has __key__, codes"):
        TokenDataset(toy, 8, columns=("phones",))
    with pytest.raises(ValueError, match="give the template"):
        TokenDataset(toy, 8, sequence_length=100)
    with pytest.raises(ValueError, match=r"weights must name the data sets \['a', 'b'\]"):
        TokenDataset({"a": toy, "b": toy}, 8, weights={"a": 1})
    with pytest.raises(FileNotFoundError, match="no token shard"):
        TokenDataset(str(tmp_path), 8)
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ValueError, match="no row of 'tokens' is left"):
        TokenDataset(str(tmp_path), 8)
    pq.write_table(pa.table({"__key__": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="no token shard: it has no column codes"):
        TokenDataset(str(tmp_path), 8)

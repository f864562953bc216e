"""Token shards as a training stream: every row once, filtered, alike from any kind of shard."""

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader

from pipeline.dataset import TokenDataset, place_in_world
from pipeline.tokens.index import Keep, list_tokens
from pipeline.tokens.templates import Plain
from tests.token_toys import keys, record, write_parquet, write_set

pytestmark = pytest.mark.filterwarnings(
    "ignore:This DataLoader will create"
)  # more workers than this machine has cores


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("toy"), [230, 120, 51])


def test_an_epoch_gives_every_row_once_as_it_was_written(toy):
    dataset = TokenDataset(toy, 16, window=100)
    seen = {}
    for step, batch in enumerate(dataset):
        assert batch["step"] == step and len(batch) == 16
        for row, filler in zip(batch.rows(), batch.filler, strict=True):
            if not filler:
                assert row["__key__"] not in seen
                seen[row["__key__"]] = row
    assert len(dataset) == 26 and sum(map(sum, [b.filler for b in dataset])) == 26 * 16 - 401
    for number in range(401):
        row, written = seen[f"toy_{number:06d}"], record(number)
        np.testing.assert_array_equal(row["codes"], written.codes[0])
        assert row["codes"].dtype == np.uint16 and row["text"] == written.utterance.text


def test_tars_give_the_same_rows_as_tables(toy, tmp_path):
    tar = TokenDataset(write_set(tmp_path, [230, 120, 51], kind="tar"), 16, columns=("__key__", "codes", "language"))
    table = TokenDataset(toy, 16, columns=("__key__", "codes", "language"))
    both = []
    for dataset in (tar, table):
        rows = [row for batch in dataset for row in batch.rows()]
        both.append({row["__key__"]: (row["codes"].tolist(), row["language"]) for row in rows})
    assert both[0] == both[1] and len(both[0]) == 401


def test_shards_behind_a_url_give_the_same_rows_and_may_be_kept_on_a_local_disk(toy, tmp_path, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    write_set(tmp_path / "tar", [30], first=401, kind="tar")
    for path in [*sorted(Path(toy).glob("*.parquet")), tmp_path / "tar" / "toy-000.tar"]:
        store.pipe_file(f"/token-rows/{path.name}", path.read_bytes())
    near = TokenDataset([toy, str(tmp_path / "tar")], 16)
    far = TokenDataset("memory://token-rows", 16, cache=str(tmp_path / "cache"), local=str(tmp_path / "local"))
    assert {row["__key__"]: row["codes"].tolist() for b in far for row in b.rows()} == {
        row["__key__"]: row["codes"].tolist() for b in near for row in b.rows()
    }
    first = list(far)
    for path in store.ls("/token-rows", detail=False):
        store.rm_file(path)
    again = list(far)  # from the local disk alone
    assert keys(again) == keys(first) and [b["text"] for b in again] == [b["text"] for b in first]
    for mine, theirs in zip(again, first, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(mine["codes"], theirs["codes"], strict=True))


def test_a_published_table_of_three_columns_of_wider_integers_is_read_too(tmp_path):
    write_parquet(tmp_path / "a.parquet", [record(n) for n in range(30)], columns=["__key__", "text", "codes"])
    table = pq.read_table(tmp_path / "a.parquet")
    wide = table.set_column(2, "codes", table.column("codes").cast(pa.list_(pa.int64())))
    pq.write_table(wide, tmp_path / "a.parquet")
    rows = [row for batch in TokenDataset(str(tmp_path), 8) for row in batch.rows()]
    for row in rows:
        np.testing.assert_array_equal(row["codes"], record(int(row["__key__"][4:])).codes[0])
        assert row["codes"].dtype == np.uint16


def test_workers_give_what_one_process_gives(toy):
    alone = list(TokenDataset(toy, 16, window=100))
    dataset = TokenDataset(toy, 16, window=100)
    for loaded in (
        DataLoader(dataset, batch_size=None, num_workers=1),
        DataLoader(dataset, batch_size=None, num_workers=3),
        dataset.loader(workers=2, together=3),
        dataset.loader(workers=0),
        dataset.loader(workers=1, together=1),
    ):
        loaded = list(loaded)
        assert keys(loaded) == keys(alone) and [b.filler for b in loaded] == [b.filler for b in alone]
        for mine, theirs in zip(loaded, alone, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(mine["codes"], theirs["codes"], strict=True))


@pytest.mark.parametrize(
    ("keep", "rule"),
    [
        (Keep(min_codes=50, max_codes=100), lambda n, r: 50 <= r.codes.shape[1] <= 100),
        (Keep(min_seconds=1.5), lambda n, r: r.num_samples >= 24_000),
        (Keep(languages=("de",)), lambda n, r: n % 2 == 1),
        (Keep(corpora=("toy",), licenses=("CC-BY-4.0",)), lambda n, r: n % 3 == 0),
        (Keep(quality=(("dnsmos", 3.0, 3.5),)), lambda n, r: n % 11 and 3 <= 2 + n % 5 / 2 <= 3.5),
    ],
)
def test_filters_keep_what_they_say(toy, keep, rule):
    dataset = TokenDataset(toy, 8, keep=keep, window=100)
    wanted = [n for n in range(401) if rule(n, record(n))]
    found = [key for b in dataset for key, filler in zip(b["__key__"], b.filler, strict=True) if not filler]
    assert sorted(found) == [f"toy_{n:06d}" for n in wanted]
    assert dataset.dropped == {"tokens": {"filtered": 401 - len(wanted)}}


def test_packs_hold_every_row_once_and_whole(toy):
    template = Plain(base=1000, end_id=7)
    dataset = TokenDataset(toy, 4, template=template, sequence_length=512, pad=5, window=100)
    seen = []
    for batch in DataLoader(dataset, batch_size=None, num_workers=2):
        assert batch["input_ids"].shape == (4, 512) and batch["input_ids"].dtype == torch.int64
        for pack in range(4):
            if batch["filler"][pack]:
                continue
            ids, numbers = batch["input_ids"][pack].numpy(), batch["sequence_ids"][pack].numpy()
            assert (ids[numbers == 0] == 5).all()
            for piece in range(1, numbers.max() + 1):
                mine = ids[numbers == piece]
                assert batch["position_ids"][pack][numbers == piece].tolist() == list(range(len(mine)))
                number = int(mine[0] - 1000) * 65_536 + int(mine[1] - 1000)
                np.testing.assert_array_equal(mine, np.append(record(number).codes[0].astype(int) + 1000, 7))
                seen.append(number)
    assert sorted(seen) == list(range(401))


def test_rows_too_long_for_a_sequence_are_cut_where_the_template_allows_and_else_dropped_and_counted(toy):
    class Whole(Plain):
        splits = False

        @property
        def hash(self):
            return "whole"

    lengths = [record(n).codes.shape[1] for n in range(401)]
    cut = TokenDataset(toy, 1, template=Plain(), sequence_length=100)
    assert sum(int((b["sequence_ids"] > 0).sum()) for b in cut) == sum(lengths)
    dropped = TokenDataset(toy, 1, template=Whole(splits=False), sequence_length=100)
    assert dropped.dropped["tokens"]["too_long"] == sum(length > 100 for length in lengths)
    ids = sum(int((b["sequence_ids"] > 0).sum()) for b in dropped)
    assert ids == sum(length for length in lengths if length <= 100)


def test_rows_under_a_template_come_unpacked_too(toy):
    for batch in TokenDataset(toy, 8, steps=3, template=Plain(base=10, end_id=3)):
        for ids, prompt in zip(batch["ids"], batch["prompt"], strict=True):
            number = int(ids[0] - 10) * 65_536 + int(ids[1] - 10)
            assert prompt == 0 and ids[-1] == 3
            np.testing.assert_array_equal(ids[:-1], record(number).codes[0].astype(int) + 10)


def test_lengths_and_plans_are_worked_out_once(toy, monkeypatch):
    def make():
        return TokenDataset(toy, 4, template=Plain(end_id=9), sequence_length=700)

    first = make()

    def never(*args):
        raise AssertionError("worked out again")

    monkeypatch.setattr("pipeline.tokens.source.plan", never)
    monkeypatch.setattr("pipeline.tokens.index.list_shard", never)
    assert make().order.hash() == first.order.hash()
    with pytest.raises(AssertionError, match="again"):
        TokenDataset(toy, 4, template=Plain(end_id=10), sequence_length=700)


def test_the_index_is_one_of_content_not_of_place(tmp_path):
    one = list_tokens(write_set(tmp_path / "one", [60, 40]))
    two = list_tokens(write_set(tmp_path / "two", [60, 40]))
    other = list_tokens(write_set(tmp_path / "other", [60, 40], first=1))
    assert one.hash == two.hash != other.hash
    assert list_tokens(write_set(tmp_path / "tar", [60, 40], kind="tar")).lengths.tolist() == one.lengths.tolist()


def test_a_state_is_a_few_numbers_and_is_refused_by_other_shards(tmp_path):
    folder = write_set(tmp_path, [100, 100])
    dataset = TokenDataset(folder, 8)
    state = dataset.state_dict(5)
    assert set(state) == {"version", "step", "seed", "epoch", "index"} and state["step"] == 5
    again = TokenDataset(folder, 8)
    again.load_state_dict(state)
    assert keys(again) == keys(dataset)[40:] and len(again) == 20
    write_set(tmp_path, [100, 101])
    with pytest.raises(ValueError, match=f"the index changed.*{state['index'][:12]}"):
        TokenDataset(folder, 8).load_state_dict(state)
    for other in ({"batch_size": 4}, {"keep": Keep(min_codes=30)}, {"template": Plain(), "sequence_length": 256}):
        with pytest.raises(ValueError, match="the index changed"):
            TokenDataset(**{"inputs": folder, "batch_size": 8, **other}).load_state_dict(state)


def test_a_state_is_refused_under_a_template_that_gives_other_ids(toy):
    state = TokenDataset(toy, 8, template=Plain(base=10)).state_dict(5)
    TokenDataset(toy, 8, template=Plain(base=10)).load_state_dict(state)
    with pytest.raises(ValueError, match="the index changed"):
        TokenDataset(toy, 8, template=Plain(base=20)).load_state_dict(state)


def test_codes_alone_of_tars_are_kept_on_a_local_disk_too(tmp_path):
    folder = write_set(tmp_path / "tar", [30], kind="tar")
    dataset = TokenDataset(folder, 8, template=Plain(), local=str(tmp_path / "local"))
    wanted = list(TokenDataset(folder, 8, template=Plain()))
    for _ in range(2):  # read from the shard, then from the disk
        for mine, theirs in zip(dataset, wanted, strict=True):
            assert all(map(np.array_equal, mine["ids"], theirs["ids"]))
    assert list((tmp_path / "local").iterdir())


def test_the_place_in_the_world_comes_from_torchrun(toy, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    half = TokenDataset(toy, 8, steps=4)
    assert [b["__key__"] for b in half] == [b["__key__"][4:] for b in TokenDataset(toy, 8, steps=4, rank=0, world=1)]


def test_the_place_in_the_world_comes_from_torch_distributed_before_that(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert place_in_world() == (0, 1)
    finally:
        torch.distributed.destroy_process_group()
    assert place_in_world() == (3, 4)


def test_mixed_sets_have_no_end_of_their_own(toy):
    dataset = TokenDataset({"a": toy, "b": toy}, 8, weights={"a": 3, "b": 1})
    with pytest.raises(TypeError, match="no end"):
        len(dataset)
    stream = iter(dataset)
    assert [next(stream)["step"] for _ in range(120)] == list(range(120))


def test_batches_survive_a_pipe(toy):
    batch = next(iter(TokenDataset(toy, 8)))
    again = pickle.loads(pickle.dumps(batch))
    assert again["__key__"] == batch["__key__"] and again.filler == batch.filler and again.step == 0
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(again["codes"], batch["codes"], strict=True))


def test_each_item_is_collated_where_it_is_read(toy):
    dataset = TokenDataset(toy, 8, steps=2, collate=lambda batch: len(batch["codes"]))
    assert list(DataLoader(dataset, batch_size=None, num_workers=1)) == [8, 8]

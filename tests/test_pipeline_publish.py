"""What is published, before any network: which rows go where, in which bytes."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import s3fs
import webdataset
from datasets import load_dataset

from jobs import publish as job
from pipeline.publishing.merge import public_rows
from pipeline.publishing.patience import redact
from pipeline.publishing.publication import Contents, cut, number_of_files, split_name
from pipeline.publishing.staging import PLAN
from pipeline.reporting.report import inspect
from schemas.tokens import token_batch
from tests import output_toys, stand_in_s3
from tests.hub_cards import card_errors
from tests.publication_toys import card, mixed_output, publish, read, tree

MB = 1e6


@pytest.fixture
def output(tmp_path):
    return mixed_output(tmp_path / "out")


def test_every_row_is_published_once_in_the_config_of_its_labels(output, tmp_path):
    assert publish(output, tmp_path / "set") == 0
    given = [row for name in "ab" for row in pq.read_table(output / "data" / f"{name}.parquet").to_pylist()]
    found = [row for row in read(tmp_path / "set") if not row["config"].startswith("neutts")]
    assert sorted(row["__key__"] for row in found) == sorted(row["__key__"] for row in given)
    by_key = {row["__key__"]: row for row in given}
    for row in found:
        original = by_key[row["__key__"]]
        slug = original["license"].lower()
        assert row["config"] == f"{original['corpus']}-{original['language'] or 'und'}-{slug}"
        assert row["file"].startswith(f"{split_name(original['split'])}-")
        assert {name: row[name] for name in original if name != "source"} == {
            name: value for name, value in original.items() if name != "source"
        }


def test_the_neutts_configs_have_three_columns_and_only_rows_with_text(output, tmp_path):
    assert publish(output, tmp_path / "set") == 0
    full = {row["__key__"]: row for row in read(tmp_path / "set") if not row["config"].startswith("neutts")}
    rows = read(tmp_path / "set", "data/neutts-*/*.parquet")
    assert {row["__key__"] for row in rows} == {key for key, row in full.items() if row["text"]}
    for row in rows:
        original = full[row["__key__"]]
        assert row["config"] == f"neutts-{original['language'] or 'und'}-{original['license'].lower()}"
        assert (row["codes"], row["text"]) == (original["codes"], original["text"].strip())
    for path in (tmp_path / "set").glob("data/neutts-*/*.parquet"):
        assert pq.read_schema(path).names == ["__key__", "text", "codes"]
    assert inspect(str(tmp_path / "set"))["rows"] == 90, "a publication is read without its twins"
    assert publish(output, tmp_path / "bare", "--no-neutts") == 0
    assert not list((tmp_path / "bare").glob("data/neutts-*"))


def test_the_same_output_gives_the_same_bytes_whatever_interrupts_and_however_many_write(output, tmp_path):
    small = ("--file-mb", "0.005")
    assert publish(output, tmp_path / "one", *small, "--workers", "1", "--title", "x") == 0
    assert publish(output, tmp_path / "two", *small, "--workers", "4", "--title", "x") == 0
    one, two = tree(tmp_path / "one"), tree(tmp_path / "two")
    assert sum(path.endswith(".parquet") for path in one) >= 16
    changed = {name for name in one if one[name] != two.get(name)}
    assert one.keys() == two.keys() and changed <= {"README.md", "manifest.json"}  # which name the folder
    lost = sorted((tmp_path / "one").glob("data/*/*.parquet"))[::3]
    for path in lost:
        path.unlink()
    (tmp_path / "one" / "data" / ".half.parquet.host-1-abc.tmp").write_bytes(b"PAR1")
    assert publish(output, tmp_path / "one", *small, "--title", "x") == 0
    assert tree(tmp_path / "one") == one


def test_an_output_of_tars_is_published_as_parquet_too(tmp_path):
    rows = output_toys.records(20)
    for kind in ("parquet", "webdataset"):
        output_toys.write_output(tmp_path / kind, {"a": rows}, kind=kind)
        assert publish(tmp_path / kind, tmp_path / f"{kind}-set") == 0
    assert read(tmp_path / "parquet-set") == read(tmp_path / "webdataset-set")


def test_several_outputs_make_one_dataset_unless_they_share_rows_or_differ_in_codec(tmp_path, capsys):
    first = output_toys.write_output(tmp_path / "a", {"a": output_toys.records(9)})
    second = output_toys.write_output(tmp_path / "b", {"b": output_toys.records(9, seed=1)})
    assert job.main([str(first), str(second), "--to", str(tmp_path / "set")]) == 0
    assert len(read(tmp_path / "set", "data/toy-*/*.parquet")) == 18
    assert job.main([str(first), str(first), "--to", str(tmp_path / "twice")]) == 2
    assert "two rows have one __key__" in capsys.readouterr().err
    manifest = second / "manifest.json"
    manifest.write_text(manifest.read_text().replace("0123abcd", "9999ffff"))
    assert job.main([str(first), str(second), "--to", str(tmp_path / "mixed")]) == 2
    assert "another codec" in capsys.readouterr().err


def test_an_unfinished_or_changed_output_is_refused(output, tmp_path, capsys):
    pq.write_table(pq.read_table(output / "data" / "b.parquet").slice(1), output / "data" / "b.parquet")
    assert publish(output, tmp_path / "set") == 2
    assert "29 rows, its sidecar says 30" in capsys.readouterr().err
    (output / "manifest.json").unlink()
    assert publish(output, tmp_path / "set") == 2
    assert "not finished" in capsys.readouterr().err


def test_files_are_neither_small_nor_large_and_their_number_divides_well():
    for total in [1, 50, 130, 300, 700, 1500, 3000, 9000, 41_000, 400_000]:
        number = number_of_files(total * MB, 256 * MB, 10**7)
        assert number % 8 == 0 or number in (1, 2, 4)
        if total >= 256:
            assert 128 <= total / number <= 512
        if total >= 2560:
            assert number % 8 == 0
    assert number_of_files(41e9, 256 * MB, 10**7) % 64 == 0
    assert number_of_files(3e9, 256 * MB, 3) <= 3


def test_the_runs_of_a_cut_cover_every_row_in_order_and_are_even():
    parts = {"a": Contents(100, 0, 50.0), "b": Contents(1, 0, 30.0), "c": Contents(500, 0, 400.0)}
    for number in (1, 2, 7, 8, 64):
        runs = list(cut(parts, number))
        pieces = [piece for run, _ in runs for piece in run]
        for shard, part in parts.items():
            mine = [(piece.first, piece.last) for piece in pieces if piece.shard == shard]
            assert [first for first, _ in mine] == [0, *(last for _, last in mine)][:-1] and mine[-1][1] == part.rows
        assert sum(seconds for _, seconds in runs) == pytest.approx(480)
        if number <= 8:
            assert max(seconds for _, seconds in runs) < 480 / number + 31


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("/home/someone/corpora/EN-B0.tar::EN_x.mp3", "EN-B0.tar::EN_x.mp3"),
        ("s3://private-bucket/a/b.tar::c/d.mp3", "b.tar::c/d.mp3"),
        ("Emilia/EN/EN-B0.tar::EN_x.mp3", "Emilia/EN/EN-B0.tar::EN_x.mp3"),
        ("/data/table.parquet::row 7", "table.parquet::row 7"),
        ("clips/a.wav", "clips/a.wav"),
        ("/x.wav", "x.wav"),
    ],
)
def test_a_source_names_the_file_and_not_the_machine(source, shown):
    batch = token_batch(output_toys.records(1), 16000)
    place = batch.schema.get_field_index("source")
    batch = batch.set_column(place, batch.schema.field(place), [source])
    assert public_rows(batch, None).column("source").to_pylist() == [shown]


def test_splits_are_names_that_loaders_take():
    names = ["train-clean-100", None, "", "dev", "a b/c", "日"]
    assert [split_name(name) for name in names] == ["train.clean.100", "train", "train", "dev", "a.b.c", "train"]


def test_a_folder_that_holds_something_else_is_left_alone(output, tmp_path, capsys):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("mine")
    assert publish(output, tmp_path / "set") == 2
    assert "holds something else" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["mine.txt"]


def test_replace_clears_away_an_earlier_publication_and_nothing_beside_it(output, tmp_path, capsys):
    more = output_toys.write_output(tmp_path / "more", {"a": output_toys.records(9)})
    assert publish(output, tmp_path / "set") == 0
    (tmp_path / "set" / "mine.txt").write_text("mine")
    before = tree(tmp_path / "set")
    assert publish(more, tmp_path / "set") == 2
    assert "holds another publication; --replace deletes it" in capsys.readouterr().err
    assert tree(tmp_path / "set") == before
    assert publish(more, tmp_path / "set", "--replace", "--title", "x") == 0
    assert publish(more, tmp_path / "fresh", "--title", "x") == 0
    replaced, fresh = tree(tmp_path / "set"), tree(tmp_path / "fresh")
    assert replaced.pop("mine.txt") == b"mine" and replaced.keys() == fresh.keys()
    assert {name for name in fresh if replaced[name] != fresh[name]} <= {"README.md", "manifest.json"}
    assert inspect(str(tmp_path / "set"))["rows"] == 9


def test_replace_never_clears_a_folder_that_is_no_publication(output, tmp_path, capsys):
    (tmp_path / "set" / "data").mkdir(parents=True)
    (tmp_path / "set" / "data" / "mine.parquet").write_bytes(b"mine")
    assert publish(output, tmp_path / "set", "--replace") == 2
    assert "holds something else" in capsys.readouterr().err
    assert tree(tmp_path / "set") == {"data/mine.parquet": b"mine"}


MEANINGLESS = [
    (["--to", "s3://bucket/set", "--tag", "v1"], "--tag is for the Hub, got --to s3://bucket/set"),
    (["--to", "set", "--private"], "--private is for the Hub, got --to set"),
    (["--to", "set", "--revision", "dev"], "--revision is for the Hub"),
    (["--to", "set", "--staging", "x"], "--staging is for what is sent"),
    (["--to", "set", "--stage-only"], "--stage-only is for what is sent"),
    (["--to", "set", "--tries", "3"], "--tries is for what is sent"),
    (["--to", "set", "--retry-seconds", "1"], "--retry-seconds is for what is sent"),
    (["--to", "set", "--workers", "0"], "--workers must be above 0, got 0"),
    (["--to", "s3://bucket/set", "--retry-seconds", "-1"], "--retry-seconds must not be below 0, got -1.0"),
]


@pytest.mark.parametrize(("options", "said"), MEANINGLESS, ids=[" ".join(options) for options, _ in MEANINGLESS])
def test_options_without_meaning_are_refused_before_work(options, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert job.main(["no-such-output", *options]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_wrong_options_are_refused_before_work(output, tmp_path, capsys):
    for options in ([], ["--repo-id", "a/b", "--to", "c"], ["--repo-id", "noname"], ["--to", "x", "--file-mb", "0"]):
        assert job.main([str(output), *options]) == 2
        assert "error: " in capsys.readouterr().err
    assert not (output / "publish").exists()


def test_an_object_store_gets_the_same_files_once_and_they_are_read_from_there(output, tmp_path, monkeypatch, capsys):
    store = stand_in_s3.StandInS3("bucket")
    with stand_in_s3.serving(store):
        for name, value in store.environment().items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        assert publish(output, "s3://bucket/some/set") == 0
        puts = [path for method, path, _ in store.calls if method == "PUT"]
        assert puts[-1].endswith("manifest.json") and puts[-2].endswith("README.md")
        held = {key.removeprefix("some/set/"): data for key, data in store.buckets["bucket"].items()}
        marker = held.pop(PLAN)
        assert held == tree(output / "publish") and marker == (output / "publish" / PLAN).read_bytes()
        assert publish(output, "s3://bucket/some/set") == 0
        assert "0 files sent" in capsys.readouterr().out
        store.buckets["bucket"]["some/set/data/stray/x.parquet"] = b"old"
        s3fs.S3FileSystem.clear_instance_cache()
        assert publish(output, "s3://bucket/some/set") == 2
        assert "--replace" in capsys.readouterr().err
        assert publish(output, "s3://bucket/some/set", "--replace") == 0
        assert "some/set/data/stray/x.parquet" not in store.buckets["bucket"]
        store.buckets["bucket"]["some/set/README.md"] = b"changed"
        s3fs.S3FileSystem.clear_instance_cache()
        assert publish(output, "s3://bucket/some/set") == 0
        assert "1 files sent" in capsys.readouterr().out
        found = "s3://bucket/some/set/data/hui-und-cc0-1.0/*.parquet"
        rows = load_dataset("parquet", data_files=found, split="train", streaming=True)
        assert sum(1 for _ in rows) == 30
        assert inspect("s3://bucket/some/set/data/hui-und-cc0-1.0")["rows"] == 30
    s3fs.S3FileSystem.clear_instance_cache()


def test_the_same_rows_are_published_as_webdataset(output, tmp_path):
    assert publish(output, tmp_path / "parquet", "--no-neutts") == 0
    assert publish(output, tmp_path / "tars", "--format", "webdataset", "--title", "x") == 0
    assert publish(output, tmp_path / "again", "--format", "webdataset", "--title", "x") == 0
    tars = sorted(map(str, (tmp_path / "tars").glob("data/*/*.tar")))
    found = {
        sample["__key__"]: (sample["npy"].tolist(), sample["json"])
        for sample in webdataset.WebDataset(tars, shardshuffle=False, empty_check=False).decode()
    }
    expected = read(tmp_path / "parquet")
    assert len(found) == len(expected) == 90
    for row in expected:
        labels = {name: row[name] for name in row if name not in ("__key__", "codes", "config", "file")}
        assert found[row["__key__"]] == (row["codes"], labels)
    assert all(Path(path.replace("/tars/", "/again/")).read_bytes() == Path(path).read_bytes() for path in tars)
    header, text = card(tmp_path / "tars")
    assert card_errors(text) == [] and "dataset_info" not in header
    code = text.split("## Load\n\n```python\n")[1].split("```")[0]
    names = {}
    exec(code, names)
    assert names["row"]["codes"] == found[names["row"]["__key__"]][0]


@pytest.mark.parametrize(
    "text",
    [
        "Bearer hf_abcdefghijklmnop",
        "PUT https://host/x?X-Amz-Signature=abcdef&X-Amz-Credential=AKIA%2Fus",
        "s3://key:secret@bucket/x",
        "headers={'authorization': 'Bearer hf_abcdefghijklmnop', 'x': 'y'}",
    ],
)
def test_secrets_do_not_survive_redaction(text):
    shown = redact(text)
    assert not re.search("abcdef|AKIA|secret", shown) and len(shown) > 5

"""The index: unique keys, units, selection; read again only when something changed; clear errors."""

import gzip
import io
import json

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import storage
from pipeline.index import Selection, build_index
from pipeline.indexing import listing
from pipeline.indexing.table import SCHEMA
from pipeline.stream import read_unit
from tests.corpora_fixtures import BUILDERS, put, put_zip, sound, tar_bytes
from tests.stand_in_s3 import StandInS3, serving


def index_of(tmp_path, inputs, corpus="folder", unit_bytes=1 << 20, out="out", **selection):
    return build_index(corpus, [str(path) for path in inputs], str(tmp_path / out), Selection(**selection), unit_bytes)


def keys_of(index):
    return [item.utterance.id for unit in index.units for item in read_unit(unit)]


def test_keys_that_collide_all_get_digits_of_their_source(tmp_path):
    put(tmp_path / "in" / "a b.wav", sound(1))
    put(tmp_path / "in" / "a.b.wav", sound(2))
    put(tmp_path / "in" / "c.wav", sound(3))
    for name in ("one", "two"):
        put(tmp_path / "in" / f"{name}.tar", tar_bytes([("k.wav", sound(4)), (f"{name}.wav", sound(5))]))
    keys = keys_of(index_of(tmp_path, [tmp_path / "in"]))
    assert len(set(keys)) == len(keys) == 7
    assert {"folder_c_wav", "folder_one_wav", "folder_two_wav"} < set(keys)
    changed = [key for key in keys if key.startswith(("folder_a_b_wav_", "folder_k_wav_"))]
    assert len(changed) == 4 and all(len(key.rpartition("_")[2]) == 8 for key in changed)


def test_collisions_are_undone_when_their_cause_goes(tmp_path):
    put(tmp_path / "one.tar", tar_bytes([("k.wav", sound(4))]))
    put(tmp_path / "two.tar", tar_bytes([("k.wav", sound(5))]))
    alone = index_of(tmp_path, [tmp_path / "one.tar"])
    both = index_of(tmp_path, [tmp_path / "one.tar", tmp_path / "two.tar"])
    again = index_of(tmp_path, [tmp_path / "one.tar"])
    assert [path.name for path in (tmp_path / "out" / "index").iterdir()] == ["one.parquet"], "nor is two's left"
    fresh = index_of(tmp_path, [tmp_path / "one.tar", tmp_path / "two.tar"], out="fresh")
    assert alone == again and alone.hash != both.hash == fresh.hash
    assert keys_of(alone) == ["folder_k_wav"]


def test_a_name_met_twice_in_one_archive_is_a_duplicate(tmp_path):
    put(tmp_path / "a.tar", tar_bytes([("k.wav", sound(1)), ("k.wav", sound(2)), ("l.wav", sound(3))]))
    index = index_of(tmp_path, [tmp_path / "a.tar"])
    assert index.rejects == {"duplicate_key": 1} and index.num_clips == 3


def test_a_long_name_makes_a_key_that_fits_a_file_name(tmp_path):
    members = [("x" * 400 + f"{n}.wav", sound(n)) for n in range(2)]
    put(tmp_path / "a.tar", tar_bytes(members))
    keys = keys_of(index_of(tmp_path, [tmp_path / "a.tar"]))
    assert len(set(keys)) == 2 and all(len(key) <= 220 for key in keys)


def test_an_unchanged_source_is_not_read_again(tmp_path, monkeypatch):
    put(tmp_path / "in" / "a.tar", tar_bytes([("k.wav", sound(1))]))
    put(tmp_path / "in" / "b.tar", tar_bytes([("l.wav", sound(2))]))
    first = index_of(tmp_path, [tmp_path / "in"])
    read = []
    real = listing.Builder.members
    monkeypatch.setattr(listing.Builder, "members", lambda self: read.append(self.source.name) or real(self))
    assert index_of(tmp_path, [tmp_path / "in"]) == first and read == []
    put(tmp_path / "in" / "b.tar", tar_bytes([("l.wav", sound(2)), ("m.wav", sound(3))]))
    second = index_of(tmp_path, [tmp_path / "in"])
    assert read == ["b.tar"] and second.num_clips == 3 and second.hash != first.hash


@pytest.mark.parametrize("limit", [None, 3])
def test_the_index_of_a_run_is_not_written_over_by_that_of_other_clips(tmp_path, limit):
    corpus, output, some = tmp_path / "corpus", tmp_path / "out", Selection(limit=limit)
    for number, name in enumerate(("a b.wav", "a_b.wav", "c.wav")):  # two of them collide
        put(corpus / name, sound(number))
    first = build_index("folder", [str(corpus)], str(output), some, 1 << 20)
    (output / "run.json").write_text(json.dumps({"index": first.hash}))
    (corpus / "c.wav").touch()
    assert build_index("folder", [str(corpus)], str(output), some, 1 << 20).hash == first.hash
    before = {path: path.read_bytes() for path in (output / "index").iterdir()}
    put(corpus / "a b.wav", sound(0) * 2)
    put(corpus / "b.wav", sound(4))
    with pytest.raises(ValueError, match=r"out holds a run that was begun with other clips: .*give another --output"):
        build_index("folder", [str(corpus)], str(output), some, 1 << 20)
    assert {path: path.read_bytes() for path in (output / "index").iterdir()} == before


def test_a_link_to_nothing_is_a_clip_that_is_missing(tmp_path):
    put(tmp_path / "corpus" / "a.wav", sound(1))
    (tmp_path / "corpus" / "b.wav").symlink_to(tmp_path / "annex" / "b.wav")
    (tmp_path / "corpus" / "metadata.csv").symlink_to(tmp_path / "annex" / "metadata.csv")
    index = index_of(tmp_path, [tmp_path / "corpus"])
    assert (index.num_clips, index.rejects) == (2, {"missing": 1})
    assert [problem for problem in index.problems if "metadata.csv: not a file but a link to nothing" in problem]


@pytest.mark.parametrize("first", ["0", "00", "000"])
def test_parts_of_an_archive_are_one_however_wide_their_numbers(tmp_path, first):
    whole = gzip.compress(tar_bytes([(f"k{n}.wav", sound(n)) for n in range(4)]))
    for number in range(3):
        start, end = number * len(whole) // 3, (number + 1) * len(whole) // 3
        put(tmp_path / "corpus" / f"a.tar.gz.{number:0{len(first)}}", whole[start:end])
    assert keys_of(index_of(tmp_path, [tmp_path / "corpus"])) == [f"folder_k{n}_wav" for n in range(4)]


def test_a_row_that_names_a_file_elsewhere_is_told_so(tmp_path):
    audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = pa.array([{"bytes": None, "path": path} for path in ("/etc/passwd", "../a.wav", "a.wav")], audio)
    put(tmp_path / "corpus" / "a.wav", sound(1))
    pq.write_table(pa.table({"audio": cells}), tmp_path / "corpus" / "t.parquet")
    index = index_of(tmp_path, [tmp_path / "corpus"], "parquet")
    *elsewhere, beside = [item for unit in index.units for item in read_unit(unit)]
    assert beside.data == sound(1)
    assert {item.message for item in elsewhere} == {
        "the row holds no bytes and names no file inside --input (full paths and .. are not followed)"
    }


def test_an_index_file_holds_neither_times_nor_places(tmp_path):
    put(tmp_path / "in" / "a.tar", tar_bytes([("k.wav", sound(1))]))
    index_of(tmp_path, [tmp_path / "in"])
    for path in (tmp_path / "out" / "index").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()


def test_listing_a_tar_does_not_read_its_sound(tmp_path, monkeypatch):
    members = [(f"{n}.{e}", b"{}" if e == "json" else bytes(200_000)) for n in range(20) for e in ("wav", "json")]
    put(tmp_path / "a.tar", tar_bytes(members))
    read = []

    class Counted(io.FileIO):
        def readinto(self, buffer):
            read.append(super().readinto(buffer))
            return read[-1]

    real = storage.open_read

    def open_read(path, buffer_bytes=1 << 20):
        counted = io.BufferedReader(Counted(path), buffer_bytes)
        return counted if path.endswith(".tar") else real(path, buffer_bytes)

    monkeypatch.setattr(storage, "open_read", open_read)
    assert index_of(tmp_path, [tmp_path / "a.tar"]).num_clips == 20
    assert sum(read) < 0.1 * (tmp_path / "a.tar").stat().st_size


def test_units_are_cut_at_about_the_size_asked_for(tmp_path):
    put(tmp_path / "a.tar", tar_bytes([(f"{n}.wav", sound(n)) for n in range(20)]))
    size = len(sound(0))
    index = index_of(tmp_path, [tmp_path / "a.tar"], unit_bytes=5 * size)
    assert [unit.last - unit.first for unit in index.units] == [5, 5, 5, 5]
    assert [unit.name for unit in index.units] == [f"a-{n:05d}" for n in range(4)]
    assert index.num_bytes == sum(unit.num_bytes for unit in index.units) == 20 * size
    assert len(index_of(tmp_path, [tmp_path / "a.tar"], unit_bytes=1).units) == 20
    assert len(index_of(tmp_path, [tmp_path / "a.tar"], unit_bytes=1 << 40).units) == 1


def test_unit_names_differ_where_case_does_not_count(tmp_path):
    for name in ("A.tar", "sub/a.tar", "a.tar", "sub_a.tar"):
        put(tmp_path / "in" / name, tar_bytes([(f"{name.replace('/', '_')}.wav", sound(1))]))
    index = index_of(tmp_path, [tmp_path / "in"])
    assert len({unit.name.lower() for unit in index.units}) == 4


def test_splits_languages_and_limits_select(tmp_path):
    built = BUILDERS["common_voice"](tmp_path / "in")
    tests = index_of(tmp_path, built.inputs, "common_voice", splits=("test",))
    assert tests.num_clips == 3 and tests.num_left_out > 0
    turkish = index_of(tmp_path, built.inputs, "common_voice", languages=("Turkish",))
    assert all("_tr_" in key for key in keys_of(turkish)) and turkish.num_clips == 7
    both = index_of(
        tmp_path, built.inputs, "common_voice", splits=("validated", "test"), languages=("zh", "br"), limit=5
    )
    assert both.num_clips == 5


def test_a_source_of_another_language_is_not_opened(tmp_path, monkeypatch):
    built = BUILDERS["emilia"](tmp_path / "in")
    read = []
    real = listing.Builder.members
    monkeypatch.setattr(listing.Builder, "members", lambda self: read.append(self.source.name) or real(self))
    index = index_of(tmp_path, built.inputs, "emilia", languages=("de",))
    assert index.num_clips == 1 and read == ["Emilia/DE/DE-B000000.tar"]


def test_splits_may_be_written_with_dots_or_hyphens(tmp_path):
    built = BUILDERS["libritts_r"](tmp_path / "in")
    assert index_of(tmp_path, built.inputs, "libritts_r", splits=("dev.clean",)).num_clips == 1
    assert index_of(tmp_path, built.inputs, "libritts_r", splits=("train-clean-100",)).num_clips == 6


def test_inputs_may_be_files_globs_braces_and_folders(tmp_path):
    for number in range(8, 12):
        put(tmp_path / "in" / f"s{number:03d}.tar", tar_bytes([(f"{number}.wav", sound(number))]))
        put(tmp_path / "in" / f"l{number}.wav", sound(number))
    whole = index_of(tmp_path, [tmp_path / "in"])
    assert whole.num_clips == 8 and whole.num_sources == 5
    for inputs, count in (
        ([tmp_path / "in" / "s*.tar"], 4),
        ([tmp_path / "in" / "s{009..011}.tar"], 3),
        ([tmp_path / "in" / "s008.tar", tmp_path / "in" / "s010.tar"], 2),
        ([tmp_path / "in" / "*.wav"], 4),
        ([tmp_path / "in" / "l9.wav"], 1),
        ([tmp_path / "in" / "s008.tar", tmp_path / "in"], 8),
        ([f"file://{tmp_path}/in"], 8),
    ):
        index = index_of(tmp_path, inputs, out=f"out{count}{len(inputs)}")
        assert index.num_clips == count == len(set(keys_of(index)))
    loose = [key for key in keys_of(whole) if key.startswith("folder_l")]
    assert loose == [f"folder_l{number}_wav" for number in range(8, 12)]  # l10 after l9


def test_any_store_will_do(tmp_path):
    memory = fsspec.filesystem("memory")
    memory.pipe("/corpus/a.tar", tar_bytes([("k.wav", sound(1)), ("k.txt", b"hello")]))
    memory.pipe("/corpus/sub/b.wav", sound(2))
    index = build_index("folder", ["memory://corpus"], "memory://result", Selection(), 1 << 20)
    items = [item for unit in index.units for item in read_unit(unit)]
    assert {i.utterance.id: i.data for i in items} == {"folder_k_wav": sound(1), "folder_sub_b_wav": sound(2)}
    assert {i.utterance.source for i in items} == {"a.tar::k.wav", "sub/b.wav"}
    again = build_index("folder", ["memory://corpus/*.tar"], "memory://result2", Selection(), 1 << 20)
    assert again.num_clips == 1


def test_a_bucket_will_do(tmp_path, monkeypatch):
    store = StandInS3("corpus", "result")
    store.buckets["corpus"] |= {f"de/s{n}.tar": tar_bytes([(f"k{n}.wav", sound(n))]) for n in range(3)}
    store.buckets["corpus"]["de/loose/x.wav"] = sound(9)
    with serving(store):
        for name, value in store.environment().items():
            monkeypatch.setenv(name, value)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        index = build_index("folder", ["s3://corpus/de"], "s3://result/out", Selection(), 1 << 20)
        items = [item for unit in index.units for item in read_unit(unit)]
        again = build_index("folder", ["s3://corpus/de/s{0..1}.tar"], "s3://result/two", Selection(), 1 << 20)
        assert storage.create_exclusive("s3://result/done", b"a") and not storage.create_exclusive(
            "s3://result/done", b"b"
        )
        fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert {i.utterance.source: i.data for i in items} == {
        **{f"s{n}.tar::k{n}.wav": sound(n) for n in range(3)},
        "loose/x.wav": sound(9),
    }
    assert again.num_clips == 2 and any(key.startswith("out/index/") for key in store.buckets["result"])


def test_the_output_inside_an_input_is_no_input(tmp_path):
    put(tmp_path / "a.wav", sound(1))
    put(tmp_path / "out" / "data" / "old.tar", tar_bytes([("k.wav", sound(2))]))
    assert index_of(tmp_path, [tmp_path]).num_clips == 1


def test_seconds_are_known_where_the_corpus_tells(tmp_path):
    built = BUILDERS["cmu_arctic"](tmp_path / "in")
    assert index_of(tmp_path, built.inputs, "cmu_arctic").seconds is None


def test_processes_may_share_the_listing(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    built = BUILDERS["emilia"](tmp_path / "in")
    alone = index_of(tmp_path, built.inputs, "emilia")
    with ThreadPoolExecutor(3) as pool:
        shared = build_index("emilia", built.inputs, str(tmp_path / "other"), Selection(), 1 << 20, run=pool.map)
    assert shared.hash == alone.hash


@pytest.mark.parametrize(
    "corpus, make, said",
    [
        ("nosuch", "a.wav", "unknown corpus 'nosuch'; known: cmu_arctic"),
        ("folder", "notes.md", "nothing of corpus 'folder'"),
        ("emilia", "a.wav", "looked for tar archives such as"),
        ("parquet", "a.tar", "looked for .parquet files; saw 1 .tar"),
    ],
)
def test_what_is_not_there_is_said_clearly(tmp_path, corpus, make, said):
    put(tmp_path / "in" / make, b"")
    with pytest.raises(ValueError, match=said):
        index_of(tmp_path, [tmp_path / "in"], corpus)


def test_inputs_that_match_nothing_are_named(tmp_path):
    for given in ("missing", "*.tar", "s{0..3}.tar"):
        with pytest.raises(ValueError, match="matches nothing"):
            index_of(tmp_path, [tmp_path / given])
    with pytest.raises(ValueError, match="no --input"):
        index_of(tmp_path, [])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no files at all"):
        index_of(tmp_path, [tmp_path / "empty"])


def test_a_selection_that_leaves_nothing_says_what_there_is(tmp_path):
    built = BUILDERS["librispeech"](tmp_path / "in")
    with pytest.raises(ValueError, match=r"no clips.*--language de") as error:
        index_of(tmp_path, built.inputs, "librispeech", languages=("de",))
    with pytest.raises(ValueError, match="klingonisch"):
        index_of(tmp_path, built.inputs, "librispeech", languages=("klingonisch",))
    built = BUILDERS["hui"](tmp_path / "hui")
    with pytest.raises(ValueError, match=r"--split test; there are splits \[\]") as error:
        index_of(tmp_path, built.inputs, "hui", splits=("test",))
    assert "hui" in str(error.value)


def test_index_files_have_the_columns_they_promise(tmp_path):
    put_zip(tmp_path / "a.zip", [("k.wav", sound(1)), ("k.json", json.dumps({"text": "x"}).encode())])
    index = index_of(tmp_path, [tmp_path / "a.zip"])
    table = pq.read_table(index.units[0].index)
    assert table.schema.names == SCHEMA.names
    (row,) = table.to_pylist()
    assert (row["member"], row["size"], row["text"], row["method"]) == ("k.wav", len(sound(1)), "x", 8)

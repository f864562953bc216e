"""What holds for every corpus: each clip comes out once, as a row or a reject, by offset or front to back."""

import json
import re
from collections import Counter

import pytest

from pipeline.corpora import CORPORA
from pipeline.index import Selection, build_index
from pipeline.stream import feed_units, read_unit
from schemas.audio import REASONS, AudioFile
from tests.corpora_fixtures import BUILDERS


@pytest.fixture(params=sorted(BUILDERS))
def built(request, tmp_path):
    return BUILDERS[request.param](tmp_path / "corpus")


def index_of(built, tmp_path, unit_bytes=20_000, **selection):
    return build_index(built.corpus, built.inputs, str(tmp_path / "out"), Selection(**selection), unit_bytes)


def read_all(index):
    return [item for unit in index.units for item in read_unit(unit)]


def test_every_corpus_is_built_and_named():
    assert set(BUILDERS) == set(CORPORA)
    assert all(name == corpus.name for name, corpus in CORPORA.items())


def test_rows_rejects_and_orphans_are_what_the_corpus_holds(built, tmp_path):
    index = index_of(built, tmp_path)
    items = read_all(index)
    assert {i.utterance.id: i.data for i in items if isinstance(i, AudioFile)} == built.rows
    assert {i.utterance.id: i.reason for i in items if not isinstance(i, AudioFile)} == built.rejects
    assert len(items) == index.num_clips == len(built.rows) + len(built.rejects)
    assert index.orphan_labels == built.orphans
    early = Counter(i.reason for i in items if not isinstance(i, AudioFile))
    assert all(early[reason] >= count for reason, count in index.rejects.items())
    assert set(index.rejects) <= set(REASONS)


def test_labels_are_text_and_codes(built, tmp_path):
    for item in read_all(index_of(built, tmp_path)):
        who = item.utterance
        assert re.fullmatch(r"[A-Za-z0-9_-]+", who.id) and who.id.startswith(f"{built.corpus}_")
        assert who.language is None or re.fullmatch(r"[a-z]{2,3}", who.language)
        assert isinstance(json.loads(who.extra), dict)
        assert not who.source.startswith("/") and str(tmp_path) not in who.source
        if built.corpus not in ("folder", "parquet"):
            assert who.license
            if isinstance(item, AudioFile):
                assert who.text and who.text == who.text.strip() and who.language


def test_units_cut_the_clips_without_gap_or_overlap(built, tmp_path):
    index = index_of(built, tmp_path)
    assert len({unit.name for unit in index.units}) == len(index.units)
    assert sum(unit.last - unit.first for unit in index.units) == index.num_clips
    for before, unit in zip(index.units, index.units[1:], strict=False):
        assert unit.first == (before.last if unit.index == before.index else 0)
        assert unit.last > unit.first


def test_feeding_gives_what_reading_gives(built, tmp_path):
    index = index_of(built, tmp_path)
    for source in {unit.source for unit in index.units}:
        units = [unit for unit in index.units if unit.source == source]
        wanted = {unit.name for unit in units[::2]}
        fed = list(feed_units(units, wanted))
        assert [unit.name for unit, _ in fed] == [unit.name for unit in units[::2]]
        for unit, items in fed:
            assert items == list(read_unit(unit))


def test_the_index_does_not_depend_on_where_the_corpus_lies(built, tmp_path):
    first = index_of(built, tmp_path)
    (tmp_path / "corpus").rename(tmp_path / "moved")
    built.inputs = [path.replace(str(tmp_path / "corpus"), str(tmp_path / "moved")) for path in built.inputs]
    second = build_index(built.corpus, built.inputs, str(tmp_path / "out2"), Selection(), 20_000)
    assert first.hash == second.hash
    assert [unit.name for unit in first.units] == [unit.name for unit in second.units]
    assert index_of(built, tmp_path).hash == first.hash  # and again, over the index that is there


def test_a_limit_takes_the_first_clips(built, tmp_path):
    everything = [item.utterance.id for item in read_all(index_of(built, tmp_path))]
    index = build_index(built.corpus, built.inputs, str(tmp_path / "few"), Selection(limit=3), 20_000)
    assert [item.utterance.id for item in read_all(index)] == everything[:3]
    assert index.num_clips == 3

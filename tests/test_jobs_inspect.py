"""`neutok inspect`: its numbers are those of the rows, its page is one file that shows texts as they are."""

import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from jobs import inspect as job
from pipeline.reporting import plots
from pipeline.reporting.report import draw, inspect
from pipeline.reporting.statistics import Statistics, majority_counts
from schemas.tokens import token_batch
from tests import output_toys


def with_codes(record, codes):
    codes = np.asarray(codes, np.uint16).reshape(1, -1)
    return replace(record, codes=codes, num_samples=codes.shape[1] * 320)


@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_the_numbers_are_those_of_the_rows(tmp_path, kind):
    rows = output_toys.records(40, language=lambda row: ["en", "de", None][row % 3], text=lambda row: "hm" * (row % 2))
    more = output_toys.records(9, seed=1, speaker=None, license="CC0-1.0", split="dev")
    lost = ["too_long", "unreadable", "too_long"]
    report = inspect(str(output_toys.write_output(tmp_path, {"a": rows, "b": more}, lost, kind)))
    lengths = sorted(record.num_samples / 16000 for record in rows + more)
    assert report["shards"] == 2 and report["rows"] == 49
    assert report["hours"] == pytest.approx(sum(lengths) / 3600)
    assert report["tokens"] == sum(record.codes.size for record in rows + more)
    assert report["by_language"][""]["rows"] == 13 and report["by_language"]["en"]["rows"] == 14 + 9
    assert report["by_license"]["CC0-1.0"] == {"rows": 9, "hours": pytest.approx(sum(lengths_of(more)) / 3600)}
    assert report["by_split"]["dev"]["rows"] == 9
    assert report["speakers"]["named"] == 3 and report["speakers"]["rows_without"] == 9
    assert report["text"]["rows_with"] == 20 + 9
    assert report["durations"]["quantiles"]["p50"] == pytest.approx(lengths[24], abs=0.006)
    assert sum(report["durations"]["histogram"]["counts"]) == 49
    assert report["rejects"] == {"clips": 6, "by_reason": {"too_long": 4, "unreadable": 2}}
    assert report["provenance"]["codec"]["revision"] == output_toys.CODEC["revision"]


def lengths_of(records):
    return [record.num_samples / 16000 for record in records]


def test_a_shard_is_counted_alone_with_its_own_rejects(tmp_path):
    output_toys.write_output(tmp_path, {"a": output_toys.records(5), "b": output_toys.records(7, seed=1)}, ["too_long"])
    report = inspect(str(tmp_path / "data" / "b.parquet"))
    assert report["rows"] == 7 and report["rejects"]["clips"] == 1


def test_a_unit_without_its_sidecar_is_not_there(tmp_path):
    output_toys.write_output(tmp_path, {"a": output_toys.records(5), "b": output_toys.records(7, seed=1)})
    (tmp_path / "done" / "b.json").unlink()
    assert inspect(str(tmp_path))["rows"] == 5


def test_near_silent_and_duplicate_rows_are_found(tmp_path):
    rows = output_toys.records(20)
    rows[3] = with_codes(rows[3], [7] * 60 + list(range(40)))
    rows[4] = with_codes(rows[4], [7] * 49 + list(range(100, 151)))
    rows[8] = with_codes(rows[8], rows[2].codes)
    twin = [with_codes(output_toys.records(1, seed=5)[0], rows[2].codes)]
    report = inspect(str(output_toys.write_output(tmp_path, {"a": rows, "b": twin})))
    assert report["near_silent"]["rows"] == 1 and report["near_silent"]["examples"] == [rows[3].utterance.id]
    assert report["duplicates"]["rows"] == 2
    assert report["duplicates"]["examples"] == [["a.parquet row 2", "a.parquet row 8", "b.parquet row 0"]]


def test_the_entropy_of_a_known_distribution_is_exact():
    statistics = Statistics(num_codebooks=2, codebook_size=16)
    record = replace(output_toys.records(1)[0], codes=np.array([[0, 1, 2, 3] * 8, [5] * 16 + [6] * 16], np.uint16))
    statistics.add(token_batch([record], 16000))
    first, second = statistics.summary()["codebooks"]
    assert first["entropy_bits"] == pytest.approx(2) and second["entropy_bits"] == pytest.approx(1)
    assert (first["used"], second["used"]) == (4, 2)
    with pytest.raises(ValueError, match=r"code \d+ in a codebook of 16"):
        statistics.add(token_batch(output_toys.records(1), 16000))


def test_a_majority_is_found_row_by_row():
    pick = np.random.default_rng(0)
    lengths = pick.integers(0, 40, 500)
    codes = np.where(pick.random(lengths.sum()) < 0.5, 777, pick.integers(0, 65536, lengths.sum())).astype(np.uint16)
    expected = np.array([np.bincount(row).max(initial=0) for row in np.split(codes, np.cumsum(lengths)[:-1])])
    found = majority_counts(codes, lengths)
    most = 2 * expected > lengths
    assert 50 < most.sum() < 450
    assert (found[most] == expected[most]).all() and not (2 * found > lengths)[~most].any()


def test_the_page_is_one_file_and_escapes_what_the_data_says(tmp_path, capsys):
    hostile = "<script>alert('x')</script> & \"ü\" 漢字"
    rows = output_toys.records(5, text=hostile, speaker="</svg><b>", language="<i>")
    out, page = output_toys.write_output(tmp_path / "out", {"a": rows}), tmp_path / "page.html"
    assert job.main([str(out), "--html", str(page)]) == 0
    text = page.read_text()
    assert "<script" not in text and "<b>" not in text.replace("<div><b>", "") and "<i>" not in text
    assert "&lt;script&gt;alert" in text and "漢字" in text
    assert not re.search(r"(src|href)\s*=|@import|url\(", text)
    assert set(re.findall(r"https?://[^\"' ]+", text)) <= {"http://www.w3.org/2000/svg"}
    for svg in draw(inspect(str(out))).values():
        assert ElementTree.fromstring(svg).tag.endswith("svg")
        assert svg in text


def test_json_and_text_tell_the_same(tmp_path, capsys):
    out = str(output_toys.write_output(tmp_path, {"a": output_toys.records(5)}, ["empty"]))
    assert job.main([out, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert job.main([out]) == 0
    shown = capsys.readouterr().out
    assert f"{report['tokens']:,}" in shown and "empty 1" in shown


def test_what_is_no_shard_is_refused_with_a_word(tmp_path, capsys):
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 but not really")
    (tmp_path / "broken.tar").write_bytes(b"x" * 2000)
    for name in ("broken.parquet", "broken.tar", "absent.parquet"):
        assert job.main([str(tmp_path / name)]) == 2
        assert name in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_told_before_the_rows_are_read(tmp_path, capsys):
    out = str(output_toys.write_output(tmp_path / "out", {"a": output_toys.records(5)}))
    with pytest.raises(SystemExit, match="2"):
        job.main([out, "--html", str(tmp_path / "absent" / "page.html")])
    shown = capsys.readouterr()
    assert "--html" in shown.err and "there is no folder" in shown.err and not shown.out
    with pytest.raises(SystemExit, match="2"):
        job.main([out, "--html", str(tmp_path)])
    assert "is a folder" in capsys.readouterr().err


def test_a_damaged_shard_is_named(tmp_path, capsys):
    shard = output_toys.write_output(tmp_path, {"a": output_toys.records(400)}) / "data" / "a.parquet"
    data = bytearray(shard.read_bytes())
    data[4 : len(data) // 2] = bytes(len(data) // 2 - 4)  # the footer is whole, the pages are not
    shard.write_bytes(data)
    assert job.main([str(tmp_path)]) == 2
    assert f"{shard} is damaged: " in capsys.readouterr().err


def test_an_empty_output_has_numbers_and_a_page(tmp_path):
    out = output_toys.write_output(tmp_path / "out", {"a": []}, ["empty"])
    assert job.main([str(out), "--html", str(tmp_path / "page.html")]) == 0


def test_plots_refuse_what_they_cannot_draw():
    with pytest.raises(ValueError, match="edges"):
        plots.histogram("t", [0, 1], [1, 2], "x", "y")
    with pytest.raises(ValueError, match="positive"):
        plots.curve("t", [(1, 0)], "x", "y")
    assert ElementTree.fromstring(plots.bars("t", {}, str)).tag.endswith("svg")

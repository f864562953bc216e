"""The speech shipped with neutok: whole, labelled, and only under licences that let it be passed on."""

import json
from pathlib import Path

import av
import pytest

import pipeline

SAMPLE = Path(pipeline.__file__).parent / "sample"
FREE = {"CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "LicenseRef-PublicDomain"}
ROWS = [json.loads(line) for line in (SAMPLE / "metadata.jsonl").read_text().splitlines()]
SOURCE = Path(__file__).parents[2] / "shared" / "speech"


def test_every_clip_has_its_row_and_every_row_its_clip():
    sounds = {path.name for path in SAMPLE.iterdir()} - {"metadata.jsonl", "ATTRIBUTION.md"}
    assert sounds == {row["file_name"] for row in ROWS}
    assert len(ROWS) == len(sounds) >= 8


def test_the_sample_is_small_and_various():
    heads = {}
    for row in ROWS:
        with av.open(str(SAMPLE / row["file_name"])) as container:
            stream = container.streams.audio[0]
            seconds = sum(frame.samples for frame in container.decode(stream)) / stream.rate
        heads[row["file_name"]] = (stream.codec_context.name, stream.rate, seconds)
    assert len({row["language"] for row in ROWS}) >= 4
    assert len({codec for codec, _, _ in heads.values()}) >= 4
    assert len({rate for _, rate, _ in heads.values()}) >= 4
    assert all(2 <= seconds <= 8 for _, _, seconds in heads.values())
    assert sum(path.stat().st_size for path in SAMPLE.iterdir()) < 1_500_000


def test_every_clip_is_free_to_share_and_names_whose_it_is():
    credits = (SAMPLE / "ATTRIBUTION.md").read_text()
    for row in ROWS:
        assert set(row) == {"file_name", "text", "language", "speaker", "license", "attribution"}
        assert row["license"] in FREE
        line = next(line for line in credits.splitlines() if f"`{row['file_name']}`" in line)
        assert row["attribution"] and row["attribution"] in line
        assert "https://creativecommons.org/" in line


@pytest.mark.skipif(not SOURCE.exists(), reason="the collection the clips were taken from is not beside the checkout")
def test_every_clip_is_byte_for_byte_its_source():
    for row in ROWS:
        assert (SAMPLE / row["file_name"]).read_bytes() == (SOURCE / row["file_name"]).read_bytes()

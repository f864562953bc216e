"""What a publication may hold and what it says: licences, refusals, its card and its manifest."""

import hashlib
import json
import re

import pyarrow.parquet as pq
import pytest

from pipeline.corpora import CORPORA
from pipeline.publishing.card_header import MOST_CREDITS
from pipeline.publishing.licenses import find_license, refusals
from tests import output_toys
from tests.hub_cards import card_errors
from tests.publication_toys import card, mixed_output, publish, read, tree


@pytest.fixture
def output(tmp_path):
    return mixed_output(tmp_path / "out")


REFUSALS = [
    ({"license": None}, "--license ID", ["--license", "CC-BY-4.0"]),
    ({"corpus": "common_voice", "license": "CC0-1.0"}, "corpus:common_voice", ["--allow", "corpus:common_voice"]),
    ({"corpus": "emilia", "license": "CC-BY-NC-4.0"}, "non-commercial:emilia", ["--allow", "non-commercial:emilia"]),
    ({"license": "CC-BY-ND-4.0"}, "no-derivatives:toy", ["--allow", "no-derivatives:toy"]),
    ({"license": "LicenseRef-Mine"}, "license:LicenseRef-Mine", ["--allow", "license:LicenseRef-Mine"]),
]


@pytest.mark.parametrize(("labels", "name", "lift"), REFUSALS, ids=[name for _, name, _ in REFUSALS])
def test_what_may_not_be_published_is_refused_by_name_and_allowed_by_that_name(tmp_path, capsys, labels, name, lift):
    rows = output_toys.records(4) + output_toys.records(3, seed=1, **labels)
    output = output_toys.write_output(tmp_path / "out", {"a": rows})
    assert publish(output, tmp_path / "set") == 2
    said = capsys.readouterr().err
    assert name in said and labels.get("corpus", "toy") in said
    assert not (tmp_path / "set").exists()
    assert publish(output, tmp_path / "set", *lift) == 0
    stored = {row["license"] for row in read(tmp_path / "set", "data/*/train*.parquet") if "license" in row}
    assert stored == {"CC-BY-4.0", labels["license"] or "CC-BY-4.0"}


def test_a_given_licence_never_replaces_a_row_s_own(output, tmp_path):
    assert publish(output, tmp_path / "set", "--license", "MIT") == 0
    assert {row.get("license") for row in read(tmp_path / "set")} == {"CC-BY-4.0", "CC0-1.0", None}


def test_no_config_mixes_licences(tmp_path):
    rows = output_toys.records(40, license=lambda row: ["CC-BY-4.0", "CC-BY-SA-4.0", "CC0-1.0", "cc-by-4.0"][row % 4])
    assert publish(output_toys.write_output(tmp_path / "out", {"a": rows}), tmp_path / "set") == 0
    held = {}
    full = {row["__key__"]: row["license"] for row in read(tmp_path / "set") if "license" in row}
    for row in read(tmp_path / "set"):
        held.setdefault(row["config"], set()).add(find_license(full[row["__key__"]]).id)
    assert len(held) == 6 and all(len(licenses) == 1 for licenses in held.values())


def test_refusals_know_the_corpora_by_name():
    assert refusals([("emilia", "CC-BY-4.0"), ("mls", "CC-BY-4.0"), ("librispeech", "CC-BY-4.0")], ()) == []
    assert len(refusals([("emilia", "CC-BY-NC-4.0"), ("emilia", "CC-BY-4.0")], ())) == 1
    assert len(refusals([("common_voice", None)], ())) == 1


def test_the_card_s_header_is_valid_and_says_what_the_files_hold(output, tmp_path):
    assert publish(output, tmp_path / "set") == 0
    header, text = card(tmp_path / "set")
    assert card_errors(text) == []
    assert header["license"] == ["cc-by-4.0", "cc0-1.0"] and header["language"] == ["de", "en"]
    assert sum(config.get("default", False) for config in header["configs"]) == 1
    for config, info in zip(header["configs"], header["dataset_info"], strict=True):
        assert config["config_name"] == info["config_name"]
        for split, counted in zip(config["data_files"], info["splits"], strict=True):
            files = list((tmp_path / "set").glob(split["path"]))
            assert sum(pq.read_metadata(file).num_rows for file in files) == counted["num_examples"]
            assert sum(file.stat().st_size for file in files) == counted["num_bytes"]


def test_the_card_names_whom_the_rows_are_owed_to(tmp_path):
    extra = lambda row: json.dumps({"attribution": f"Voice {row % 2} | <b>\nloud"})  # noqa: E731
    rows = output_toys.records(9, corpus="folder", license="LicenseRef-PublicDomain", extra=extra)
    rows += output_toys.records(9, seed=1, corpus="librispeech")
    output = output_toys.write_output(tmp_path / "out", {"a": rows}, ["too_long"])
    assert publish(output, tmp_path / "set") == 0
    header, text = card(tmp_path / "set")
    assert card_errors(text) == []
    assert header["license"] == ["cc-by-4.0", "other"] and header["license_name"] == "licenseref-publicdomain"
    assert CORPORA["librispeech"].attribution in text
    assert "- Voice 0 \\| \\<b\\> loud\n- Voice 1" in text
    assert "| too\\_long | 1 |" in text or "| too_long | 1 |" in text
    assert output_toys.CODEC["revision"] in text
    for plot in re.findall(r"\]\((plots/.*?)\)", text):
        assert (tmp_path / "set" / plot).read_text().startswith("<svg")


def test_the_card_warns_as_the_notes_of_its_corpora_do(tmp_path):
    rows = output_toys.records(9, corpus="common_voice", license="CC0-1.0")
    rows += output_toys.records(9, seed=1, corpus="emilia")
    risky = output_toys.write_output(tmp_path / "risky", {"a": rows})
    assert publish(risky, tmp_path / "set", "--allow", "corpus:common_voice") == 0
    notes = card(tmp_path / "set")[1].split("## Notes on the sources\n\n")[1].split("\n\n## ")[0]
    assert notes.splitlines() == [f"- `{name}`: {CORPORA[name].notes}" for name in ("common_voice", "emilia")]
    assert "forbid hosting it elsewhere" in notes and "Whisper" in notes
    unknown = output_toys.write_output(tmp_path / "unknown", {"a": output_toys.records(9)})
    assert publish(unknown, tmp_path / "plain") == 0
    text = card(tmp_path / "plain")[1]
    assert "Notes on the sources" not in text and "\n\n\n" not in text.split("---\n", 2)[2]


def test_the_manifest_lists_every_other_file_with_its_hash(output, tmp_path):
    assert publish(output, tmp_path / "set") == 0
    listed = json.loads((tmp_path / "set" / "manifest.json").read_text())
    files = tree(tmp_path / "set")
    assert {file["path"] for file in listed["files"]} == files.keys() - {"manifest.json"}
    for file in listed["files"]:
        assert len(files[file["path"]]) == file["num_bytes"]
        assert hashlib.sha256(files[file["path"]]).hexdigest() == file["sha256"]
    assert listed["rejects"] == {"clips": 4, "by_reason": {"too_long": 2, "unreadable": 2}} and listed["rows"] == 90


@pytest.mark.parametrize("spelled", ["CC BY 4.0", "CC-BY 4.0", "cc by-4.0", "CC_BY_4.0", " Cc  By 4.0 "])
def test_a_licence_is_known_as_people_write_it(spelled):
    assert find_license(spelled).id == "CC-BY-4.0"
    assert find_license(spelled.lower().replace("by", "by-nc")).commercial is False


def test_one_licence_spelled_in_two_ways_makes_one_config_with_every_row(tmp_path):
    rows = output_toys.records(20, license=lambda row: ["CC BY 4.0", "CC-BY-4.0"][row % 2])
    assert publish(output_toys.write_output(tmp_path / "out", {"a": rows}), tmp_path / "set", "--no-neutts") == 0
    assert {row["config"] for row in read(tmp_path / "set")} == {"toy-en-cc-by-4.0"}
    assert len(read(tmp_path / "set")) == 20


COLLIDING = [
    ("license", "LicenseRef Mine", "LicenseRef-Mine"),
    ("license", "LicenseRef-Mine", "licenseref-mine"),
    ("corpus", "my corpus", "my-corpus"),
    ("language", "en-US", "en_US"),
    ("language", "EN", "en"),
]


@pytest.mark.parametrize(("label", "one", "other"), COLLIDING)
def test_labels_that_would_share_one_config_are_refused_by_both_spellings(tmp_path, capsys, label, one, other):
    rows = output_toys.records(6, **{label: one}) + output_toys.records(5, seed=1, **{label: other})
    output = output_toys.write_output(tmp_path / "out", {"a": rows})
    allowed = ("--allow", f"license:{one}", "--allow", f"license:{other}")
    assert publish(output, tmp_path / "set", *allowed) == 2
    said = capsys.readouterr().err
    assert repr(one) in said and repr(other) in said and "would mix" in said
    assert not (tmp_path / "set").exists()


def test_no_config_of_three_columns_mixes_licences_or_takes_the_name_of_a_corpus(tmp_path, capsys):
    rows = output_toys.records(6, corpus="x", license="Mine 1") + output_toys.records(5, corpus="y", license="mine-1")
    output = output_toys.write_output(tmp_path / "out", {"a": rows})
    allowed = ("--allow", "license:Mine 1", "--allow", "license:mine-1")
    assert publish(output, tmp_path / "set", *allowed) == 2
    assert "the config neutts-en-mine-1 would mix" in capsys.readouterr().err
    assert publish(output, tmp_path / "set", *allowed, "--no-neutts") == 0
    named = output_toys.write_output(tmp_path / "named", {"a": output_toys.records(6, corpus="neutts")})
    assert publish(named, tmp_path / "other") == 2
    assert "corpus 'neutts'" in capsys.readouterr().err


def test_a_file_that_lost_rows_since_it_was_written_is_found_out(output, tmp_path, capsys):
    assert publish(output, tmp_path / "set") == 0
    path = next((tmp_path / "set").glob("data/hui-*/*.parquet"))
    pq.write_table(pq.read_table(path).slice(1), path)
    assert publish(output, tmp_path / "set") == 2
    assert "90 rows went in, 89 came out" in capsys.readouterr().err


@pytest.mark.parametrize("people", [MOST_CREDITS - 1, MOST_CREDITS + 5])
def test_a_list_of_credits_that_ends_early_says_where_all_of_them_stand(tmp_path, people):
    extra = lambda row: json.dumps({"attribution": f"Voice {row}"})  # noqa: E731
    rows = output_toys.records(people, corpus="folder", frames=(2, 4), extra=extra)
    output = output_toys.write_output(tmp_path / "out", {"a": rows})
    for options, twins in (((), True), (("--no-neutts",), False)):
        assert publish(output, tmp_path / f"set-{twins}", *options) == 0
        credits = card(tmp_path / f"set-{twins}")[1].split("### folder")[1]
        assert credits.count("- Voice ") == min(people, MOST_CREDITS)
        assert ("its column `extra`" in credits) == (people > MOST_CREDITS)
        assert ("same `__key__`" in credits) == (people > MOST_CREDITS and twins)

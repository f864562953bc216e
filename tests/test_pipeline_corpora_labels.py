"""What each corpus knows of a clip, by the defects its files are known to have."""

import json

import pytest

from pipeline.corpora.librispeech import split_of
from pipeline.index import Selection, build_index
from pipeline.indexing.labels import LabelTable, to_json
from pipeline.indexing.languages import language_code
from pipeline.stream import read_unit
from tests.corpora_fixtures import BUILDERS, put, put_parquet, sound, tar_bytes, utterances


def read(name, tmp_path, **selection):
    built = BUILDERS[name](tmp_path / "corpus")
    index = build_index(name, built.inputs, str(tmp_path / "out"), Selection(**selection), 1 << 20)
    return index, utterances(index)


def extra(utterance):
    return json.loads(utterance.extra)


def test_emilia_keys_recordings_and_licences(tmp_path):
    index, found = read("emilia", tmp_path)
    video = found["emilia_EN_eOIUf73q_no-_W000002"]
    assert (video.text, video.language, video.license) == ("Word 2.", "en", "CC-BY-4.0")
    assert video.recording == "EN_eOIUf73q_no-" and video.speaker == "EN_eOIUf73q_no-_SPEAKER_00"
    assert extra(video) == {"dnsmos": 3.25, "phone_count": 12, "duration": 0.4, "part": "Emilia-YODAS"}
    for key in ("DE_B00000_S00000_W000000", "FR_B00001_S00001_W000001", "ZH_B00002_S00000_W000000"):
        old = found[f"emilia_{key}"]
        assert old.license == "CC-BY-NC-4.0" and old.recording == old.speaker
    assert found["emilia_ZH_B00002_S00000_W000001"].text == "你好"
    assert index.seconds == pytest.approx(0.4 * 6)


def test_emilia_without_a_prefix_follows_the_json(tmp_path):
    yodas = {"_id": "EN_abc_W1", "text": "a", "speaker": "s", "language": "en"}
    other = {"id": "EN_B1_S1_W1", "text": "a", "speaker": "s", "language": "en"}
    pairs = [(f"{id}.{e}", d) for id, j in (("EN_abc_W1", yodas), ("EN_B1_S1_W1", other)) for e, d in
             (("mp3", sound(1, "mp3")), ("json", json.dumps(j).encode()))]  # fmt: skip
    put(tmp_path / "some.tar", tar_bytes(pairs))
    found = utterances(build_index("emilia", [str(tmp_path / "some.tar")], str(tmp_path / "out"), Selection(), 1 << 20))
    assert found["emilia_EN_abc_W1"].license == "CC-BY-4.0"
    assert found["emilia_EN_B1_S1_W1"].license == "CC-BY-NC-4.0"


def test_known_bad_clips_are_kept_on_request(tmp_path):
    index, _ = read("emilia", tmp_path)
    assert index.rejects["known_bad"] == 1
    index, _ = read("emilia", tmp_path / "kept", keep_known_bad=True)
    assert "known_bad" not in index.rejects
    index, _ = read("libritts_r", tmp_path / "libri", keep_known_bad=True)
    assert "known_bad" not in index.rejects


def test_emilias_known_bad_speakers_are_rejects_without_being_asked(tmp_path):
    label = {"id": "EN_B00013_S00913_W000000", "speaker": "EN_B00013_S00913", "text": " A.", "language": "en"}
    pair = [(f"{label['id']}.mp3", sound(1, "mp3")), (f"{label['id']}.json", json.dumps(label).encode())]
    put(tmp_path / "Emilia" / "EN" / "EN-B000013.tar", tar_bytes(pair))
    index = build_index("emilia", [str(tmp_path / "Emilia")], str(tmp_path / "out"), Selection(), 1 << 20)
    assert index.rejects == {"known_bad": 1}


def test_mls_labels_come_from_three_tables(tmp_path):
    index, found = read("mls", tmp_path)
    clip = found["mls_1595_14770_000001"]
    assert (clip.text, clip.language, clip.speaker, clip.recording) == ("quell' altra 1", "it", "1595", "14770")
    assert clip.split == "train" and found["mls_1595_147710_000000"].split == "dev"
    assert extra(clip) | {"begin": 10.0, "gender": "F", "title": "Divina"} == extra(clip)
    german, english = found["mls_2_3_000000"], found["mls_4_5_000000"]
    assert (german.text, german.language, german.recording) == ("eins 0", "de", "3")
    assert (english.language, english.split, english.recording) == ("en", "test", "5")
    assert index.seconds == pytest.approx(0.4 * 8)
    assert any("transcripts.txt" in problem for problem in index.problems)


def test_libritts_r_text_is_the_normalized_one(tmp_path):
    _, found = read("libritts_r", tmp_path)
    clip = found["libritts_r_103_1241_000000_000002"]
    assert (clip.text, clip.speaker, clip.recording, clip.split) == ("Mister 2.", "103", "1241", "train-clean-100")
    assert extra(clip)["original_text"] == "Mr. 2."
    hub = found["libritts_r_7_8_000000_000000"]
    assert (hub.text, hub.split, hub.speaker) == ("Doctor.", "dev-clean", "7")


def test_fleurs_r_joins_on_the_file_name(tmp_path):
    index, found = read("fleurs_r", tmp_path)
    clip = found["fleurs_r_1000408853635410"]
    assert clip.text == '"Hallo, wêreld' and clip.language == "af" and clip.speaker is None
    assert clip.recording == found["fleurs_r_1000408853635411"].recording == "7"
    chinese = found["fleurs_r_1000408853635420"]
    assert chinese.language == "zh" and extra(chinese)["language"] == "cmn_hans_cn" and chinese.split == "train"
    assert index.seconds == pytest.approx(6 * 6400 / 16_000)
    assert any("7 columns" in problem for problem in index.problems)


def test_common_voice_splits_and_columns_by_name(tmp_path):
    index, found = read("common_voice", tmp_path)
    for locale, language in (("br", "br"), ("zh-CN", "zh"), ("tr", "tr")):
        clips = [found[f"common_voice_common_voice_{locale}_{number}"] for number in range(6)]
        assert [clip.split for clip in clips] == ["train", "test", "validated", "validated", "validated", "other"]
        assert clips[1].text == 'Er sagte "nein' and clips[0].text == '"Satz 0"'
        assert clips[0].speaker == "c0" and clips[0].language == language
        assert extra(clips[0])["up_votes"] == "2" and extra(clips[0])["age"] == "fourties"
    assert index.seconds == pytest.approx(1.2)
    assert index.rejects == {"empty": 3, "no_label": 3}


def test_common_voice_clip_in_two_archives_is_one_row(tmp_path):
    header = "client_id\tpath\tsentence\n"
    for split, numbers in (("train", (1, 2)), ("validated", (1, 2, 3)), ("dev", (4,))):
        name = "common_voice_de_{}.mp3"
        lines = "".join(f"c\t{name.format(n)}\tSatz {n}\n" for n in numbers)
        put(tmp_path / "in" / "transcript" / "de" / f"{split}.tsv", header + lines)
        members = [(f"de_{split}_0/{name.format(n)}", sound(n, "mp3")) for n in numbers]
        put(tmp_path / "in" / "audio" / "de" / split / f"de_{split}_0.tar", tar_bytes(members))
    index = build_index("common_voice", [str(tmp_path / "in")], str(tmp_path / "out"), Selection(), 1 << 20)
    items = [item for unit in index.units for item in read_unit(unit)]
    rows = {item.utterance.id[-1]: item.utterance.split for item in items if hasattr(item, "data")}
    assert rows == {"1": "train", "2": "train", "3": "validated", "4": "dev"}
    assert index.rejects == {"duplicate_key": 2} and index.num_clips == 6 and index.orphan_labels == 0


def test_common_voice_parquet_prefers_train_to_validated(tmp_path):
    def rows(numbers):
        return [
            {"client_id": "c", "path": f"x/common_voice_en_{n}.mp3", "sentence": f"S {n}", "locale": "en"}
            | {"audio": {"bytes": sound(n, "mp3"), "path": f"common_voice_en_{n}.mp3"}}
            for n in numbers
        ]

    put_parquet(tmp_path / "in" / "en" / "validated-00000-of-00001.parquet", rows((1, 2)))
    put_parquet(tmp_path / "in" / "en" / "validation-00000-of-00001.parquet", rows((1,)))
    index = build_index("common_voice", [str(tmp_path / "in")], str(tmp_path / "out"), Selection(), 1 << 20)
    items = [item for unit in index.units for item in read_unit(unit)]
    rows = {item.utterance.id: item.utterance.split for item in items if hasattr(item, "data")}
    assert rows == {"common_voice_common_voice_en_1": "dev", "common_voice_common_voice_en_2": "validated"}


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("dev-clean.tar.gz", "dev-clean"),
        ("LibriSpeech/train-other-500/1/2/1-2-0003.flac", "train-other-500"),
        ("all/validation.clean/0000.parquet", "dev-clean"),
        ("all/train.clean.360/0000.parquet", "train-clean-360"),
        ("clean/validation/0000.parquet", "dev-clean"),
        ("speech/0000.parquet", None),
    ],
)
def test_librispeech_splits_are_one_however_they_are_spelled(path, split):
    assert split_of(path) == split


def test_hui_quotes_books_and_speakers(tmp_path):
    _, found = read("hui", tmp_path)
    first, second = found["hui_der_blinde_00_01_f000000"], found["hui_der_blinde_00_01_f000001"]
    assert first.text == 'Er sagte "nein"' and second.text == "Teil eins | Teil zwei"
    assert first.speaker == "Karlsson" and first.recording == "der_blinde_00"
    other = found["hui_der_blinde_10_01_f000000"]
    assert other.speaker == "Käthe_Öz" and extra(other) == {"subset": "clean"}


def test_cmu_arctic_prompts_run_from_first_to_last_quote(tmp_path):
    _, found = read("cmu_arctic", tmp_path)
    assert found["cmu_arctic_slt_arctic_a0002"].text == 'Author 1, he said "no", etc.'
    assert found["cmu_arctic_slt_arctic_a0002"].speaker == "slt"
    assert extra(found["cmu_arctic_bdl_arctic_a0001"]) == {"gender": "male"}


def test_librispeech_first_space_splits_id_from_text(tmp_path):
    _, found = read("librispeech", tmp_path)
    assert found["librispeech_61-70968-0001"].text == "yes"
    assert found["librispeech_61-70968-0000"].text == "he began a confused complaint"
    assert found["librispeech_61-70968-0000"].split == "test-clean"
    hub = found["librispeech_1-2-0000"]
    assert (hub.text, hub.speaker, hub.recording, hub.split) == ("hub", "1", "2", "test-clean")


def test_a_folders_tables_and_sidecars(tmp_path):
    _, found = read("folder", tmp_path)
    loose = found["folder_clips_a_2_mp3"]
    assert (loose.text, loose.speaker, loose.language, loose.license) == ("Hello, 2", "ann", "en", "CC0-1.0")
    assert extra(loose) == {"mood": "glad", "language": "en-GB"}
    assert found["folder_lj_wavs_LJ001-0001_wav"].text == 'Printing, "in'
    assert found["folder_lj_wavs_LJ001-0002_wav"].text is None
    assert (found["folder_k1_flac"].text, found["folder_k1_flac"].license) == ("one", "CC0-1.0")
    assert found["folder_k2_opus"].text == "two"


@pytest.mark.parametrize(
    "name, table",
    [
        ("metadata.jsonl", '{"file_name": "a.wav", "transcription": "hello"}\n'),
        ("metadata.jsonl", '{"audio": {"path": "./a.wav"}, "text": null, "transcript": "hello"}\nnot json\n'),
        ("manifest.jsonl", '{"file": "a.wav", "transcript": "hello", "licence": "CC0-1.0"}\n'),
        ("metadata.csv", '\ufefffile_name,sentence\na.wav,"hello"\n'),
        ("metadata.csv", "a|hello|hello\n"),
        ("metadata.csv", "id|text\na|hello\n"),
        ("metadata.csv", "file;text\na.wav;hello\n"),
        ("metadata.tsv", 'path\ttext\n/home/someone/a.wav\thello\nb\t"x\n'),
        ("metadata.tsv", "a.wav\thello\n"),
    ],
)
def test_a_folders_table_in_any_usual_form(tmp_path, name, table):
    put(tmp_path / "in" / "a.wav", sound(1))
    put(tmp_path / "in" / name, table)
    (found,) = utterances(build_index("folder", [str(tmp_path / "in")], str(tmp_path / "out"), Selection(), 1)).values()
    assert found.text == "hello" and found.id == "folder_a_wav"


def test_lists_and_structs_of_a_table_are_kept_and_its_vectors_left(tmp_path):
    row = {"id": "r", "audio": {"bytes": sound(1), "path": "r.wav"}, "tags": ["a", "b"], "vector": [0.5, 0.25]}
    row |= {"words": [{"word": "ä", "start": 0.5, "end": None}], "picture": {"bytes": b"x"}}
    put_parquet(tmp_path / "in.parquet", [row])
    (found,) = utterances(
        build_index("parquet", [str(tmp_path / "in.parquet")], str(tmp_path / "out"), Selection(), 1)
    ).values()
    kept = {name: json.loads(value) for name, value in extra(found).items()}
    assert kept == {"tags": ["a", "b"], "words": [{"word": "ä", "start": 0.5, "end": None}]}


def test_trees_read_like_their_archives(tmp_path):
    import tarfile

    for name in ("librispeech", "libritts_r", "mls", "cmu_arctic", "common_voice", "fleurs_r"):
        built = BUILDERS[name](tmp_path / name / "packed")
        out = str(tmp_path / name / "out")
        packed = utterances(build_index(name, built.inputs, out, Selection(), 1 << 20))
        for path in sorted((tmp_path / name / "packed").rglob("*.tar.*")):
            with tarfile.open(path) as archive:
                archive.extractall(path.parent if name == "fleurs_r" else tmp_path / name / "packed")
            if "failed" not in path.name:
                path.unlink()
        loose = utterances(build_index(name, built.inputs, f"{out}2", Selection(), 1 << 20))
        assert set(loose) == set(packed) and len(packed) > 3
        for key, utterance in packed.items():
            assert (loose[key].text, loose[key].split, loose[key].language, loose[key].extra, loose[key].speaker) == (
                (utterance.text, utterance.split, utterance.language, utterance.extra, utterance.speaker)
            )


def test_the_clips_of_the_shared_sets_are_listed(tmp_path):
    from pathlib import Path

    shared = Path(__file__).parents[2] / "shared"
    if not shared.exists():
        pytest.skip("no shared sets beside the checkout")
    index = build_index("folder", [str(shared / "speech")], str(tmp_path / "a"), Selection(), 128 << 20)
    found = utterances(index)
    rows = [json.loads(line) for line in (shared / "speech" / "manifest.jsonl").read_text().splitlines()]
    by_file = {utterance.source: utterance for utterance in found.values()}
    assert len(found) == len(rows) == 128
    for row in rows:
        clip = by_file[row["file"]]
        assert (clip.text, clip.speaker, clip.license) == (row["transcript"], row["speaker"], row["licence"])
    index = build_index("folder", [str(shared / "speech_train")], str(tmp_path / "b"), Selection(limit=2000), 128 << 20)
    assert index.num_clips == 2000 and all(u.text or u.license for u in utterances(index).values())


def test_languages_become_short_codes():
    forms = {"EN": "en", "en_us": "en", "zh-CN": "zh", "cmn_hans_cn": "zh", "yue_hant_hk": "yue", "deu": "de"}
    forms |= {"german": "de", "es_419": "es", "ckb_iq": "ckb", "sv-SE": "sv", "rm-sursilv": "rm", "": None, "xx": None}
    assert {form: language_code(form) for form in forms} == forms


def test_a_label_table_larger_than_memory_keeps_count(monkeypatch):
    monkeypatch.setattr("pipeline.indexing.labels.IN_MEMORY", 10)
    table = LabelTable()
    assert all(table.add(f"k{n}", f"line {n}") for n in range(35))
    assert not table.add("k3", "again")
    table.put("k4", "better")
    assert [table.get(f"k{n}") for n in (3, 4, 34)] == ["line 3", "better", "line 34"]
    assert (table.count, table.orphans) == (35, 32)
    table.close()


def test_extra_is_always_json():
    odd = {"nan": float("nan"), "half": "\ud800", "none": None, "deep": {"b": [1, float("inf")], "a": "ä"}}
    assert json.loads(to_json(odd)) == {"nan": None, "half": "?", "deep": {"a": "ä", "b": [1, None]}}

"""Which labels of a folder's sidecars and tables go to which of its clips."""

import json

import pytest

from pipeline.index import Selection, build_index
from tests.corpora_fixtures import put, sound, tar_bytes, utterances


def texts(tmp_path, files, out="out", path="in"):
    """The text of each clip of a folder, by its file; of each clip of a tar of the same files likewise."""
    for name, data in files:
        put(tmp_path / path / name, data)
    index = build_index("folder", [str(tmp_path / path)], str(tmp_path / out), Selection(), 1 << 20)
    loose = {utterance.source: utterance.text for utterance in utterances(index).values()}
    beside = [(name, data) for name, data in files if name.startswith("metadata.")]  # a table's folder: that of the tar
    for name, data in [*beside, ("a.tar", tar_bytes([pair for pair in files if pair not in beside]))]:
        put(tmp_path / f"{path}_tar" / name, data)
    packed = build_index("folder", [str(tmp_path / f"{path}_tar")], str(tmp_path / f"{out}_tar"), Selection(), 1 << 20)
    found = {utterance.source.removeprefix("a.tar::"): utterance.text for utterance in utterances(packed).values()}
    return index, loose, found


SIDECARS = {
    "dates": (
        "2024.01.05_a.wav 2024.01.05_a.txt 2024.01.06_b.txt 2024.01.06_b.wav 2024.01.07_c.wav 2024.01.08_d.txt",
        {"2024.01.05_a.wav": "2024.01.05_a.txt", "2024.01.06_b.wav": "2024.01.06_b.txt", "2024.01.07_c.wav": None},
    ),
    "one of many has a text": ("d.1.wav d.2.txt d.2.wav d.wav", {"d.1.wav": None, "d.2.wav": "d.2.txt", "d.wav": None}),
    "dates and qualities": (
        "a.1.16k.wav a.1.txt a.2.16k.wav a.2.normalized.txt a.3.wav a.3.raw.txt a.4.wav",
        {"a.1.16k.wav": "a.1.txt", "a.2.16k.wav": "a.2.normalized.txt", "a.3.wav": "a.3.raw.txt", "a.4.wav": None},
    ),
    "own name first": ("k.better.txt k.txt k.wav", {"k.wav": "k.txt"}),
    "as WebDataset": (
        "k.16k.wav k.txt l.left.wav l.right.wav l.meta.txt m.wav m.normalized.txt m.original.txt n.wav",
        {"k.16k.wav": "k.txt", "l.left.wav": "l.meta.txt", "l.right.wav": "l.meta.txt"}
        | {"m.wav": "m.normalized.txt", "n.wav": None},
    ),
}


@pytest.mark.parametrize("case", SIDECARS)
def test_a_sidecar_goes_with_the_clips_whose_names_begin_most_alike(tmp_path, case):
    names, wanted = SIDECARS[case]
    files = [(name, sound(at) if name.endswith("wav") else name.encode()) for at, name in enumerate(names.split())]
    _, loose, packed = texts(tmp_path, files)
    assert loose == packed == wanted


def test_sidecars_of_each_kind_pair_for_themselves(tmp_path):
    files = [("k.left.wav", sound(1)), ("k.right.wav", sound(2)), ("k.txt", b"both")]
    files += [(f"k.{side}.json", json.dumps({"speaker": side}).encode()) for side in ("left", "right")]
    for name, data in files:
        put(tmp_path / "in" / name, data)
    found = utterances(build_index("folder", [str(tmp_path / "in")], str(tmp_path / "out"), Selection(), 1 << 20))
    said = {key: (clip.text, clip.speaker) for key, clip in found.items()}
    assert said == {"folder_k_left_wav": ("both", "left"), "folder_k_right_wav": ("both", "right")}


def test_a_second_sidecar_of_one_name_is_told(tmp_path):
    put(tmp_path / "a.tar", tar_bytes([("k.wav", sound(1)), ("k.txt", b"one"), ("k.TXT", b"two")]))
    index = build_index("folder", [str(tmp_path / "a.tar")], str(tmp_path / "out"), Selection(), 1 << 20)
    assert [clip.text for clip in utterances(index).values()] == ["one"]
    assert index.problems == ("a.tar: 1 x second label file of one name",)


def speakers(*names):
    return [(name, sound(number)) for number, name in enumerate(names)]


def lines(*paths):
    return ("metadata.csv", "".join(["file_name,text\n", *(f"{path},{path}\n" for path in paths)]).encode())


def test_full_paths_below_the_input_are_taken_from_there(tmp_path):
    paths = [f"{tmp_path}/in{packed}/spk{n}/001.wav" for packed in ("", "_tar") for n in (1, 2)]
    files = [lines(*paths), *speakers("spk1/001.wav", "spk2/001.wav", "spk3/001.wav")]
    index, loose, packed = texts(tmp_path, files)
    assert loose == {"spk1/001.wav": paths[0], "spk2/001.wav": paths[1], "spk3/001.wav": None}
    assert packed == {"spk1/001.wav": paths[2], "spk2/001.wav": paths[3], "spk3/001.wav": None}
    assert [problem for problem in index.problems if "1 x clip without labels, for full paths" in problem]


def test_full_paths_of_another_machine_go_by_their_ends(tmp_path):
    paths = ("/d/spk1/001.wav", "/d/spk2/001.wav", "/d/x/y/only.wav", "C:\\d\\dos.wav", "/d/bare", "/d/e/bare2.wav")
    names = ("wavs/spk1/001.wav", "wavs/spk2/001.wav", "wavs/spk9/001.wav", "only.wav", "z/dos.wav", "z/bare.wav")
    index, loose, packed = texts(tmp_path, [lines(*paths), *speakers(*names)])
    assert loose == packed == dict(zip(names, (*paths[:2], None, *paths[2:5]), strict=True))
    assert index.orphan_labels == 1


@pytest.mark.parametrize(
    "paths, names",
    [
        (["/d/spk1/001.wav", "/d/spk2/001.wav"], ["001.wav"]),
        (["/d/spk1/001.wav"], ["spk2/001.wav", "spk3/001.wav"]),
        (["/d/a/spk1/001.wav", "/d/b/spk1/001.wav"], ["spk1/001.wav", "c/spk1/001.wav"]),
    ],
)
def test_full_paths_that_may_mean_others_label_nothing(tmp_path, paths, names):
    index, loose, packed = texts(tmp_path, [lines(*paths), *speakers(*names)])
    assert loose == packed == dict.fromkeys(names)
    assert any("write paths below the table's folder" in problem for problem in index.problems)


def test_full_paths_are_held_against_the_clips_of_their_tables_own_folder(tmp_path):
    for folder in ("a", "a!", "b"):
        put(tmp_path / "in" / folder / "001.wav", sound(1))
        put(tmp_path / "in" / folder / "metadata.csv", f"file_name,text\n/tmp/{folder}/x/001.wav,{folder}\n")
    found = utterances(build_index("folder", [str(tmp_path / "in")], str(tmp_path / "out"), Selection(), 1 << 20))
    assert sorted(clip.text for clip in found.values()) == ["a", "a!", "b"]


def test_many_full_paths_are_found_as_few_are(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.indexing.labels.IN_MEMORY", 3)
    paths = [f"/d/spk{n}/00{k}.wav" for n in range(4) for k in range(3)]
    _, loose, packed = texts(tmp_path, [lines(*paths), *speakers(*(path.removeprefix("/d/") for path in paths))])
    assert loose == packed == {path.removeprefix("/d/"): path for path in paths}

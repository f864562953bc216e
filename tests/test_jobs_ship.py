"""A trained run ships: weights that load, and a card whose every figure is the one that measuring gives."""

import json
import shlex
from dataclasses import replace
from functools import partial

import pytest
import torch

import codec
from codec.config import SpectralConfig
from codec.training.recipes import RECIPES, Weights
from codec.training.start import begin, folded
from codec.weights import load_codec
from jobs import agreement, evaluate, ship, train
from jobs.options import parse
from jobs.shipping import card, history, sources
from jobs.training import checkpoints
from jobs.training.export import checkpoint_of, codec_at
from jobs.training.log import TrainingLog
from jobs.training.options import TrainOptions
from tests.training_toys import TINY, TINY_CODEC, voice, wav

STUDENT_ALONE = replace(
    TINY,
    name="tiny",
    codec=replace(TINY_CODEC, acoustic=SpectralConfig(spectra=((256, 20, 2),), width=16, blocks=1, out_width=32)),
)
STUDENT = replace(
    STUDENT_ALONE,
    name="student",
    trains=("acoustic", "fuse"),
    starts_from="tiny",
    teacher=True,
    weights=Weights(semantic=0.0, distillation=5.0),
)
THANKS = """# Whom to thank

| Source (GitHub) | Commit | Clips | Attribution | Where it is stated | Remarks |
|---|---|---|---|---|---|
| org/open | `abc123` | 4 | Anna Open | its README | |
| org/free | `def456` | 2 | nobody | its LICENSE | read slowly |
"""


def load(name, device, weights, precision):
    return load_codec(name, device, weights, precision)


@pytest.fixture(autouse=True, scope="module")
def tiny_recipe():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "tiny", TINY)
        patch.setitem(RECIPES, "student", STUDENT)
        for name in ("tiny", "student"):
            patch.setitem(codec.CODECS, name, partial(load, name))
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)


def corpus(folder, clips, first=0, **labels):
    """Clips with a licence and a source each, as (source, licence)."""
    folder.mkdir()
    lines = []
    for i, (source, licence) in enumerate(clips, first):
        (folder / f"clip{i}.wav").write_bytes(wav(voice(i, 0.6 + 0.1 * (i % 3))))
        said = {"file_name": f"clip{i}.wav", "speaker": f"s{i % 3}", "language": "en", "license": licence}
        lines.append(json.dumps({**said, "source": source, **labels}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def places(tiny_recipe, tmp_path_factory):
    """A corpus, a run of two attempts over it, clips it never heard, and whom to thank."""
    base = tmp_path_factory.mktemp("ship")
    learned = corpus(base / "learned", [("org/open", "CC-BY-4.0")] * 4 + [("org/free", "CC0-1.0")] * 2)
    unheard = corpus(base / "unheard", [("org/other", "CC0-1.0")] * 3, first=20, speaker="u", attribution="Otto")
    (base / "thanks.md").write_text(THANKS)
    (base / "list.txt").write_text("clip20.wav\nclip22.wav\n")
    flags = ["--recipe", "tiny", "--input", str(learned), "--output", str(base / "run"), "--device", "cpu"]
    flags += [
        "--workers",
        "0",
        "--log-every",
        "2",
        "--validation",
        str(unheard / "clip21.wav"),
        "--validate-every",
        "4",
    ]
    for stop in (6, None):
        asked = iter(range(1, 1 << 30))
        train.train(parse(TrainOptions, flags, "test", ""), lambda stop=stop, asked=asked: next(asked) == stop)
    return base


def flags_of(base, to, *more):
    flags = ["--run", base / "run", "--to", to, "--input", base / "learned", "--evaluate", base / "unheard"]
    flags += ["--attributions", base / "thanks.md", "--list", base / "list.txt", "--metrics", "si_sdr,mel_mse"]
    flags += ["--samples", "clip20.wav", "--samples-from", base / "unheard", "--sample-seconds", "0.5", *more]
    return [str(flag) for flag in flags]


@pytest.fixture(scope="module")
def shipped(places):
    to = places / "shipped"
    assert ship.main(flags_of(places, to)) == 0
    return to


def test_what_ships_is_the_best_checkpoint_in_float16_and_loads(places, shipped):
    model = load_codec("tiny", weights=str(shipped))
    trained, position = codec_at(checkpoint_of(str(places / "run"), "best"), None)
    assert position.step == position.best[0]
    for name, value in trained.state_dict().items():
        assert torch.equal(model.state_dict()[name], value.half().float()), name
    assert (shipped / "codec.safetensors").stat().st_size < 2.2 * sum(p.numel() for p in model.parameters())


def test_the_latest_checkpoint_is_the_codec_that_the_run_exported(places):
    latest, position = codec_at(checkpoint_of(str(places / "run"), "latest"), None)
    exported = load_codec("tiny", weights=str(places / "run" / "codec"))
    assert position.step == TINY.steps
    assert all(torch.equal(exported.state_dict()[name], value) for name, value in latest.state_dict().items())


def test_the_cards_figures_are_those_that_evaluate_gives(places, shipped, tmp_path):
    result = tmp_path / "result.json"
    flags = ["--codec", "tiny", "--weights", shipped, "--input", places / "unheard", "--list", places / "list.txt"]
    flags += ["--metrics", "si_sdr,mel_mse", "--threads", "1", "--json", result]
    assert evaluate.main([str(flag) for flag in flags]) == 0
    wanted, record = json.loads(result.read_text()), card.read(shipped)
    for name in ("means", "codes", "seconds", "rejects"):
        assert record["quality"][name] == wanted[name]
    assert record["codec"] == wanted["codec"]
    text = (shipped / "README.md").read_text()
    for mean in wanted["means"].values():
        assert f"| {mean['mean']:.3f} |" in text
    assert "2 clips" in text and f"{wanted['codes']['distinct']:,} used" in text


def test_the_card_names_every_source_with_its_hours_and_whom_to_thank(places, shipped):
    record, text = card.read(shipped), (shipped / "README.md").read_text()
    found = {source["name"]: source for source in record["data"]["sources"]}
    assert (found["org/open"]["clips"], found["org/free"]["clips"]) == (4, 2)
    assert found["org/open"]["seconds"] == pytest.approx(0.6 + 0.7 + 0.8 + 0.6, abs=1e-3)
    assert record["data"]["codes"]["num_codes"] == sum(int((0.6 + 0.1 * (i % 3)) * 50 + 1e-6) for i in range(6))
    assert "org/open at `abc123` | 4 |" in text and "Anna Open" in text and "CC BY 4.0" in text
    assert "- org/free: its LICENSE read slowly" in text and "Otto" in text


def test_the_card_has_the_commands_curves_and_sounds(places, shipped):
    record, text = card.read(shipped), (shipped / "README.md").read_text()
    attempts = record["training"]["attempts"]
    assert [attempt["first_step"] for attempt in attempts] == [0]  # the second only went on as the first
    assert f"neutok train --recipe tiny --input {places / 'learned'} --output {places / 'run'}" in text
    assert all("torch" in attempt["hardware"] for attempt in attempts)
    assert record["training"]["curves"] and all(
        (shipped / "curves" / c).is_file() for c in record["training"]["curves"]
    )
    assert {path.name for path in (shipped / "samples").iterdir()} == {"clip20.flac", "clip20.original.flac"}
    assert (shipped / "heldout.txt").read_text() == (places / "list.txt").read_text()


def test_what_shipped_can_be_trained_further_by_the_command_in_its_card(places, shipped):
    words = shlex.split(card.read(shipped)["training"]["goes_on"])
    options = parse(TrainOptions, [*words[2:], "--steps", "1"], "test", "")
    assert (options.output, options.start) == (str(places / "run-on"), str(shipped))
    model = load_codec("tiny", weights=str(shipped))
    begun = folded(begin(options.chosen(), model, None).codec)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in begun.state_dict().items())
    assert train.train(options, lambda: False)
    with pytest.raises(ValueError, match="other sizes"):
        begin(STUDENT_ALONE, model, None)


@pytest.fixture(scope="module")
def student(places, shipped):
    """The run of a student of what shipped."""
    output = places / "student"
    flags = ["--recipe", "student", "--start", shipped, "--input", places / "learned", "--output", output]
    flags = [str(flag) for flag in [*flags, "--device", "cpu", "--workers", "0", "--steps", "2"]]
    assert train.train(parse(TrainOptions, flags, "test", ""), lambda: False)
    return output


def test_a_students_checkpoint_is_whole_with_what_it_began_with_and_only_with_that(places, shipped, student):
    path = checkpoint_of(str(student), "latest")
    found, _ = codec_at(path, str(shipped))
    exported = load_codec("student", weights=str(student))
    assert all(torch.equal(exported.state_dict()[name], value) for name, value in found.state_dict().items())
    for start, told in (
        (None, "give the run's --start"),
        (str(places / "run"), "does not hold the decoder, quantizer"),
    ):
        with pytest.raises(ValueError, match=told):
            codec_at(path, start)


def test_agreement_puts_its_table_into_the_card_of_the_teacher_alone(places, shipped, student, capsys):
    flags = ["--teacher", "tiny", "--student", "student", "--student-weights", student]
    flags += ["--input", places / "unheard", "--metrics", "mel_mse", "--card", shipped]
    flags = [str(flag) for flag in flags]
    before = card.read(shipped)
    assert agreement.main([*flags, "--teacher-weights", str(places / "run" / "codec")]) == 2
    assert "ship it first" in capsys.readouterr().err
    flags += ["--teacher-weights", str(shipped)]
    assert agreement.main([*flags, "--student", "tiny", "--student-weights", str(places / "run")]) == 2
    assert "no student of theirs" in capsys.readouterr().err and card.read(shipped) == before
    assert agreement.main(flags) == 0
    after = card.read(shipped)
    assert {**before, "agreement": after["agreement"]} == after
    text, found = (shipped / "README.md").read_text(), after["agreement"]
    assert "Trained for 2 steps" in text
    assert f"| exact codes | {found['code_match']:.3f} | 0.02 |" in text
    assert "| log-mel error (MSE) | {:.3f} | {:.3f} |".format(*found["reconstruction"]["mel_mse"]) in text


def test_shipping_again_replaces_all_of_it(places, shipped, tmp_path):
    to = tmp_path / "again"
    (to / "samples").mkdir(parents=True)
    (to / "samples" / "old.flac").write_bytes(b"")
    assert ship.main(flags_of(places, to, "--checkpoint", "latest")) == 0
    assert {path.name for path in (to / "samples").iterdir()} == {"clip20.flac", "clip20.original.flac"}
    assert card.read(to)["training"]["step"] == TINY.steps


@pytest.mark.parametrize(
    ("clips", "thanks", "told"),
    [
        ([("org/open", "CC-BY-4.0")] * 5 + [("org/free", "CC0-1.0")], THANKS, "not those the run was trained on"),
        ([("org/open", "CC-BY-4.0")] * 4 + [("org/free", "CC0-1.0")] * 2, "", "nobody is named to thank"),
        ([("org/open", "CC-BY-SA-4.0")] * 4 + [("org/free", "CC0-1.0")] * 2, THANKS, "share-alike"),
        ([("org/open", "CC-BY-4.0")] * 4 + [("org/free", None)] * 2, THANKS, "has no licence"),
    ],
)
def test_what_may_not_ship_is_refused_and_nothing_is_written(places, tmp_path, capsys, clips, thanks, told):
    other = corpus(tmp_path / "learned", clips, first=0 if "not those" not in told else 1)
    (tmp_path / "thanks.md").write_text(thanks)
    flags = flags_of(places, tmp_path / "to")
    flags[flags.index("--input") + 1] = str(other)
    flags[flags.index("--attributions") + 1] = str(tmp_path / "thanks.md")
    assert ship.main(flags) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "to").exists()


def test_a_codec_is_not_measured_on_speakers_it_learned_from(places, tmp_path, capsys):
    flags = flags_of(places, tmp_path / "to")
    flags[flags.index("--evaluate") + 1] = str(places / "learned")
    flags[flags.index("--list") + 1] = str(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("clip1.wav\n")
    assert ship.main(flags) == 2
    assert "the codec learned from s1" in capsys.readouterr().err and not (tmp_path / "to").exists()


def test_an_attempt_that_repeats_steps_counts_instead_of_the_one_it_repeats(tmp_path):
    def log(first, *records):
        lines = [json.dumps({"kind": "train", "step": step, "mel": mel}) for step, mel in records]
        (tmp_path / "log" / f"train-{first:08d}.jsonl").write_text("\n".join(lines) + '\n{"cut')

    (tmp_path / "log").mkdir()
    log(0, (5, 3.0), (10, 2.0), (15, 1.9))
    log(10, (15, 1.5), (20, 1.0), (25, 0.9))
    found = history.read_history(str(tmp_path), 20)
    assert found.points("train", "mel") == [(5, 3.0), (10, 2.0), (15, 1.5), (20, 1.0)]
    assert [attempt.command for attempt in found.attempts] == [None]


def test_an_attempt_of_which_nothing_is_left_is_no_part_of_the_history(tmp_path):
    for number in range(11):
        log = TrainingLog(str(tmp_path), 0)  # each from step 0: the ones before saved nothing
        log.write(0, "began", {"command": f"attempt {number}"})
        log.write(5, "train", {"mel": 1.0 + number})
        log.close()
    assert len(list((tmp_path / "log").glob("train-*.jsonl"))) == 11
    found = history.read_history(str(tmp_path), 5)
    assert [attempt.command for attempt in found.attempts] == ["attempt 10"]
    assert found.points("train", "mel") == [(5, 11.0)]


def test_tables_of_thanks_are_read_by_their_heads(tmp_path):
    (tmp_path / "thanks.md").write_text("| Shard | Hours |\n|---|---|\n| open | 3 |\n\n" + THANKS)
    found = sources.read_thanks([str(tmp_path / "thanks.md")])
    assert found == {
        "org/open": {"commit": "abc123", "attribution": "Anna Open", "stated": "its README", "remarks": ""},
        "org/free": {"commit": "def456", "attribution": "nobody", "stated": "its LICENSE", "remarks": "read slowly"},
    }


def test_a_run_without_checkpoints_cannot_ship(places, tmp_path, capsys):
    flags = flags_of(places, tmp_path / "to")
    flags[1] = str(tmp_path)
    assert ship.main(flags) == 2
    assert "has no best checkpoint" in capsys.readouterr().err
    assert checkpoints.find(str(tmp_path)) is None

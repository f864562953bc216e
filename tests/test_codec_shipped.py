"""What ships in `codec/shipped`: it loads, does what its card says, and is small enough to come along."""

import re

import pytest
import torch

import codec
from jobs import ship
from jobs.shipping import card
from tests.training_toys import voice

FOLDERS = [folder for folder in sorted(codec.SHIPPED.iterdir()) if (folder / "codec.json").is_file()]
shipped = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


@shipped
def test_its_card_is_of_these_weights_and_says_what_the_record_holds(folder):
    record = card.read(folder)
    model = codec.load(folder.name)
    assert record["codec"] == model.spec.to_json()
    assert record["size"]["num_bytes"] == (folder / "codec.safetensors").stat().st_size <= ship.MOST_BYTES
    assert (folder / "README.md").read_text() == card.render(record)
    for link in re.findall(r"\]\(([^):]+)\)", card.render(record)):
        assert (folder / link).is_file(), link
    assert sum(path.stat().st_size for path in (folder / "samples").iterdir()) < 600_000


@shipped
def test_it_takes_a_sound_there_and_back_with_no_warning(folder, recwarn):
    model = codec.load(folder.name)
    sound = torch.from_numpy(voice(0, 1.0))[None, None]
    codes = model.encode(sound, torch.tensor([16_000]))
    assert codes.shape == (1, 1, 50) and not recwarn.list
    decoded = model.decode(codes)
    assert decoded.shape == sound.shape
    loudness = [float(each.square().mean().sqrt()) for each in (sound, decoded)]
    assert loudness[0] / 3 < loudness[1] < loudness[0] * 3


def test_a_codec_that_does_not_ship_says_how_to_get_one(monkeypatch, tmp_path):
    monkeypatch.setattr(codec, "SHIPPED", tmp_path)
    with pytest.raises(ValueError, match="no weights of 'nano_24k' come with"):
        codec.load("nano_24k")

"""Tokens joined with their sound: encoding a segment again gives the codes that came with it."""

import json
import tarfile

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pipeline.clips import IndexedClips
from pipeline.dataset import TokenDataset
from pipeline.index import Selection, build_index
from pipeline.output import Output
from pipeline.tokenize import Settings, tokenize_unit
from pipeline.tokens.audio import AudioView
from tests.toys import ToyCodec, noise, stored


def tokenized(folder, codec, seconds, form="parquet", **settings):
    """Clips of these lengths in a tar, their tokens, and the clips as indexed."""
    (folder / "in").mkdir()
    with tarfile.open(folder / "in" / "clips.tar", "w") as archive:
        for i, length in enumerate(seconds):
            path = folder / f"clip{i}.{('wav', 'flac')[i % 2]}"
            path.write_bytes(stored(noise(length, 22_050, seed=i), 22_050, path.suffix[1:]))
            archive.add(path, path.name)
    index = build_index("folder", [str(folder / "in")], str(folder / "out"), Selection(), 1 << 30)
    for unit in index.units:
        tokenize_unit(unit, codec, Output(str(folder / "out"), form), Settings(**settings))
    return str(folder / "out"), IndexedClips("folder", index)


@pytest.mark.parametrize(
    ("codec", "form", "settings"),
    [
        (ToyCodec(), "parquet", {}),
        (ToyCodec(num_codebooks=2), "webdataset", {}),
        (ToyCodec(), "parquet", {"split_seconds": 1.0}),
    ],
    ids=["parquet", "webdataset, two codebooks", "pieces of clips"],
)
def test_a_segment_encodes_to_the_codes_that_came_with_it(codec, form, settings, tmp_path):
    out, clips = tokenized(tmp_path, codec, [0.3, 0.9, 1.3, 2.0, 3.1, 2.6], form, **settings)
    view = AudioView([clips], codec.spec, seconds=0.8, target=True)
    starts = set()
    dataset = TokenDataset(out, 4, steps=12, view=view)
    first = next(iter(dataset))  # here, before the workers
    for item in DataLoader(dataset, batch_size=None, num_workers=2):
        assert item["step"] or torch.equal(item["waveform"], first["waveform"])
        assert item["waveform"].shape == (4, 1, 12_800) and item["waveform"].dtype == torch.float32
        assert item["codes"].shape == (4, codec.spec.num_codebooks, 40) and item["codes"].dtype == torch.int64
        assert item["target"].shape == (4, 1, 19_200)
        for row in range(4):
            frames, samples = int(item["num_frames"][row]), int(item["num_samples"][row])
            assert frames == min(40, samples // 320)
            again = codec.encode(item["waveform"][row : row + 1, :, :samples], torch.tensor([samples]))
            assert torch.equal(again[0, :, :frames], item["codes"][row, :, :frames].to(torch.int32))
            assert not item["codes"][row, :, frames:].any() and not item["waveform"][row, :, samples:].any()
            starts.add((item["keys"][row], int(item["codes"][row, 0, 0])))
    assert len(starts) > 10  # other places of a clip at other times


def test_the_target_is_the_same_stretch_at_the_output_rate(tmp_path):
    codec = ToyCodec()
    out, clips = tokenized(tmp_path, codec, [2.0] * 4)
    for item in TokenDataset(out, 2, view=AudioView([clips], codec.spec, seconds=1.0, target=True)):
        low, high = (np.abs(np.fft.rfft(item[name][0, 0].numpy())) for name in ("waveform", "target"))
        # a second of each: bin = hertz
        assert np.corrcoef(low[100:6000] * 1.5, high[100:6000])[0, 1] > 0.999


def test_sound_that_is_gone_or_another_is_a_broken_row(tmp_path):
    codec = ToyCodec()
    out, clips = tokenized(tmp_path, codec, [1.0] * 8)
    view = AudioView([clips], codec.spec, seconds=0.5)
    data = bytearray((tmp_path / "in" / "clips.tar").read_bytes())
    place = data.index(b"clip3.flac") + 512
    data[place : place + 100] = bytes(100)
    (tmp_path / "in" / "clips.tar").write_bytes(data)
    items = list(TokenDataset(out, 4, view=view))
    keys = {key for item in items for key in item["keys"]}
    fillers = sum(int(item["filler"].sum()) for item in items)
    assert fillers == 1 and keys == {f"folder_clip{i}_{('wav', 'flac')[i % 2]}" for i in range(8) if i != 3}
    shorter = [json.loads(line) for line in ['{"seconds": 0.07}', '{"seconds": 0}']]
    for given in shorter:
        with pytest.raises(ValueError, match="whole frames of 320 samples"):
            AudioView([clips], codec.spec, **given)

"""Training on Ray: two workers give the weights of one process."""

from pathlib import Path

import torch

from jobs import train
from jobs.options import parse
from jobs.training import checkpoints
from jobs.training.options import TrainOptions
from tests.training_toys import voice, wav

ROOT = Path(__file__).parents[1]
FLAGS = ("--recipe", "nano", "--steps", "3", "--crop-seconds", "0.2", "--batch-size", "2", "--adversarial-after", "1")
FLAGS += ("--peak-rate", "1e-5", "--device", "cpu", "--workers", "0", "--log-every", "1")


def test_two_ray_workers_give_the_weights_of_one_process(tmp_path, monkeypatch):
    for i in range(5):
        (tmp_path / f"clip{i}.wav").write_bytes(wav(voice(i, 0.4)))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for Ray's processes, which begin in the folder below
    monkeypatch.chdir(tmp_path)
    inputs = ("--input", "*.wav")
    alone, on_ray = Path("alone"), Path("on_ray")
    assert train.train(parse(TrainOptions, [*FLAGS, *inputs, "--output", str(alone)], "test", ""), lambda: False)
    flags = ["--output", str(on_ray), "--ray-workers", "2", "--ray-address", "local"]
    assert train.main([*FLAGS, *inputs, *flags]) == 0
    wanted, found = (checkpoints.load(checkpoints.find(str(folder)))[0] for folder in (alone, on_ray))
    assert wanted.keys() == found.keys()
    for name in wanted:
        if "optimizer" not in name:
            assert torch.allclose(wanted[name], found[name], rtol=1e-3, atol=1e-5), name

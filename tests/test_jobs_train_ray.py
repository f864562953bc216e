"""Training on Ray: two workers give the weights of one process, and what they die of is told in a line."""

from pathlib import Path

import pytest
import ray
import torch
from ray.train import WorkerGroupError

from jobs import train
from jobs.options import parse
from jobs.training import checkpoints
from jobs.training.loop import NotFiniteError
from jobs.training.on_ray import reason
from jobs.training.options import TrainOptions
from jobs.training.ranks import RanksFailed
from tests.training_toys import voice, wav

ROOT = Path(__file__).parents[1]
FLAGS = ("--recipe", "nano", "--steps", "3", "--crop-seconds", "0.2", "--batch-size", "2", "--adversarial-after", "1")
FLAGS += ("--peak-rate", "1e-5", "--device", "cpu", "--workers", "0", "--log-every", "1")


@pytest.fixture(autouse=True, scope="module")
def leave_no_ray():
    yield
    ray.shutdown()


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


def test_a_cluster_that_does_not_answer_is_told_with_its_own_flag(tmp_path, capsys):
    flags = ["--input", "x", "--output", str(tmp_path), "--ray-workers", "1", "--ray-address", "127.0.0.1:1"]
    assert train.main([*FLAGS, *flags]) == 2
    assert (
        "no Ray cluster answers at 127.0.0.1:1" in (said := capsys.readouterr().err) and "correct --ray-address" in said
    )


def test_what_ranks_die_of_is_the_refusal_of_one_of_them():
    lost, refused = RuntimeError("connection closed by peer\nand where"), ValueError("--input matches nothing")
    assert reason(WorkerGroupError("long", {0: lost, 1: refused})) is refused
    diverged = NotFiniteError("a loss is not finite")
    assert reason(WorkerGroupError("long", {0: lost, 1: diverged})) is diverged
    told = reason(WorkerGroupError("long", {0: lost}))
    assert isinstance(told, RanksFailed) and str(told) == "ranks died, the last of: connection closed by peer"


class FailingTrainer:
    """Ray Train's, as far as it fails: with one error after the other, and then not."""

    def __init__(self, *args, **options):
        assert options["run_config"].failure_config.max_failures == 0

    def fit(self):
        if self.errors:
            raise WorkerGroupError("long", {0: self.errors.pop(0)})


@pytest.mark.parametrize(
    ("errors", "left", "said"),
    [
        ([RuntimeError("killed")] * 3, 0, "killed; starting again from the latest checkpoint"),
        ([RuntimeError("killed")] * 5, 1, "killed; run it again to go on from the latest checkpoint"),
        ([RuntimeError("killed"), ValueError("--input matches nothing"), RuntimeError()], 1, "matches nothing"),
        ([NotFiniteError("a loss is not finite"), RuntimeError()], 1, "not finite"),
    ],
)
def test_ranks_that_died_start_again_and_ranks_that_refuse_do_not(errors, left, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ray.train.torch.TorchTrainer", FailingTrainer)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 2})
    monkeypatch.setattr("jobs.training.on_ray.connect", lambda *_: None)
    monkeypatch.setattr("jobs.training.on_ray.reached", lambda _: True)
    monkeypatch.setattr(FailingTrainer, "errors", errors, raising=False)
    code = train.main([*FLAGS, "--input", "x", "--output", str(tmp_path), "--ray-workers", "2"])
    assert len(errors) == left and said in capsys.readouterr().err
    assert (code == 0) is (left == 0)

"""What a run trains on and listens to: corpora by their index, and the clips of a validation."""

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.clips import UNIT_BYTES, Clip, decoded
from jobs.training.options import TrainOptions
from jobs.training.ranks import Ranks
from pipeline import storage
from pipeline.clips import IndexedClips
from pipeline.corpora import CORPORA
from pipeline.index import Selection, build_index
from schemas.audio import Reject

SHORTEST_SECONDS = 0.5  # of a clip for validation: what STOI and PESQ can judge, and a picture show


@dataclass(frozen=True, slots=True)
class Data:
    """Datasets and their weights; without weights a dataset counts by its rows."""

    clips: tuple[IndexedClips, ...]
    weights: tuple[float, ...] | None


def open_data(options: TrainOptions, ranks: Ranks) -> Data:
    """The corpora of `--input`, indexed below the output by rank 0 and read by all.

    Raises: ValueError for an unknown corpus, inputs without clips, or weights of corpora that are not there.
    """
    inputs = by_corpus(options.input, options.corpus)
    weights = mixture(options.mixture, list(inputs))
    if ranks.rank == 0:
        index(options, inputs, "index-training")
    ranks.wait()
    return Data(index(options, inputs, "index-training"), weights)


def open_validation(options: TrainOptions, sample_rate: int) -> list[Clip]:
    """The first `--validation-clips` clips that can be measured, at `sample_rate`. Raises: ValueError if none can."""
    found: list[Clip] = []
    for clips in index(options, by_corpus(options.validation, options.corpus), "index-validation", everything=True):
        for row in range(len(clips.rows)):
            if len(found) == options.validation_clips:
                return found
            clip = decoded(clips, row, sample_rate)
            if not isinstance(clip, Reject) and len(clip.waveform) >= SHORTEST_SECONDS * sample_rate:
                found.append(clip)
    if not found:
        raise ValueError(
            f"no clip of --validation can be read and has {SHORTEST_SECONDS} s: {' '.join(options.validation)}"
        )
    return found


def index(
    options: TrainOptions, inputs: dict[str, list[str]], folder: str, everything: bool = False
) -> tuple[IndexedClips, ...]:
    """Each corpus's clips; its index lies in a folder of the output, and is used again while nothing changed."""
    selection = Selection() if everything else Selection(options.split, options.language)
    return tuple(
        IndexedClips(
            corpus, build_index(corpus, paths, storage.join(options.output, folder, corpus), selection, UNIT_BYTES)
        )
        for corpus, paths in inputs.items()
    )


def by_corpus(inputs: Sequence[str], corpus: str) -> dict[str, list[str]]:
    """Paths of each corpus: `mls=s3://…` names its own, any other belongs to `corpus`."""
    found: dict[str, list[str]] = {}
    for each in inputs:
        name, equals, path = each.partition("=")
        if not equals or name not in CORPORA:
            name, path = corpus, each
        found.setdefault(name, []).append(path)
    return found


def mixture(shares: Sequence[str], corpora: Sequence[str]) -> tuple[float, ...] | None:
    """The weight of each corpus, in order. Raises: ValueError unless all of them have one, or none."""
    if not shares:
        return None
    weights = {}
    for share in shares:
        name, _, value = share.partition("=")
        try:
            weights[name] = float(value)
        except ValueError:
            raise ValueError(f"--mixture takes CORPUS=WEIGHT, got {share!r}") from None
    if set(weights) != set(corpora):
        raise ValueError(
            f"--mixture must weigh exactly the corpora given: {', '.join(corpora)}; got {', '.join(weights)}"
        )
    return tuple(weights[name] for name in corpora)

"""Train any recipe over the stream: `neutok train --recipe nano --input 'speech/*.tar' --output out/nano`.

In this process; under `torchrun --nproc-per-node N -m jobs.train ...`; or on a Ray cluster with `--ray-workers N`, also
by `ray job submit`. A run found at --output goes on from its latest checkpoint; SIGTERM saves one and ends with code 4
(on Ray, what came after the latest one is done again).
"""

import sys
from collections.abc import Callable, Sequence

from jobs.cluster import Stop
from jobs.corpus import check_lasting, check_writable, wrong_options
from jobs.options import COMPLETE, INCOMPLETE, parse, usage_error
from jobs.training.loop import NotFiniteError
from jobs.training.options import TrainOptions
from jobs.training.ranks import RanksFailed, join

PROG = "neutok train"


def main(argv: Sequence[str] | None = None) -> int:
    try:
        with wrong_options():
            options = parse(TrainOptions, argv, PROG, __doc__ or "")
            check_lasting(options.output)
            check_writable(options.output)
        if options.ray_workers:
            from jobs.training.on_ray import train_on_ray

            return COMPLETE if train_on_ray(options) else INCOMPLETE
        stop = Stop()
        stop.install()
        return COMPLETE if train(options, lambda: stop.requested) else INCOMPLETE
    except ValueError as error:
        return usage_error(PROG, error)
    except (NotFiniteError, RanksFailed) as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return INCOMPLETE


def train(options: TrainOptions, stopping: Callable[[], bool]) -> bool:
    """One rank's part of a run, from its options to the exported codec. Returns: whether the last step was reached.

    Raises: UsageError before the first step for what cannot be trained as asked; NotFiniteError.
    """
    from codec.training.step import module_hashes
    from jobs.training.setup import export, peak_memory, set_up, shape_of
    from pipeline.crops import crops

    with wrong_options():
        ranks = join(options.device)
        run, data = set_up(options, ranks)
    if options.hashes and ranks.rank == 0:
        before = module_hashes(run.generator.parts())
    steps = range(run.position.step, run.recipe.steps)
    stream = crops(run.order, data.clips, shape_of(run.recipe), steps, ranks.rank, ranks.world, options.workers)
    done = run.train(stream, stopping)
    if ranks.rank == 0:
        run.generator.eval()
        export(run.generator.codec, options.output + "/codec")
        peak = " ".join(f"{name} {value:.2f} GiB" for name, value in peak_memory(ranks.device).items())
        print(f"{'done' if done else 'stopped'} at step {run.position.step}; peak {peak}")
        if options.hashes:
            for name, after in module_hashes(run.generator.parts()).items():
                print(f"  {name:20} {before[name]} -> {after} {'changed' if after != before[name] else 'unchanged'}")
        if run.log:
            run.log.close()
    return done


if __name__ == "__main__":
    sys.exit(main())

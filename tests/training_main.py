"""`neutok train` with the tests' tiny recipes; `NEUTOK_TEST_SIGNAL=9@13` sends itself signal 9 before step 13."""

import os
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from codec.training.recipes import RECIPES  # noqa: E402
from jobs import train  # noqa: E402
from jobs.training.loop import Run  # noqa: E402
from tests.training_toys import TINY, TINY_DISTILL, TINY_TEACHER  # noqa: E402

if __name__ == "__main__":
    RECIPES.update({recipe.name: recipe for recipe in (TINY, TINY_TEACHER, TINY_DISTILL)})
    number, _, step = os.environ.get("NEUTOK_TEST_SIGNAL", "").partition("@")
    one = Run.one

    def signalled(run, batch):
        if step and batch.step == int(step):
            os.kill(os.getpid(), int(number))
        return one(run, batch)

    Run.one = signalled
    sys.exit(train.main())

"""The driver's loop: actors on every free slot, two units in hand for each, results and failures as they come.

It keeps nothing that matters: the sidecars of finished units are the only state, so it may die at any moment.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
import torch
from ray.exceptions import ObjectLostError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jobs.backlog import Backlog
from jobs.causes import cause
from jobs.cluster import Slot, Stop, slots
from jobs.feeding import Feeding
from jobs.reporter import Reporter
from jobs.worker import ALLOCATOR, Ready, Task, Tokenizer
from schemas.manifest import ShardInfo, WorkUnit
from schemas.spec import CodecSpec

IN_FLIGHT = 2  # units per actor: the one at work and the next
POLL_SECONDS = 3.0  # how often the cluster is looked at
STATUS_SECONDS = 5.0
WARN_SECONDS = 300.0  # without a sign of life of an actor, then it is said
PATIENCE = 25  # failures in a row, of whichever units, that mean it is not the units


class CannotStart(Exception):
    """No actor can load the codec as asked, or not for this output."""


class Hopeless(Exception):
    """Everything fails."""


@dataclass(slots=True, eq=False)
class Worker:
    """One actor as the driver sees it."""

    slot: Slot
    actor: Any
    moved: float  # when it was last seen to get on with something
    ready: Ready | None = None
    pulse: tuple[float, int] = (0.0, 0)
    slow: bool = False  # that it stands still has been said
    units: dict[str, tuple[WorkUnit, float]] = field(default_factory=dict)  # in hand, and since when
    alone: bool = False  # holds a suspect, and gets nothing beside it

    @property
    def free(self) -> bool:
        return self.ready is not None and not self.alone and len(self.units) < IN_FLIGHT

    def alive(self) -> None:
        """It has got on with something, just now."""
        self.moved, self.slow = time.monotonic(), False

    def standing_still(self) -> str:
        if self.ready is None:
            return "has been starting (its cores or GPU may be lent to others, or weights are being fetched)"
        return f"has shown no progress over {', '.join(self.units)}"


@dataclass(frozen=True, slots=True)
class Call:
    """What an answer will be about."""

    kind: str  # "load", "unit" or "pulse"
    worker: Worker
    unit: WorkUnit | None = None


class Driver:
    """Hands out units until none is left or someone says stop."""

    def __init__(
        self,
        task: Task,
        units: Sequence[WorkUnit],
        attempts: int,
        gpus_per_actor: float,
        max_actors: int | None,
        reporter: Reporter,
        stop: Stop,
        stall_seconds: float = math.inf,
    ) -> None:
        self.task, self.gpus_per_actor, self.max_actors = task, gpus_per_actor, max_actors
        self.stall_seconds = stall_seconds
        self.reporter, self.progress, self.log = reporter, reporter.progress, reporter.log
        self.stop = stop
        self.admit: Callable[[CodecSpec], None] = lambda spec: None
        self.backlog = Backlog((unit for unit in units if not unit.sequential), attempts)
        self.feeding = Feeding([unit for unit in units if unit.sequential], self.backlog, reporter.say)
        self.workers: dict[str, Worker] = {}
        self.calls: dict[ray.ObjectRef, Call] = {}
        self.spec: CodecSpec | None = None
        self.labels: list[str] = []  # of the slots there are now
        self.failed_starts: Counter[str] = Counter()  # by slot, since its last success
        self.not_before: dict[str, float] = {}
        self.next_poll = self.next_status = 0.0
        self.warned_waiting = False

    def run(self, admit: Callable[[CodecSpec], None]) -> None:
        """Until nothing is left. Even with nothing to do a codec is loaded, so that a wrong one is refused.

        Args: admit: called once, with the first codec loaded and before the first unit; raises ValueError to refuse.
        Raises: CannotStart, Hopeless.
        """
        self.admit = admit
        try:
            while (self.backlog.open or self.spec is None) and not self.stop.requested:
                self.populate()
                self.feeding.step(len(self.workers))
                self.hand_out()
                self.feel_pulses()
                self.wait()
                self.end_the_stalled()
                self.reporter.tick()
        finally:
            for worker in list(self.workers.values()):
                ray.kill(worker.actor)
            self.feeding.close()

    def populate(self) -> None:
        """An actor for every slot that has none."""
        now = time.monotonic()
        if now < self.next_poll:
            return
        self.next_poll = now + POLL_SECONDS
        found = slots(ray.nodes(), self.gpus_per_actor, self.max_actors)
        self.labels = [slot.label for slot in found]
        for slot in found:
            if slot.label not in self.workers and now >= self.not_before.get(slot.label, 0.0):
                self.start(slot)
        if not found and not self.workers and not self.warned_waiting:
            self.reporter.say("no node has a free GPU or CPU now; waiting for one to join")
            self.warned_waiting = True

    def start(self, slot: Slot) -> None:
        where = NodeAffinitySchedulingStrategy(node_id=slot.node, soft=False)
        # calls of an actor: two units, its seconds, its loading; each waits in a thread of its own
        options = {"num_cpus": 0 if slot.num_gpus else 1, "num_gpus": slot.num_gpus, "max_concurrency": IN_FLIGHT + 2}
        if not slot.num_gpus:
            options["runtime_env"] = {"env_vars": ALLOCATOR}
        tokenizer = ray.remote(Tokenizer).options(scheduling_strategy=where, max_restarts=0, **options)
        actor = tokenizer.remote(self.task, use_gpu=slot.num_gpus > 0, threads=slot.threads)
        worker = self.workers[slot.label] = Worker(slot, actor, time.monotonic())
        self.calls[actor.load.remote()] = Call("load", worker)

    def hand_out(self) -> None:
        for depth in range(IN_FLIGHT):  # one for everybody before a second for anybody
            for worker in self.workers.values():
                if worker.free and len(worker.units) == depth:
                    self.give(worker)

    def give(self, worker: Worker) -> None:
        idle = not worker.units
        fed = self.feeding.take(idle)
        unit, files = fed if fed else (self.backlog.take(idle), None)
        if unit is None:
            return
        if idle:
            worker.alive()
        worker.units[unit.name] = (unit, time.monotonic())
        worker.alone = self.backlog.is_suspect(unit)
        self.calls[worker.actor.tokenize.remote(unit, files)] = Call("unit", worker, unit)

    def feel_pulses(self) -> None:
        now = time.monotonic()
        if now < self.next_status:
            return
        self.next_status = now + STATUS_SECONDS
        asked = {id(call.worker) for call in self.calls.values() if call.kind == "pulse"}
        for worker in self.workers.values():
            if worker.ready and id(worker) not in asked:
                self.calls[worker.actor.pulse.remote()] = Call("pulse", worker)

    def end_the_stalled(self) -> None:
        """An actor that neither reads nor encodes nor answers would hold its units for ever: say so, at last end it.

        Its units fail as those of one that died. One that still loads is only spoken of: weights may be long to fetch.
        """
        for worker in list(self.workers.values()):
            still = time.monotonic() - worker.moved
            if worker.ready is not None and worker.units and still > self.stall_seconds:
                label, names = worker.slot.label, ", ".join(worker.units)
                self.log.write("actor_stalled", actor=label, units=list(worker.units), seconds=still)
                self.bury(worker, f"has stood still for {still / 60:.0f} min over {names} and is ended")
            elif still > WARN_SECONDS and not worker.slow and (worker.units or worker.ready is None):
                worker.slow = True
                self.reporter.say(f"{worker.slot.label} {worker.standing_still()} for {still / 60:.0f} min")

    def wait(self) -> None:
        refs = list(self.calls) + self.feeding.refs
        if not refs:
            time.sleep(0.2)
            return
        ready, _ = ray.wait(refs, num_returns=1, timeout=0.5)
        if ready:  # whatever else has come meanwhile
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        for ref in ready:
            if ref in self.calls:
                self.settle(self.calls.pop(ref), ref)

    def settle(self, call: Call, ref: ray.ObjectRef) -> None:
        try:
            answer = ray.get(ref)
        except RayError as error:
            self.failure(call, error)
            return
        if call.kind == "load":
            self.loaded(call.worker, answer)
        elif call.kind == "pulse":
            if answer != call.worker.pulse:
                call.worker.pulse = answer
                call.worker.alive()
            self.progress.encoded_by(call.worker.slot.label, answer[0])
        else:
            assert call.unit is not None
            self.finished(call.worker, call.unit, answer)

    def loaded(self, worker: Worker, ready: Ready) -> None:
        if self.spec is None:
            try:
                self.admit(ready.spec)
            except ValueError as error:
                raise CannotStart(str(error)) from error
            self.spec = ready.spec
        if ready.spec != self.spec:
            raise CannotStart(
                f"{worker.slot.label} loaded {ready.spec.name} {ready.spec.revision[:12]}, the others "
                f"{self.spec.name} {self.spec.revision[:12]}; give every node the same weights"
            )
        worker.ready = ready
        worker.alive()
        self.failed_starts.pop(worker.slot.label, None)
        self.progress.join(worker.slot.label)
        self.log.write(
            "actor", actor=worker.slot.label, host=ready.host, device=ready.device, pid=ready.pid, torch=ready.torch
        )

    def finished(self, worker: Worker, unit: WorkUnit, info: ShardInfo) -> None:
        _, since = worker.units.pop(unit.name)
        worker.alone = False
        worker.alive()
        self.backlog.done(unit)
        self.progress.finish(info, worker.slot.label)
        taken = time.monotonic() - since
        attempt = self.backlog.failures[unit.name] + 1
        self.log.write(
            "unit", unit=unit.name, actor=worker.slot.label, seconds=info.seconds, wall=taken, attempt=attempt
        )

    def failure(self, call: Call, error: RayError) -> None:
        worker, died = call.worker, not isinstance(error, RayTaskError | ObjectLostError)
        # what a GPU has once refused in this way it refuses its process for good
        lost = isinstance(error, RayTaskError) and isinstance(error.cause, torch.AcceleratorError)
        if (died or lost) and self.workers.get(worker.slot.label) is worker:
            self.bury(worker, "has lost its GPU and is started anew" if lost else "died")
        if call.kind == "load":
            self.failed_start(worker, error)
        elif call.unit is not None:
            worker.units.pop(call.unit.name, None)
            worker.alone = False
            self.unit_failed(worker, call.unit, error)

    def bury(self, worker: Worker, how: str = "died") -> None:
        """The actor is dead or out of reach; its units come back one by one as their calls fail."""
        del self.workers[worker.slot.label]
        ray.kill(worker.actor)  # out of reach may still be alive
        self.progress.leave(worker.slot.label)
        self.next_poll = 0.0
        if worker.ready and not self.stop.requested:
            self.reporter.say(f"{worker.slot.label} {how}; its units go back to the queue")
            self.log.write("actor_died", actor=worker.slot.label, host=worker.ready.host)

    def failed_start(self, worker: Worker, error: RayError) -> None:
        label = worker.slot.label
        if self.workers.get(label) is worker:
            self.bury(worker)
        gone = worker.slot.node not in {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        if gone:
            return
        self.failed_starts[label] += 1
        wrong = isinstance(error, RayTaskError)  # an error of the codec's own: the same every time
        self.not_before[label] = time.monotonic() + min(300.0, 5.0 * 2 ** self.failed_starts[label])
        self.log.write("actor_failed", actor=label, error=str(error))
        tries = 1 if wrong else 3
        if self.spec is None and all(self.failed_starts[each] >= tries for each in self.labels):
            raise CannotStart(cause(error)) from error
        self.reporter.say(f"{label} could not load the codec: {cause(error)}")

    def unit_failed(self, worker: Worker, unit: WorkUnit, error: RayError) -> None:
        again = self.backlog.failed(unit, cause(error))
        self.log.write("unit_failed", unit=unit.name, actor=worker.slot.label, error=str(error), again=again)
        if isinstance(error, RayTaskError) or not again:
            then = "it will be tried again" if again else f"given up after {self.backlog.attempts} attempts"
            self.reporter.say(f"unit {unit.name} failed: {cause(error)}; {then}")
        if again:
            self.feeding.again(unit) if unit.sequential else self.backlog.give_back(unit)
        if self.backlog.is_hopeless(max(PATIENCE, 4 * len(self.workers))):
            raise Hopeless(f"{self.backlog.in_a_row} failures in a row, the last: {cause(error)}")

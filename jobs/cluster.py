"""The machines: joining or starting Ray, and where an actor can sit."""

import logging
import os
import signal
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

# How a Ray that we start ourselves behaves; a cluster keeps its own rules. It reads these when it starts.
OF_OUR_OWN = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",  # it must not kill an actor because other programs fill the memory
    # Its processes must leave the cores to the codec: each moment they take from one thread, all others wait for it.
    "RAY_prestart_worker_first_driver": "0",  # no idle workers, which wake 100 times a second
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",  # for a dashboard that there is not
    "REPORTER_UPDATE_INTERVAL_MS": "60000",  # of 5000: the machine's load, for the dashboard too
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",  # look for new logs twice a second instead of ten times
}


def connect(address: str | None, flag: str = "--address") -> None:
    """Join the cluster at `address`, given by `flag`; "local" starts one of our own, whatever there is.

    Without an address Ray takes that of RAY_ADDRESS (a submitted job has it); else of the cluster that `ray start` last
    began on this machine, until `ray stop`; and where there is none, it starts one of our own.
    Raises: OSError if nobody answers at the address, and ValueError for what is none.
    """
    check_answers(address or os.environ.get("RAY_ADDRESS", ""), flag)
    for name, value in OF_OUR_OWN.items():
        os.environ.setdefault(name, value)
    import ray

    ray.init(address=address, include_dashboard=False, logging_level=logging.ERROR)


def check_answers(address: str, flag: str) -> None:
    """Ray itself would try for minutes. Raises: OSError if `address` is host:port and nobody listens there."""
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise OSError(
            f"no Ray cluster answers at {address} ({error}); start one with `ray start --head`, correct {flag} or "
            f"RAY_ADDRESS, or give `{flag} local`"
        ) from error


class Stop:
    """SIGTERM and Ctrl-C become a wish that the driver looks at; what is committed is whole at any moment.

    `install` goes after `ray.init`, which sets a handler of its own. Signals that come again change nothing.
    """

    def __init__(self) -> None:
        self.requested = False

    def install(self) -> None:
        signal.signal(signal.SIGTERM, self)
        signal.signal(signal.SIGINT, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.requested = True


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for one actor: a GPU, a part of one, or all cores of a node that has none."""

    node: str  # Ray's id of the node
    label: str  # host and number, for people
    num_gpus: float
    threads: int  # cores for this actor: its share of the node's


def slots(nodes: Iterable[Mapping[str, Any]], gpus_per_actor: float, actors: int | None) -> list[Slot]:
    """Where actors may sit in a cluster of `nodes` (as `ray.nodes()` lists them), at most `actors` in all.

    One per GPU (or per part of one) where the cluster has GPUs; else one per node, or `actors` spread over the nodes'
    cores. A node without CPUs, as a head node is often started, gets none.
    """
    alive = sorted((n for n in nodes if n["Alive"]), key=lambda n: (n["NodeManagerHostname"], n["NodeID"]))
    gpus = {n["NodeID"]: int(n["Resources"].get("GPU", 0)) for n in alive}
    cores = {n["NodeID"]: int(n["Resources"].get("CPU", 0)) for n in alive}
    if any(gpus.values()):
        places = {node: int(count / gpus_per_actor + 1e-6) for node, count in gpus.items()}
    else:
        gpus_per_actor = 0.0
        places = {
            node: min(count, 1 if actors is None else spread(actors, len(alive))) for node, count in cores.items()
        }
    hosts = [n["NodeManagerHostname"] for n in alive]
    found = []
    for turn in range(max(places.values(), default=0)):  # turn by turn, so that `actors` cuts evenly over the nodes
        for n in alive:
            node, host = n["NodeID"], n["NodeManagerHostname"]
            if turn < places[node]:
                name = host if hosts.count(host) == 1 else f"{host}-{node[:4]}"
                threads = max(1, cores[node] // places[node])
                found.append(Slot(node, f"{name}:{turn}", gpus_per_actor, threads))
    return found if actors is None else found[:actors]


def spread(actors: int, nodes: int) -> int:
    """Actors per node, rounded up."""
    return -(-actors // max(1, nodes))

"""A Ray cluster of two nodes on this machine, made to be killed: its actors, and one node whole."""

import contextlib
import os
import random
import secrets
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import psutil

ACTORS = ("ray::Tokenizer", "ray::Feeder")
OBJECT_STORE_BYTES = 200 << 20


class TwoNodes:
    """One node that stays and one that can be lost; one core each, so one actor each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": OBJECT_STORE_BYTES}
        self.node = node
        self.cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        self.second: Any = self.cluster.add_node(**node)

    @property
    def address(self) -> str:
        return self.cluster.address

    def kill_actor(self, rng: random.Random) -> str | None:
        """SIGKILL one actor, of either kind and on either node. Returns: its name, or None if there is none now."""
        found = [process for process in psutil.process_iter(["name", "cmdline"]) if self.is_actor(process)]
        if not found:
            return None
        victim = rng.choice(sorted(found, key=lambda process: process.pid))
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
        return victim.info["cmdline"][0]

    def is_actor(self, process: psutil.Process) -> bool:
        """Whether it is an actor of ours and of this cluster: others may run on the machine."""
        title = (process.info["cmdline"] or [""])[0]
        if not title.startswith(ACTORS):
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            return any(parent.pid in self.raylets() for parent in process.parents())
        return False

    def raylets(self) -> set[int]:
        nodes = [self.cluster.head_node, self.second]
        return {process.process.pid for node in nodes for process in node.all_processes.get("raylet", ())}

    def kill_node(self) -> None:
        """SIGKILL everything of the second node at once, as a machine is lost; then another joins."""
        raylet = psutil.Process(self.second.all_processes["raylet"][0].process.pid)
        for process in (*raylet.children(recursive=True), raylet):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.cluster.remove_node(self.second, allow_graceful=False)
        self.second = self.cluster.add_node(**self.node)

    def close(self) -> None:
        self.cluster.shutdown()


@contextlib.contextmanager
def private_ray() -> Iterator[None]:
    """Ray's files and token in places of their own, so that no other cluster of this machine is met or disturbed."""
    with tempfile.TemporaryDirectory(prefix="nk-", ignore_cleanup_errors=True) as folder:  # sockets want short paths
        wanted = {"RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0", "RAY_memory_monitor_refresh_ms": "0"}
        if "ray" not in sys.modules:
            wanted |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        elif "RAY_AUTH_MODE" not in os.environ:  # it was read when ray was imported: too late for a token
            wanted |= {"RAY_AUTH_MODE": "disabled"}
        before = {name: os.environ.get(name) for name in (*wanted, "RAY_ADDRESS")}
        os.environ.update(wanted)
        os.environ.pop("RAY_ADDRESS", None)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value

"""`ray job submit` as the README says it: token on, code travels, data stays, the exit code is ours."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent

ASK = """
import json, sys
from ray.job_submission import JobSubmissionClient
client = JobSubmissionClient()
for entrypoint in sys.argv[2:]:
    client.submit_job(entrypoint=entrypoint, submission_id="other", runtime_env={"working_dir": sys.argv[1]})
print(json.dumps({job.submission_id: [job.status, job.driver_exit_code] for job in client.list_jobs()}))
"""


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A started cluster with a home of its own: (environment of a user who has the token, address, Ray's folder)."""
    folder = Path(os.path.realpath(tmp_path_factory.mktemp("r")))
    ray_folder = Path("/tmp") / f"nk-{os.getpid()}"
    home = folder / "home"
    home.mkdir()
    port, dashboard = free_ports(2)
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {"HOME": str(home), "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": str(ray_folder)}
    env |= {"PATH": f"{BIN}:{env['PATH']}", "RAY_ADDRESS": f"http://127.0.0.1:{dashboard}"}
    subprocess.run([BIN / "ray", "get-auth-token", "--generate"], env=env, check=True, capture_output=True)
    assert (home / ".ray" / "auth_token").exists()
    start = f"start --head --block --num-cpus=2 --port={port} --dashboard-port={dashboard} --temp-dir={ray_folder}/ray"
    start += " --node-ip-address=127.0.0.1 --dashboard-host=127.0.0.1 --object-store-memory=200000000"
    with (folder / "head.log").open("w") as log:
        head = subprocess.Popen([BIN / "ray", *start.split()], env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(lambda: status(env["RAY_ADDRESS"]) is not None, (folder / "head.log").read_text)
        yield env, env["RAY_ADDRESS"], ray_folder
    finally:
        processes = [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        head.wait()
        subprocess.run(["rm", "-rf", str(ray_folder)], check=True)


def status(address, token=None):
    """The HTTP status of the list of jobs; None while nobody answers."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(f"{address}/api/jobs/", headers=headers), timeout=10
        ) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def wait_for(done, explain, seconds=120):
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.3)


def ask(env, *entrypoints):
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(ROOT), *entrypoints], env=env, capture_output=True, text=True, cwd=env["HOME"]
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_request_without_the_token_is_refused(cluster, tmp_path):
    env, address, _ = cluster
    assert status(address) == 401
    assert status(address, "0" * 64) in (401, 403)
    assert status(address, (Path(env["HOME"]) / ".ray" / "auth_token").read_text().strip()) == 200
    stranger = {**env, "HOME": str(tmp_path)}
    command = ["ray", "job", "submit", "--no-wait", "--", "true"]
    refused = subprocess.run([BIN / command[0], *command[1:]], env=stranger, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "token" in refused.stderr + refused.stdout
    assert ask(env) == {}


def test_a_submitted_job_makes_the_shards_and_its_exit_code_is_ours(cluster, tmp_path):
    env, _, ray_folder = cluster
    tokenize = "python -m jobs.tokenize --corpus folder --input pipeline/sample --codec null --output"
    submit = f"ray job submit --submission-id first --working-dir . -- {tokenize} {tmp_path}/out"
    first = subprocess.Popen(
        submit.split(), env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    ask(env, f"{tokenize} {tmp_path}/strict --max-seconds 1 --max-reject-share 0.2")
    shown, _ = first.communicate(timeout=240)
    assert first.returncode == 0, shown
    assert "12 rows of 12 clips" in shown
    assert len(list((tmp_path / "out" / "data").iterdir())) == 1
    wait_for(lambda: ask(env)["other"][0] in ("FAILED", "SUCCEEDED", "STOPPED"), lambda: shown)
    assert ask(env) == {"first": ["SUCCEEDED", 0], "other": ["FAILED", 3]}
    assert (tmp_path / "strict" / "manifest.json").exists()
    (package,) = ray_folder.glob("ray/session_2*/runtime_resources/working_dir_files/_ray_pkg_*/")
    assert {"jobs", "pipeline"} <= {path.name for path in package.iterdir()}
    assert not {".venv", ".git", "out"} & {path.name for path in package.iterdir()}
    assert sum(path.stat().st_size for path in package.rglob("*")) < 50 << 20

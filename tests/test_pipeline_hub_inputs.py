"""Corpora and tokens on the Hub, read through `hf://` from a server on loopback that speaks its protocol."""

import json
import shutil
import subprocess
import sys

from huggingface_hub import HfApi, constants

from tests.hub_repos import StandInHub
from tests.publish_trial import REPO, ROOT, environment
from tests.stand_in_hub import TOKEN, serving
from tests.token_toys import write_set

SAMPLE = ROOT / "pipeline" / "sample"

PROGRAM = """
import json, sys
from pipeline.dataset import TokenDataset
from pipeline.index import Selection, build_index
from pipeline.stream import read_unit

repo, out, tokens = sys.argv[1:]
index = build_index("folder", [f"hf://datasets/{repo}/speech"], out, Selection(), 1 << 20)
clips = {item.utterance.source: len(item.data) for unit in index.units for item in read_unit(unit)}
sets = [TokenDataset(at, 16, cache=f"{out}/{at[:2]}") for at in (tokens, f"hf://datasets/{repo}/tokens")]
near, far = ({row["__key__"]: row["codes"].tolist() for batch in set for row in batch.rows()} for set in sets)
print(json.dumps({"clips": clips, "rows": len(far), "same": near == far}))
"""


def test_hf_urls_are_read_like_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    shutil.copytree(SAMPLE, tmp_path / "up" / "speech")
    tokens = write_set(tmp_path / "up" / "tokens", [230, 51])
    with serving(StandInHub(tmp_path / "hub")) as hub:
        api = HfApi(endpoint=hub.url, token=TOKEN)
        api.create_repo(REPO, repo_type="dataset")
        api.upload_folder(repo_id=REPO, repo_type="dataset", folder_path=str(tmp_path / "up"))
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM, REPO, str(tmp_path / "out"), str(tokens)],
            cwd=ROOT,
            env=environment(hub, tmp_path / "home"),
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["same"] and found["rows"] == 281
    sounds = [file for file in sorted(SAMPLE.iterdir()) if file.suffix not in (".md", ".jsonl")]
    assert found["clips"] == {file.name: file.stat().st_size for file in sounds}

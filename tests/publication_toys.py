"""Outputs published into a folder by the real command, for tests that read what lies there."""

from pathlib import Path

import pyarrow.parquet as pq
import yaml

from jobs import publish as job
from tests import output_toys


def mixed_output(folder):
    """Two corpora, two languages, two licences, two splits, and rows without text or language."""
    rows = output_toys.records(
        60,
        corpus="mls",
        language=lambda row: ["en", "de"][row % 2],
        text=lambda row: None if row % 5 == 0 else f" Sentence {row}.\n",
        split=lambda row: ["train", "dev-clean"][row % 3 == 0],
    )
    more = output_toys.records(30, seed=1, corpus="hui", license="CC0-1.0", language=None)
    return output_toys.write_output(folder, {"a": rows, "b": more}, ["too_long", "unreadable"])


def publish(output, target, *options):
    return job.main([str(output), "--to", str(target), *options])


def read(folder, pattern="data/*/*.parquet"):
    """Rows of all published files that match, with the config they were found in."""
    return [
        {**row, "config": path.parent.name, "file": path.name}
        for path in sorted(Path(folder).glob(pattern))
        for row in pq.read_table(path).to_pylist()
    ]


def tree(folder):
    """Every published file's bytes."""
    paths = (path for path in Path(folder).rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(paths)}


def card(folder):
    text = (folder / "README.md").read_text()
    return yaml.safe_load(text.split("---\n")[1]), text

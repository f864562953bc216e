"""The bench of the token stream runs, gives every row, and says what it took."""

import json

from jobs.benches.stream import main


def test_the_bench_counts_every_row_and_token(capsys):
    assert main(["--tokens", "300000", "--readers", "neutok,neutok_packed", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert 300_000 <= results["neutok"]["tokens"] < 302_000
    assert results["neutok_packed"]["tokens"] >= results["neutok"]["tokens"]  # each row has an end beside its codes
    assert all(result["seconds"] > 0 for result in results.values())


def test_a_reader_that_is_not_installed_is_told_and_the_others_run(capsys):
    assert main(["--tokens", "50000", "--readers", "litdata", "--peers-python", "/nowhere/python"]) == 4
    assert "litdata does not run here" in capsys.readouterr().err

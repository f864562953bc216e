"""The arrows of the house: schemas <- codec <- pipeline <- jobs, and what each room may lean on."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "schemas": {"schemas", "numpy", "pyarrow"},
    "codec": {"schemas", "codec", "numpy", "torch", "safetensors", "huggingface_hub", "triton", "pesq", "pystoi"},
    "pipeline": {"schemas", "codec", "pipeline", "numpy", "pyarrow", "torch", "torchaudio", "soundfile", "av", "fsspec"}
    | {"huggingface_hub", "yaml"},
}


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_it_may(room):
    for path in (ROOT / room).rglob("*.py"):
        assert imports(path) <= MAY_IMPORT[room], f"{path.relative_to(ROOT)} imports {imports(path) - MAY_IMPORT[room]}"


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_may_import_no_more_than_it_does(room):
    assert MAY_IMPORT[room] <= set().union(*(imports(path) for path in (ROOT / room).rglob("*.py")))


def test_every_file_opens_with_a_sentence():
    for room in ("schemas", "codec", "pipeline", "jobs", "tests"):
        for path in (ROOT / room).rglob("*.py"):
            assert ast.get_docstring(ast.parse(path.read_text())), f"{path.relative_to(ROOT)} has no docstring"

"""Dataclasses become flags: types, defaults, choices, lists, and what is refused."""

import subprocess
import sys
from dataclasses import dataclass
from typing import Literal

import pytest

from jobs.__main__ import COMMANDS, main
from jobs.options import as_flags, option, parse


@dataclass(frozen=True)
class Toy:
    input: tuple[str, ...] = option("what to read")
    name: str = option("a name, 100% free", "x")
    limit: int | None = option("how many", None)
    share: float = option("how much", 0.5)
    language: tuple[str, ...] = option("which", (), separator=",")
    kind: Literal["a", "b"] = option("one of two", "a")
    dry_run: bool = option("do nothing", False)
    aloud: bool = option("say it", True)
    colours: tuple[str, ...] = option("of what", ("red", "blue"), separator=",")
    pages: tuple[int, ...] = option("and where", (3, 5))


def toy(*argv):
    return parse(Toy, argv, "toy", "a toy")


def test_defaults_stay_when_no_flag_is_given():
    assert toy("--input", "p") == Toy(("p",), "x", None, 0.5, (), "a", False)


def test_lists_take_several_values_several_flags_and_separators():
    assert toy("--input", "p", "q", "--input", "r,s").input == ("p", "q", "r,s")
    assert toy("--input", "p", "--language", "de,fr", "--language", "nl").language == ("de", "fr", "nl")


def test_flags_have_the_type_of_their_field():
    got = toy("--input", "p", "--limit", "3", "--share", "1e-3", "--kind", "b", "--dry-run")
    assert (got.limit, got.share, got.kind, got.dry_run) == (3, 1e-3, "b", True)
    assert not toy("--input", "p", "--no-dry-run").dry_run


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("--input",),
        ("--input", "p", "--limit", "many"),
        ("--input", "p", "--kind", "c"),
        ("--input", "p", "--nam", "y"),
    ],
)
def test_wrong_flags_end_with_code_2(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        toy(*argv)
    assert stopped.value.code == 2
    assert "--" in capsys.readouterr().err


def test_options_become_the_flags_they_are_made_of():
    argv = ["--input", "p", "q r", "--limit", "3", "--language", "de", "fr", "--dry-run"]
    assert as_flags(toy(*argv)) == argv and as_flags(toy("--input", "p")) == ["--input", "p"]


def test_help_names_every_field_with_its_line_and_default(capsys):
    with pytest.raises(SystemExit):
        toy("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "--dry-run" in shown and "100% free" in shown and "(default: 0.5)" in shown
    assert "say it (default: yes)" in shown and "do nothing (default" not in shown
    assert "of what (default: red,blue)" in shown and "and where (default: 3 5)" in shown


def test_an_unknown_command_lists_the_known(capsys):
    assert main(["tokenise"]) == 2
    shown = capsys.readouterr().err
    assert all(name in shown for name in COMMANDS)


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from jobs.__main__ import main\n"
        "for command in ([], ['tokenize'], ['index'], ['bench']):\n"
        "    try: main([*command, '--help'])\n"
        "    except SystemExit: pass\n"
        "print(sorted({'ray', 'torch', 'pyarrow', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"

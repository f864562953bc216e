"""A frozen dataclass becomes command-line flags: each field is one flag, its metadata one line of help."""

import argparse
import os
import sys
import types
from collections.abc import Sequence
from dataclasses import MISSING, Field, asdict, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

COMPLETE, USAGE, OVER_REJECTS, INCOMPLETE = 0, 2, 3, 4
"""The exit codes of every job; those that compare end with 1, as Python does of an error, where they find a difference
that must not be."""


WRONG = (ValueError, OSError, NotImplementedError)
"""What the checks before any work raise about what was asked for: a job says it in one line and ends with USAGE."""


class UsageError(ValueError):
    """What was asked for cannot be done as asked; ends a job with exit code 2, before any work."""


def option(
    help: str,
    default: Any = MISSING,
    *,
    separator: str | None = None,
    metavar: str | None = None,
    written: bool = False,
) -> Any:
    """A field of an options dataclass. Without a default the flag is required.

    `separator` splits each value of a tuple field, as in `--language de,fr`; a tuple flag may also be given twice or
    take several values. `written` is a file that is written when the work is done, and must be fit for it before.
    """
    metadata = {"help": help, "separator": separator, "metavar": metavar, "written": written}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


def parse(cls: type[T], argv: Sequence[str] | None, prog: str, description: str) -> T:
    """An instance of `cls` from `argv` (default: this process's own). Wrong flags end the process with code 2."""
    return from_namespace(cls, parser_of(cls, prog, description).parse_args(argv))


def parser_of(cls: type, prog: str, description: str) -> argparse.ArgumentParser:
    """The parser of `cls`, for a job that adds something of its own."""
    parser = argparse.ArgumentParser(prog=prog, description=description, allow_abbrev=False)
    hints = get_type_hints(cls)
    for each in fields(cls):
        parser.add_argument("--" + each.name.replace("_", "-"), dest=each.name, **argument(each, hints[each.name]))
    return parser


def from_namespace(cls: type[T], parsed: argparse.Namespace) -> T:
    """The dataclass of parsed flags; lists become tuples, split where the field says so."""
    values = {}
    for each in fields(cls):
        value = getattr(parsed, each.name)
        if isinstance(value, list):
            separator = each.metadata.get("separator")
            value = tuple(part for item in value for part in (item.split(separator) if separator else [item]) if part)
        values[each.name] = value
    return cls(**values)


def argument(each: Field, hint: Any) -> dict[str, Any]:
    """What argparse is to know of one field."""
    required = each.default is MISSING and each.default_factory is MISSING
    default = None if required else each.default if each.default is not MISSING else each.default_factory()
    help_text = each.metadata.get("help", "").replace("%", "%%")
    if not required:
        help_text += shown(default, each.metadata.get("separator"))
    known: dict[str, Any] = {"help": help_text, "required": required, "default": default}
    kind = bare(hint)
    if kind is bool:
        return {**known, "action": argparse.BooleanOptionalAction}
    if each.metadata.get("metavar"):
        known["metavar"] = each.metadata["metavar"]
    if get_origin(kind) in (tuple, list):
        # `Extend` and not "extend": a given flag replaces the default instead of adding to it
        return {**known, "nargs": "+", "action": Extend, "type": scalar(get_args(kind)[0])}
    if get_origin(kind) is Literal:
        return {**known, "choices": get_args(kind), "type": type(get_args(kind)[0])}
    return {**known, "type": writable if each.metadata.get("written") else scalar(kind)}


def shown(default: Any, separator: str | None) -> str:
    """A default as the help tells it, the way it would be given; nothing of one that asks for nothing."""
    if default is None or default is False or default == ():
        return ""
    if default is True:
        return " (default: yes)"
    told = (separator or " ").join(map(str, default)) if isinstance(default, tuple) else str(default)
    return f" (default: {told})".replace("%", "%%")


class Extend(argparse.Action):
    """Values of a flag given once or several times, as one list."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*(before if isinstance(before, list) else []), *values])


def bare(hint: Any) -> Any:
    """The type without its Optional."""
    if get_origin(hint) in (Union, types.UnionType):
        inner = [arg for arg in get_args(hint) if arg is not type(None)]
        assert len(inner) == 1, f"an option has one type, or one type and None; got {hint}"
        return inner[0]
    return hint


def scalar(kind: Any) -> type:
    assert kind in (str, int, float), f"an option is a str, int, float, bool, Literal or tuple of one; got {kind}"
    return kind


def writable(path: str) -> str:
    """The path of a file that can be written. Raises: argparse.ArgumentTypeError."""
    folder = Path(path).parent
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"{path}: there is no folder {folder}; make it, or name a file elsewhere")
    if Path(path).is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder; name a file in it")
    if not os.access(path if Path(path).exists() else folder, os.W_OK):
        raise argparse.ArgumentTypeError(f"{path} cannot be written; name a file elsewhere")
    return path


def usage_error(prog: str, error: object) -> int:
    """Say what was wrong with what was asked; returns the exit code of usage errors."""
    print(f"{prog}: error: {error}", file=sys.stderr)
    return USAGE


def as_json(options: Any) -> dict[str, Any]:
    """What was chosen, to be kept beside what it produced."""
    return asdict(options)


def as_flags(options: Any) -> list[str]:
    """The flags that `parse` makes these options of; what has its default is left out."""
    flags: list[str] = []
    for each in fields(options):
        value, flag = getattr(options, each.name), each.name.replace("_", "-")
        if value is None or value == each.default:
            continue
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            flags += [f"--{flag}", *map(str, value if isinstance(value, tuple) else [value])]
    return flags

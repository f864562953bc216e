"""A table of commands, each imported only when it is called, so that asking for help costs nothing."""

import importlib
import sys
from collections.abc import Mapping, Sequence

from jobs.options import USAGE


def dispatch(prog: str, commands: Mapping[str, tuple[str, str]], argv: Sequence[str]) -> int:
    """Run `commands[argv[0]]`, a (module, line of help), by that module's `main(argv[1:]) -> exit code`."""
    name = argv[0] if argv else "--help"
    if name in ("-h", "--help", "help"):
        print(f"usage: {prog} COMMAND [--help] ...\n\n{table(commands)}")
        return 0 if argv else USAGE
    if name not in commands:
        print(f"{prog}: unknown command {name!r}; known:\n\n{table(commands)}", file=sys.stderr)
        return USAGE
    return importlib.import_module(commands[name][0]).main(list(argv[1:]))


def table(commands: Mapping[str, tuple[str, str]]) -> str:
    width = max(map(len, commands))
    return "\n".join(f"  {name:<{width}}  {line}" for name, (_, line) in commands.items())

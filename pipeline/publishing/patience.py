"""Doing a call over the network again until it works, waiting longer each time, and telling without telling secrets."""

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

SECRETS = (
    (re.compile(r"\b(hf|api)_[A-Za-z0-9]{8,}"), r"\1_…"),
    (re.compile(r"(?i)\b(X-Amz-[A-Za-z-]+|Signature|AWSAccessKeyId|token|secret|password)=[^&\s'\"]+"), r"\1=…"),
    (re.compile(r"(?i)(authorization\W+)(bearer\s+)?[^\s'\",}]+"), r"\1…"),
    (re.compile(r"://[^/@\s]+@"), "://…@"),
)


@dataclass(frozen=True, slots=True)
class Patience:
    """`tries` calls in all; waits double from `first_wait` to `longest_wait` seconds, or are what the server asks."""

    tries: int = 10
    first_wait: float = 2.0
    longest_wait: float = 120.0

    def keep_trying(
        self,
        call: Callable[[], T],
        what: str,
        is_final: Callable[[Exception], bool],
        asked_wait: Callable[[Exception], float | None] = lambda error: None,
        is_done: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = print,
    ) -> T | None:
        """`call()` until it returns. After a failure `is_done` is asked first: the work may have been done, and only
        the answer lost; then None is returned. Raises: what `is_final` calls final, or the last error."""
        for attempt in range(1, self.tries + 1):
            try:
                return call()
            except Exception as error:
                if is_final(error) or attempt == self.tries:
                    raise
                asked = asked_wait(error)
                wait = min(self.first_wait * 2 ** (attempt - 1), self.longest_wait) if asked is None else asked
                reason = redact(f"{type(error).__name__}: {error}").splitlines()[0][:200]
                say(f"{what} failed ({reason}); trying again in {wait:.0f} s")
                time.sleep(wait)
                if attempt < self.tries and is_done():
                    say(f"{what}: it had been done, only the answer was lost")
                    return None
        raise AssertionError("unreachable")


def redact(text: str) -> str:
    """The text without what opens doors: tokens, signatures, passwords in addresses."""
    for pattern, shown in SECRETS:
        text = pattern.sub(shown, text)
    return text


class RedactingFilter(logging.Filter):
    """For a handler: every record it writes is redacted, whoever wrote it."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), ()
        return True

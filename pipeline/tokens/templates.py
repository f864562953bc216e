"""Templates: how a row becomes the ids a language model learns. Pure functions of the row, each with a content hash.

ids = prompt (from the row's labels) + one id for each code + end
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


class Template(Protocol):
    """What a token stream asks of a template."""

    hash: str  # changes whenever any row could give other ids
    columns: tuple[str, ...]  # of the row, beside `codes`, that the prompt is made of
    speech: np.ndarray  # int32 [codebook size]: the id of each code
    end: np.ndarray  # int32: ids after the last code
    splits: bool  # whether a row too long for a sequence may be cut anywhere

    def prompts(self, columns: Mapping[str, Sequence[Any]]) -> list[np.ndarray | None]:
        """The ids before the speech, for many rows at once; None for a row that the template does not take."""
        ...


@dataclass(frozen=True)
class Plain:
    """Speech alone: `base + code`, then `end`."""

    base: int = 0
    end_id: int | None = None
    codebook_size: int = 65_536
    columns: tuple[str, ...] = ()
    splits: bool = True

    @property
    def hash(self) -> str:
        return digest("plain", self.base, self.end_id, self.codebook_size)

    @property
    def speech(self) -> np.ndarray:
        return np.arange(self.base, self.base + self.codebook_size, dtype=np.int32)

    @property
    def end(self) -> np.ndarray:
        return np.array([] if self.end_id is None else [self.end_id], np.int32)

    def prompts(self, columns: Mapping[str, Sequence[Any]]) -> list[np.ndarray | None]:
        raise AssertionError("a template without columns has no prompts")


class Prompted:
    """A text prompt around speech tokens that are in a tokenizer's own vocabulary.

    Args: tokenizer: of `transformers`; it must know `token.format(n)` for each code n, and every special token of the
    prompt. frame: what stands before the text, between text and speech, and after the speech. columns: what `texts`
    reads; it makes the texts as prompted, None for a row to leave out. version: of `texts`, for the hash.
    Raises: ValueError for a token that the tokenizer does not know as one.
    """

    splits = False  # half a sentence under the whole prompt would teach the wrong thing

    def __init__(
        self,
        tokenizer: Any,
        frame: tuple[str, str, str],
        token: str,
        columns: tuple[str, ...],
        texts: Callable[[Mapping[str, Sequence[Any]]], list[str | None]],
        version: str,
        codebook_size: int = 65_536,
    ) -> None:
        self.tokenizer, self.frame, self.columns, self.texts = tokenizer, frame, columns, texts
        names = [token.format(n) for n in range(codebook_size)]
        specials = sorted({special for part in frame for special in re.findall(r"<\|[^|]*\|>", part)})
        vocabulary = tokenizer.get_vocab()
        if missing := [name for name in [*specials, *names] if name not in vocabulary]:
            raise ValueError(
                f"the tokenizer lacks {len(missing)} tokens of the prompt, {missing[0]} first; "
                "add them with tokenizer.add_tokens and resize the model's embedding"
            )
        self.speech = np.array([vocabulary[name] for name in names], np.int32)
        if len(np.unique(self.speech)) < codebook_size:
            raise ValueError("several speech tokens have the same id in this tokenizer")
        self.end = np.array(self._ids([frame[2]])[0], np.int32)
        self.hash = digest("prompted", frame, token, columns, version, codebook_size, tokenizer_hash(tokenizer))

    def prompts(self, columns: Mapping[str, Sequence[Any]]) -> list[np.ndarray | None]:
        texts = self.texts(columns)
        ids = iter(self._ids([self.frame[0] + text + self.frame[1] for text in texts if text is not None]))
        return [None if text is None else np.array(next(ids), np.int32) for text in texts]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []


def neutts(
    tokenizer: Any,
    phones: str | Callable[[Sequence[str]], Sequence[str]] = "phones",
    version: str | None = None,
    keeps: Callable[[str], bool] | None = None,
) -> Prompted:
    """The prompt that NeuTTS is fine-tuned with. Rows without phonemes are left out.

    Args: phones: the column of each row's phonemes, or a function that makes them of many texts; then `version` says
    which function, such as "espeak-ng 1.52 en-us". keeps: which texts to train on, such as `neutts_keeps`.
    Raises: ValueError for a function without a version, or tokens that the tokenizer lacks.
    """
    if callable(phones) and version is None:
        raise ValueError("phones is a function: say which by version=..., such as 'espeak-ng 1.52 en-us'")
    frame = (
        "user: Convert the text to speech:<|TEXT_PROMPT_START|>",
        "<|TEXT_PROMPT_END|>\nassistant:<|SPEECH_GENERATION_START|>",
        "<|SPEECH_GENERATION_END|>",
    )
    columns = ("text",) if callable(phones) else ("phones", "text") if keeps else ("phones",)
    if isinstance(phones, str):
        columns = (phones, *columns[1:])
    said = f"{version} {keeps.__qualname__ if keeps else ''}"
    return Prompted(tokenizer, frame, "<|speech_{}|>", columns, Phones(phones, keeps), said)


@dataclass(frozen=True)
class Phones:
    """The phonemes of rows, their white space made single; None where there are none, or `keeps` refuses the text."""

    phones: str | Callable[[Sequence[str]], Sequence[str]]
    keeps: Callable[[str], bool] | None

    def __call__(self, columns: Mapping[str, Sequence[Any]]) -> list[str | None]:
        count = len(next(iter(columns.values())))
        texts = [(text or "").strip() for text in columns["text"]] if "text" in columns else [""] * count
        kept = [self.keeps is None or self.keeps(text) for text in texts]
        if isinstance(self.phones, str):
            found = columns[self.phones]
        else:
            spoken = [i for i, text in enumerate(texts) if kept[i] and text]
            made = dict(zip(spoken, self.phones([texts[i] for i in spoken]), strict=True)) if spoken else {}
            found = [made.get(i) for i in range(count)]
        spaced = [" ".join((phones or "").split()) for phones in found]
        return [phones if phones and keep else None for phones, keep in zip(spaced, kept, strict=True)]


ABBREVIATION = re.compile(r"([A-Za-z]\.){2}|[A-Z]{2}")  # U.S., or two capitals in a row


def neutts_keeps(text: str) -> bool:
    """Whether NeuTTS fine-tuning takes a row: a whole sentence without digits, acronyms or money."""
    return (
        bool(text)
        and text[-1] in ".,?!"
        and not any(char in "£$" or re.match(r"\d", char) for char in text)
        and not ABBREVIATION.search(text)
    )


def llasa(tokenizer: Any) -> Prompted:
    """The form that Llasa trains on: the text as written, then speech tokens `<|s_N|>`. Rows need a text."""
    frame = (
        "<|TEXT_UNDERSTANDING_START|>",
        "<|TEXT_UNDERSTANDING_END|><|SPEECH_GENERATION_START|>",
        "<|SPEECH_GENERATION_END|>",
    )
    return Prompted(tokenizer, frame, "<|s_{}|>", ("text",), stripped, "stripped")


def stripped(columns: Mapping[str, Sequence[Any]]) -> list[str | None]:
    return [(text or "").strip() or None for text in columns["text"]]


def tokenizer_hash(tokenizer: Any) -> str:
    """Of what a tokenizer does to a text: its vocabulary, merges, normalizer; not of truncation or padding."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return digest(type(tokenizer).__name__, sorted(tokenizer.get_vocab().items()))
    content = json.loads(backend.to_str())
    return digest({key: value for key, value in content.items() if key not in ("truncation", "padding")})


def digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

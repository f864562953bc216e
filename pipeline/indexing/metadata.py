"""Tables of labels that people write themselves: CSV, TSV or JSONL, with or without a header."""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from pipeline.indexing.labels import Labels, name_of, number_of, read_json, to_json
from pipeline.sources import text_lines

TABLES = tuple(f"{base}.{ending}" for base in ("metadata", "manifest") for ending in ("jsonl", "csv", "tsv"))
FIELDS = {
    "file": ("file_name", "file", "filename", "audio_file", "audio_filepath", "audio", "wav", "path", "id"),
    "text": ("text", "transcript", "transcription", "sentence", "normalized_text", "text_normalized"),
    "speaker": ("speaker", "speaker_id", "spk", "client_id"),
    "language": ("language", "lang", "locale"),
    "license": ("license", "licence"),
    "recording": ("recording", "recording_id", "book_id", "chapter_id"),
    "split": ("split",),
    "seconds": ("duration", "duration_s", "seconds", "audio_duration"),
}
KNOWN = {name for names in FIELDS.values() for name in names}


def labels_from(fields: Mapping[str, Any]) -> Labels:
    """Labels by the usual names of columns: the first that says something is taken, the rest is `extra`, as strings."""
    left = dict(fields)

    def take(field: str) -> str | None:
        name = next((name for name in FIELDS[field] if name_of(left.get(name))), None)
        return name_of(left.pop(name)) if name else None

    said = {field: take(field) for field in ("text", "speaker", "language", "license", "recording", "split")}
    seconds = number_of(take("seconds"))
    return Labels(**said, seconds=seconds, extra={name: as_text(value) for name, value in left.items() if name})


def as_text(value: Any) -> str | None:
    if isinstance(value, dict | list):
        return to_json({"": value})[4:-1]
    return json.dumps(value) if isinstance(value, bool) else name_of(value)


def read_table(name: str, file: BinaryIO, problems: Counter[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file as the table names it, its other fields) line by line; lines that say no file are counted."""
    lines = text_lines(file)
    rows = json_rows(lines) if name.endswith(".jsonl") else cell_rows(lines, name.endswith(".tsv"))
    try:
        for fields in rows:
            named = next((field for field in FIELDS["file"] if fields and file_of(fields.get(field))), None)
            if fields is None or named is None:
                problems[f"line of {name} that names no file"] += 1
            else:
                yield file_of(fields.pop(named)) or "", fields
    except csv.Error:
        problems[f"{name} breaks off: its quotes do not match"] += 1


def file_of(value: Any) -> str | None:
    return name_of(value.get("path")) if isinstance(value, dict) else name_of(value)


def json_rows(lines: Iterator[str]) -> Iterator[dict[str, Any] | None]:
    return (read_json(line) for line in lines if line.strip())


def cell_rows(lines: Iterator[str], tabs: bool) -> Iterator[dict[str, Any] | None]:
    """Rows of a CSV or TSV. Without a header it is LJSpeech's: file, text, and a second form of the text."""
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        return
    delimiter, header = dialect(first, tabs)
    quoting = csv.QUOTE_MINIMAL if delimiter in ",;" else csv.QUOTE_NONE  # LJSpeech has single quotes in its text
    names = header or ["file", "text", "normalized_text"]
    if not header:
        yield from rows_of([first], names, delimiter, quoting)
    yield from rows_of(lines, names, delimiter, quoting)


def rows_of(lines: Any, names: list[str], delimiter: str, quoting: int) -> Iterator[dict[str, Any] | None]:
    for cells in csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, quoting=quoting):
        if cells:
            whole = len(cells) > 1 or len(names) == 1
            yield dict(zip(names, (cell.strip() for cell in cells), strict=False)) if whole else None


def dialect(line: str, tabs: bool) -> tuple[str, list[str] | None]:
    """The delimiter, and the names of the columns if the line is a header."""
    for delimiter in "\t" if tabs else ",\t|;":
        names = [cell.strip().strip('"').lower() for cell in line.split(delimiter)]
        if len(names) > 1 and len(KNOWN & set(names)) > 1 and set(FIELDS["file"]) & set(names):
            return delimiter, names
    if line.strip().strip('"').lower() in FIELDS["file"]:
        return ",", [line.strip().strip('"').lower()]
    return "\t" if tabs else "|" if "|" in line else "\t" if "\t" in line else ",", None

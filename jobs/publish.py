"""Finished token outputs as one dataset on the Hub, or in any folder: `neutok publish out --repo-id ORG/NAME`."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any, Literal

from jobs.options import COMPLETE, INCOMPLETE, from_namespace, option, parser_of, usage_error
from pipeline import storage
from pipeline.corpora import CORPORA
from pipeline.publishing.card_header import Credit
from pipeline.publishing.hub import OURS, HubRepo, push
from pipeline.publishing.licenses import refusals
from pipeline.publishing.mirror import mirror
from pipeline.publishing.patience import Patience, RedactingFilter, redact
from pipeline.publishing.publication import Plan, make_plan, read_outputs
from pipeline.publishing.staging import Staged, Wording, open_staging, stage
from pipeline.sinks import SINKS
from schemas.manifest import ShardManifest

PROG = "neutok publish"
OF_THE_HUB = ("private", "revision", "tag")  # flags that no folder or store knows
OF_SENDING = ("staging", "stage_only", "tries", "retry_seconds")  # flags without meaning where nothing is sent


@dataclass(frozen=True)
class Options:
    repo_id: str | None = option("dataset repository on the Hub, ORG/NAME", None)
    to: str | None = option("instead of the Hub: a folder, or any URL fsspec writes to, as s3://bucket/path", None)
    license: str | None = option("SPDX identifier for rows that name no licence of their own", None, metavar="ID")
    allow: tuple[str, ...] = option("refusals to lift, by the names they are told with", (), metavar="NAME")
    title: str | None = option("heading of the card", None)
    weights: str | None = option("what readers are to give codec.load, if not the published weights", None)
    format: Literal["parquet", "webdataset"] = option("what the published files are", "parquet")
    neutts: bool = option("add the configs of three columns that NeuTTS fine-tuning reads", True)
    file_mb: float = option("size of a file to aim at, in million bytes", 256.0)
    private: bool = option("create the repository as a private one", False)
    revision: str = option("branch to publish on", "main")
    tag: str | None = option("tag to set in the end; named after the data if not given", None)
    replace: bool = option("delete or overwrite files of another publication that lies there", False)
    staging: str | None = option("local folder for the files to be sent; inside DIR if not given", None)
    stage_only: bool = option("write the files to the staging folder, and send nothing", False)
    workers: int = option("files written at a time", 2)
    tries: int = option("how often a call that fails is made, in all", 10)
    retry_seconds: float = option("wait after a failed call; doubles each time", 2.0)


def main(argv: Sequence[str] | None = None) -> int:
    parser = parser_of(Options, PROG, "Publish finished token outputs as a dataset, on the Hub or in a folder.")
    parser.add_argument(
        "outputs", nargs="+", metavar="DIR", help="folder of a finished output; several make one dataset"
    )
    parsed = parser.parse_args(argv)
    options = from_namespace(Options, parsed)
    for handler in logging.getLogger("huggingface_hub").handlers + logging.getLogger().handlers:
        handler.addFilter(RedactingFilter())  # its warnings quote addresses, signatures and all
    try:
        check(options)
        folder, in_place = staging_folder(parsed.outputs, options)
        check_apart(parsed.outputs, [str(folder), options.to or str(folder)])
        plan, manifests = prepare(parsed.outputs, options)
        open_staging(folder, plan.id, may_clear=options.replace or not in_place)
        staged = stage(plan, manifests, folder, wording(options), options.workers, say)
    except (ValueError, FileNotFoundError) as error:
        return usage_error(PROG, redact(str(error)))
    except OSError as error:
        return broken_off(error)
    if options.stage_only or in_place:
        say(f"{len(staged.files)} files in {folder}")
        return COMPLETE
    return send(staged, folder, options)


def say(line: str) -> None:
    print(line, flush=True)


def check(options: Options) -> None:
    """Raises: ValueError unless the options name one place to publish to, and fit it."""
    if bool(options.repo_id) == bool(options.to):
        raise ValueError("name one place to publish to: --repo-id ORG/NAME, or --to FOLDER_OR_URL")
    if options.repo_id and options.repo_id.count("/") != 1:
        raise ValueError(f"--repo-id must be ORG/NAME, got {options.repo_id!r}")
    for name in ("workers", "tries", "file_mb"):
        if not (given := getattr(options, name)) > 0:
            raise ValueError(f"{flag(name)} must be above 0, got {given}")
    if not options.retry_seconds >= 0:
        raise ValueError(f"--retry-seconds must not be below 0, got {options.retry_seconds}")
    check_place(options)


def check_place(options: Options) -> None:
    """Raises: ValueError for what is asked for and has no meaning at the place published to."""
    defaults = {each.name: each.default for each in fields(Options)}
    given = [name for name, default in defaults.items() if getattr(options, name) != default]
    for name in OF_THE_HUB if options.to else ():
        if name in given:
            raise ValueError(f"{flag(name)} is for the Hub, got --to {redact(options.to or '')}; leave it out")
    for name in OF_SENDING if is_in_place(options) else ():
        if name in given:
            raise ValueError(
                f"{flag(name)} is for what is sent, got --to {options.to}, written where it lies; leave it out"
            )


def is_in_place(options: Options) -> bool:
    """Whether the files are written where they are published, and nothing is sent."""
    return bool(options.to) and storage.is_local(storage.plain(options.to))


def check_apart(outputs: Sequence[str], places: Sequence[str]) -> None:
    """Raises: ValueError if publishing at one of the places would write or delete among the shards to be published."""
    for output, place, name in product(outputs, places, OURS):
        (store, shards), (other_store, ours) = locate(output, "data/"), locate(place, name)
        if store == other_store and (shards.startswith(ours) or ours.startswith(shards)):
            raise ValueError(
                f"{output} is to be published, and publishing to {place} would write and delete among its shards; name "
                "a place beside it"
            )


def locate(path: str, folder: str) -> tuple[Any, str]:
    """A folder below `path`: its filesystem and its name there, the same however the path is spelled."""
    path = storage.join(storage.plain(path), folder)
    store, inner = storage.filesystem(str(Path(path).resolve()) if storage.is_local(path) else path)
    return store, inner.rstrip("/") + "/"


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def prepare(outputs: Sequence[str], options: Options) -> tuple[Plan, list[ShardManifest]]:
    """The plan, if every row of it may be published. Raises: ValueError with each refusal."""
    codec, sources, manifests = read_outputs(outputs)
    twins = options.neutts and codec["num_codebooks"] == 1 and options.format == "parquet"
    plan = make_plan(codec, sources, options.license, options.file_mb, twins, SINKS[options.format].SUFFIX)
    if not plan.targets:
        raise ValueError(f"{', '.join(outputs)}: no rows to publish")
    refused = refusals(((group.corpus, group.license) for group in plan.groups), options.allow)
    if refused:
        raise ValueError("not published:\n  " + "\n  ".join(refused))
    return plan, manifests


def staging_folder(outputs: Sequence[str], options: Options) -> tuple[Path, bool]:
    """Where the files are written, and whether that is already where they are published."""
    if is_in_place(options):
        return Path(storage.plain(options.to or "")), True
    if options.staging:
        return Path(options.staging), False
    if not storage.is_local(storage.plain(outputs[0])):
        raise ValueError(f"{outputs[0]} is not on this machine; name a local folder with --staging")
    return Path(storage.plain(outputs[0])) / "publish", False


def wording(options: Options) -> Wording:
    title = options.title or (options.repo_id or storage.plain(options.to or "")).rpartition("/")[2]
    credits = {
        name: Credit(corpus.name, corpus.attribution, corpus.citation, corpus.url, corpus.notes)
        for name, corpus in CORPORA.items()
    }
    tag = options.tag if options.repo_id else ""
    return Wording(title, options.repo_id or storage.plain(options.to or ""), tag, options.weights, credits)


def send(staged: Staged, folder: Path, options: Options) -> int:
    """Send what the other side lacks, verify it; returns the exit code."""
    patience = Patience(options.tries, options.retry_seconds)
    try:
        if options.repo_id:
            if not sys.stderr.isatty():
                from huggingface_hub.utils import disable_progress_bars

                disable_progress_bars()
            repo = HubRepo(options.repo_id, options.revision, patience=patience, say=say)
            made = push(repo, folder, staged.files, staged.tag, options.private, options.replace)
            say(f"{options.repo_id}: {made} commits made, {len(staged.files)} files, tag {staged.tag}")
        else:
            sent = mirror(folder, staged.files, options.to or "", options.replace, patience, say)
            say(f"{redact(options.to or '')}: {sent} files sent, {len(staged.files)} in all")
    except ValueError as error:
        return usage_error(PROG, redact(str(error)))
    except Exception as error:  # whatever a network does: what was sent is there, another run goes on from it
        return broken_off(error)
    return COMPLETE


def broken_off(error: Exception) -> int:
    print(f"{PROG}: {redact(f'{type(error).__name__}: {error}')}", file=sys.stderr)
    print(f"{PROG}: run it again to go on from here", file=sys.stderr)
    return INCOMPLETE


if __name__ == "__main__":
    sys.exit(main())

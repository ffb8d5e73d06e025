"""The command `robust-models`."""

import argparse
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from robust_models.accuracy_check import labelled_images, measure
from robust_models.cache import place
from robust_models.cli_tables import as_json, describe, markdown, table
from robust_models.convert import convert
from robust_models.download import download
from robust_models.registry import Entry, get_entry, list_models
from robust_models.trust import trusted
from robust_models.verify import verify
from robust_models.zoo import build_transform, export, pretrained

DONE, FAILED, WRONG_USE = 0, 1, 2
_ENDINGS = re.compile(r"(\.(pth|pt|tar|ckpt|bin|pkl|safetensors))+$")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (None: those of the process) and return its exit code.

    0: done, and what was checked is in order; 1: it could not be done, or is not in order; 2: wrong arguments.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        with _told_on_stderr():
            code: int = given.run(given)
    except _UseError as error:
        _say(error)
        return WRONG_USE
    except BrokenPipeError:  # `robust-models list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        _say("interrupted; what was downloaded is kept, and the same command goes on from there")
        return FAILED
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        _say(error)
        return FAILED
    return code


class _UseError(Exception):
    """What the user gave is wrong."""


def _list(given: argparse.Namespace) -> int:
    try:
        entries = list_models(
            given.pattern,
            family=given.family,
            arch=given.arch,
            dataset=given.dataset,
            threat=given.threat,
            source=given.source,
            loadable=True if given.loadable else None,
            sort=given.sort,
        )
    except ValueError as error:
        raise _UseError(error) from error
    if given.json:
        _write(as_json(entries))
        return DONE
    _write(markdown(entries) if given.markdown else table(entries, given.sort))
    _say(f"{len(entries)} entries; numbers of different sources (see info) were measured by different protocols")
    return DONE


def _info(given: argparse.Namespace) -> int:
    entry = _entry(given.name)
    record = trusted(entry.name)
    file = place(entry)
    local = {
        "file": str(file),
        "downloaded": file.is_file(),
        "recorded_sha256": record.sha256 if record else None,
    }
    _write(json.dumps(json.loads(as_json(entry)) | local, indent=1) if given.json else describe(entry, local))
    return DONE


def _download(given: argparse.Namespace) -> int:
    for entry in [_entry(name) for name in given.names]:
        _write(str(_fetched(entry, given)))
    return DONE


def _verify(given: argparse.Namespace) -> int:
    chosen = [_entry(name) for name in given.names] or list_models(sort="name")
    code, counted = DONE, 0
    for entry in chosen:
        found = verify(entry)
        if found is None and given.names:
            _write(f"absent  {entry.name}: {place(entry)}")
            code = FAILED
        if found:
            counted += 1
            _write(
                f"bad     {found.name}: {found.problem}" if found.problem else f"ok      {found.name} {found.sha256}"
            )
            code = FAILED if found.problem else code
    if not counted and not given.names:
        _say("nothing is downloaded yet")
    return code


def _convert(given: argparse.Namespace) -> int:
    if Path(given.source).is_file():
        name, source = "", Path(given.source)
    else:
        entry = _entry(given.source)
        name, source = entry.name, _fetched(entry, given)
    target = given.target or source.with_name(f"{_ENDINGS.sub('', source.name)}.safetensors")
    if target.exists() and target.samefile(source):
        raise _UseError(f"{source} is a safetensors file already: name another target")
    made = convert(source, target, entry=name, ema=given.ema)
    _write(f"{made.path}: {made.tensors} tensors")
    return DONE


def _export(given: argparse.Namespace) -> int:
    entry = _entry(given.name)
    options = {"accept_license": given.accept_license, "allow_http": given.allow_http}
    sha256 = export(entry.name, given.target, ema=given.ema, **options)
    _write(f"{given.target}: sha256 {sha256}")
    return DONE


def _check(given: argparse.Namespace) -> int:
    entry = _entry(given.name)
    images = labelled_images(given.folder, entry.num_classes)
    options = {"accept_license": given.accept_license, "allow_http": given.allow_http}
    found = measure(
        pretrained(entry.name, device=given.device, **options),
        build_transform(entry),
        images,
        printed=entry.metrics.get("clean"),
        limit=given.images,
        batch_size=given.batch_size,
        seed=given.seed,
    )
    low, high = found.interval
    printed = (
        f"printed: {found.printed:.2f} % ({entry.metrics_source})" if found.printed is not None else "none printed"
    )
    verdict = {True: "agrees", False: "DIFFERS", None: "nothing to compare with"}[found.agrees]
    _write(
        f"{entry.name}: {found.measured:.2f} % of {found.images} images, 99 % interval {low:.2f} to {high:.2f} %; "
        f"{printed}: {verdict}"
    )
    return FAILED if found.agrees is False else DONE


def _entry(name: str) -> Entry:
    try:
        return get_entry(name)
    except ValueError as error:
        raise _UseError(error) from error


def _fetched(entry: Entry, given: argparse.Namespace) -> Path:
    return download(
        entry,
        accept_license=given.accept_license,
        allow_http=given.allow_http,
        retrust=given.retrust,
        progress=not given.quiet,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="robust-models",
        description="Published robust image classifiers: find, download, check and convert their weights.",
        epilog="Exit code: 0 done and in order, 1 failed or not in order, 2 wrong arguments.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('robust-models')}")
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(name: str, run: Any, description: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=description, description=f"{description}.", allow_abbrev=False)
        made.set_defaults(run=run)
        return made

    listing = command("list", _list, "list the entries of the zoo, the best first")
    listing.add_argument("pattern", nargs="?", default="*", help="of the name, e.g. 'light/*xcit*'")
    for name, text in (
        ("family", "e.g. robustbench"),
        ("arch", "e.g. 'resnet50*'"),
        ("dataset", "e.g. imagenet1k"),
        ("threat", "e.g. Linf, 'Linf 4/255', none"),
        ("source", "part of where the numbers were printed, e.g. RobustBench"),
    ):
        listing.add_argument(f"--{name}", help=text)
    listing.add_argument("--loadable", action="store_true", help="only those whose weights can be loaded")
    listing.add_argument("--sort", default="autoattack", metavar="METRIC", help="or name (default: %(default)s)")
    form = listing.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="write every field, as JSON")
    form.add_argument("--markdown", action="store_true", help="write a Markdown table, with sources and licences")

    info = command("info", _info, "tell everything about one entry")
    info.add_argument("name")
    info.add_argument("--json", action="store_true", help="write it as JSON")

    fetching = command("download", _download, "bring weights into the cache and write their paths")
    fetching.add_argument("names", nargs="+", metavar="name")
    _add_download_options(fetching)

    verifying = command("verify", _verify, "hash downloaded files again")
    verifying.add_argument("names", nargs="*", metavar="name", help="default: all that is in the cache")

    converting = command("convert", _convert, "write the tensors of a file as safetensors, without executing anything")
    converting.add_argument("source", help="a file, or the name of an entry")
    converting.add_argument("target", nargs="?", type=Path, help="default: beside the source, .safetensors")
    converting.add_argument("--ema", action="store_true", help="take the averaged weights")
    _add_download_options(converting)

    exporting = command("export", _export, "write the model of an entry, under our names, as safetensors")
    exporting.add_argument("name")
    exporting.add_argument("target", type=Path, help="ends in .safetensors")
    exporting.add_argument("--ema", action="store_true", help="take the averaged weights")
    _add_consents(exporting)

    checking = command("check", _check, "classify images of yours and compare with the printed accuracy")
    checking.add_argument("name")
    checking.add_argument("folder", type=Path, help="has one folder of images per class")
    checking.add_argument("--images", type=_positive, default=1000, metavar="K", help="how many (default: %(default)s)")
    checking.add_argument("--batch-size", type=_positive, default=32, metavar="N", help="default: %(default)s")
    checking.add_argument("--seed", type=int, default=0, help="of the draw of images (default: %(default)s)")
    checking.add_argument("--device", default="cpu", help="default: %(default)s")
    _add_consents(checking)
    return parser


def _add_consents(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--accept-license", action="store_true", help="accept a licence that restricts the use")
    parser.add_argument("--allow-http", action="store_true", help="fetch over http even if the sha256 is not known")


def _add_download_options(parser: argparse.ArgumentParser) -> None:
    _add_consents(parser)
    parser.add_argument("--retrust", action="store_true", help="record the sha256 anew, whatever was recorded before")
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def _write(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _say(message: object) -> None:
    sys.stderr.write(f"robust-models: {message}\n")


@contextmanager
def _told_on_stderr() -> Iterator[None]:
    """What the package logs and warns of, one line each."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            _say(record.getMessage())

    logger, handler = logging.getLogger("robust_models"), Handler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: _say(message)
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)

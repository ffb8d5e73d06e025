"""The command `robust-bench`."""

import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console, RenderableType

from robust_bench import listing
from robust_bench._checks import ModelError
from robust_bench._distribution import DISTRIBUTION, __version__
from robust_bench.card import card
from robust_bench.compare import compare
from robust_bench.copies import ABOUT
from robust_bench.corrupt import Corrupt
from robust_bench.evaluate import Interrupted
from robust_bench.export import write_comparison, write_table
from robust_bench.files import write_durably
from robust_bench.merging import merge
from robust_bench.parquet import write_records
from robust_bench.perturb import Perturb
from robust_bench.report import write_report, write_site
from robust_bench.report.run_folder import RESULT_FILE, RunFolder, result_files
from robust_bench.result import Result
from robust_bench.runner import Run
from robust_bench.tables import render, table
from robust_bench.warning import EvaluationWarning

_RATIO = re.compile(r"\b(\d+(?:\.\d+)?)\s*/\s*(\d+)\b")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (None: those of the process) and return its exit code.

    0: done; 2: something that the user gave is wrong, said in one line on the standard error stream; 130: Ctrl-C.
    """
    parser = _parser()
    given = parser.parse_args(_as_written(sys.argv[1:] if arguments is None else arguments))
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            match given.subcommand:
                case "list":
                    _list(given.list)
                case "run":
                    _run(Run(**_settings(_built(parser, given).run)))
                case "merge":
                    _show(merge(given.merge.run))
                    for file in result_files(given.merge.run):
                        print_path("result", file)
                case "corrupt":
                    _corrupt(Corrupt(**_settings(_built(parser, given).corrupt)))
                case "perturb":
                    _perturb(Perturb(**_settings(_built(parser, given).perturb)))
                case "compare":
                    _compare(given.compare)
                case "export":
                    _export(given.export)
                case "card":
                    _card(given.card)
                case "report":
                    _report(given.report)
    except Interrupted as stop:
        if stop.results and _first():
            _show(stop.results)
        print_error("interrupted: finished shards are kept, and the same command goes on from there")
        return 130
    except KeyboardInterrupt:
        print_error("interrupted: what is finished, if anything, is kept")
        return 130
    except (ValueError, TypeError, OSError, ImportError, ModelError) as error:
        print_error(_line(error))
        return 2
    return 0


def _built(parser: ArgumentParser, given: Namespace) -> Namespace:
    """Make the dataclasses of nested settings, with jsonargparse's name for it or that of before 4.49."""
    build: Callable[[Namespace], Namespace] = getattr(parser, "instantiate", parser.instantiate_classes)
    return build(given)


def _settings(given: Namespace) -> dict[str, Any]:
    """The arguments of a class; nested ones are dataclasses already."""
    return {name: value for name, value in vars(given).items() if name != "config"}


def _as_written(arguments: Sequence[str]) -> list[str]:
    """Take what people write: `--on-error` for `--on_error`, and `--attack.eps 4/255` or "[1/255, 4/255]".

    Examples:
        >>> _as_written(["--on-error", "skip", "--attack.eps", "1/2", "--out=a-b/2"])
        ['--on_error', 'skip', '--attack.eps', '0.5', '--out=a-b/2']
    """
    out: list[str] = []
    option = ""
    for argument in arguments:
        name, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
        option = name.replace("-", "_").replace("__", "--", 1) if name else option
        if option.endswith("eps"):
            value = _RATIO.sub(lambda found: repr(float(found[1]) / float(found[2])), value)
        out.append((option if name else "") + equals + value)
    return out


def print_error(message: str) -> None:
    """Write one line to the standard error stream."""
    sys.stderr.write(f"robust-bench: {message}\n")


def print_path(what: str, path: Path) -> None:
    """Say where a file was written."""
    sys.stdout.write(f"{what}: {path}\n")


_ZOO = "the zoo"  # what --models means without a pattern
_WIDE = 240  # columns, so that no name of a model is cut off


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog=DISTRIBUTION, description="How robust is this image model?", version=__version__, allow_abbrev=False
    )
    commands = parser.add_subcommands(dest="subcommand")
    naming = ArgumentParser(description="List the benchmarks, or models.", allow_abbrev=False)
    naming.add_argument("names", type=str, nargs="*", help="say everything about these benchmarks")
    naming.add_argument("--data", type=Path | None, default=None, help="the folder where data sets are looked for")
    naming.add_argument(
        "--models",
        type=str,
        nargs="?",
        const=_ZOO,
        default=None,
        metavar="PATTERN",
        help="list models instead: the zoo of robust ones, or those like 'resnet*'",
    )
    naming.add_argument("--json", action="store_true", help="write the benchmarks as JSON")
    commands.add_subcommand("list", naming, help="name the benchmarks, with the status of their data, or models")
    run = ArgumentParser(allow_abbrev=False, description="Evaluate a model and write OUT/result.json.")
    run.add_argument("--config", action="config", help="a YAML file with any of these settings")
    run.add_class_arguments(Run)
    commands.add_subcommand("run", run, help="evaluate a model and write OUT/result.json")
    merging = ArgumentParser(allow_abbrev=False, description="Put the parts of separate jobs together.")
    merging.add_argument("run", type=Path, help="the run folder, --out of the jobs")
    commands.add_subcommand("merge", merging, help="put the parts of `run --shard i/n` together")
    corrupting = ArgumentParser(allow_abbrev=False, description="Write a corrupted copy, as ImageNet-C is.")
    corrupting.add_argument("--config", action="config", help="a YAML file with any of these settings")
    corrupting.add_argument("dir", type=Path, help="the images, <class>/<image>")
    corrupting.add_class_arguments(Corrupt, skip={"dir"})
    commands.add_subcommand("corrupt", corrupting, help="write a corrupted copy of a folder of images")
    perturbing = ArgumentParser(allow_abbrev=False, description="Write an adversarial copy of a folder of images.")
    perturbing.add_argument("--config", action="config", help="a YAML file with any of these settings")
    perturbing.add_argument("dir", type=Path, help="the images, <class>/<image>")
    perturbing.add_class_arguments(Perturb, skip={"dir"})
    commands.add_subcommand("perturb", perturbing, help="write an adversarial copy of a folder of images")
    comparing = ArgumentParser(allow_abbrev=False, description="Compare two models image by image.")
    comparing.add_argument("a", type=Path, help="the run folder of one model")
    comparing.add_argument("b", type=Path, help="that of the other")
    comparing.add_argument("--resamples", type=int, default=1000, help="of the bootstrap")
    comparing.add_argument("--out", type=Path | None, default=None, help="write the comparison to a .json or .md file")
    commands.add_subcommand("compare", comparing, help="compare two runs, with paired significance")
    exporting = ArgumentParser(allow_abbrev=False, description="Write results or records for other programs.")
    exporting.add_argument("runs", type=Path, nargs="+", help="run folders")
    exporting.add_argument(
        "--out", type=Path, required=True, help="a .csv, .md or .json file of results, or a .parquet file of records"
    )
    commands.add_subcommand("export", exporting, help="write results as CSV, Markdown or JSON, records as Parquet")
    carding = ArgumentParser(allow_abbrev=False, description="Everything that is needed to repeat a run, as Markdown.")
    carding.add_argument("run", type=Path, help="the run folder")
    carding.add_argument("--out", type=Path | None, default=None, help="write it to a file")
    commands.add_subcommand("card", carding, help="say everything that is needed to repeat a run")
    report = ArgumentParser(allow_abbrev=False, description="Write results as HTML that needs no network.")
    report.add_argument("runs", type=Path, nargs="+", help="one run folder, or several for a leaderboard")
    report.add_argument(
        "--out", type=Path | None, default=None, help="folder for a leaderboard (default: one page in RUN/report)"
    )
    commands.add_subcommand("report", report, help="write a run as one HTML page, or several as a leaderboard")
    return parser


def _list(given: Namespace) -> None:
    if given.json:
        sys.stdout.write(listing.as_json(given.data))
    elif given.models is not None:
        _print(listing.models(None if given.models == _ZOO else given.models), least=_WIDE)
    else:
        _print(listing.details(given.names, given.data) if given.names else listing.overview(given.data))


def _print(shown: RenderableType, least: int = 100) -> None:
    sys.stdout.write(render(shown, width=max(least, Console().width)) + "\n")


def _corrupt(corrupt: Corrupt) -> None:
    complete = corrupt()
    if not _first():
        return
    if complete:
        print_path("copy", corrupt.out)
    else:
        sys.stdout.write(f"part {corrupt.shard} is done: the last of the jobs finishes the copy\n")


def _perturb(perturb: Perturb) -> None:
    result = perturb()
    if not _first():
        return
    _show((result,))
    if (perturb.out / ABOUT).is_file():
        print_path("copy", perturb.out)
    else:
        sys.stdout.write(f"part {perturb.shard} is done: the last of the jobs finishes the copy\n")


def _compare(given: Namespace) -> None:
    found = compare(given.a, given.b, resamples=given.resamples)
    _print(found)
    if given.out is not None:
        print_path("comparison", write_comparison(found, given.out))


def _export(given: Namespace) -> None:
    if given.out.suffix != ".parquet":
        results = [result for run in given.runs for result in RunFolder.read(run).results]
        print_path("results", write_table(results, given.out))
        return
    if len(given.runs) > 1:
        raise ValueError(f"a file of records is of one run, got {len(given.runs)}: give each a file of its own")
    print_path("records", write_records(given.runs[0], given.out))


def _report(given: Namespace) -> None:
    if given.out is not None:
        print_path("leaderboard", write_site(given.runs, given.out))
    elif len(given.runs) == 1:
        print_path("report", write_report(given.runs[0]))
    else:
        raise ValueError(f"a leaderboard of {len(given.runs)} runs needs a folder: give --out DIR")


def _card(given: Namespace) -> None:
    text = card(given.run)
    if given.out is None:
        sys.stdout.write(text)
    else:
        print_path("card", write_durably(given.out, text))


def _run(run: Run) -> None:
    results = run()
    if not _first():
        return
    _show(results)
    if run.shard is not None:
        sys.stdout.write(f"part {run.shard} is done: robust-bench merge {run.out}, when all are\n")
        return
    for result in results:
        print_path("result", (run.out if run.models is None else run.out / result.model) / RESULT_FILE)
    sys.stdout.write(f"page: robust-bench report {run.out}\n")


def _first() -> bool:
    """Whether this process speaks for all that torchrun has started."""
    return os.environ.get("RANK", "0") == "0"


def _show(results: Sequence[Result]) -> None:
    console = Console()
    if console.is_terminal:
        console.print(table(results))
    else:
        sys.stdout.write(render(table(results)) + "\n")


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    kind = "warning" if issubclass(category, EvaluationWarning) else f"warning ({category.__name__})"
    print_error(f"{kind}: {message}")


def _line(error: Exception) -> str:
    """Reduce an error to one line; a worker process puts its whole traceback before the message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].startswith("Caught ") and "worker" in lines[0]:
        return lines[-1].partition(": ")[2] or lines[-1]
    return " ".join(lines) or type(error).__name__

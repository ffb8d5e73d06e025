"""Every check of the project as a nox session; `nox -l` lists them.

Environments are made by uv: the whole torch stack arrives in seconds and is hard-linked from uv's cache. Sessions never
depend on each other.
"""

import os
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "uv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "tests"]

ROOT = Path(__file__).parent
CONSTRAINTS = str(ROOT / "constraints.txt")
# In the order of publication: whoever is needed comes first.
PACKAGES = [
    "robust-attacks",
    "robust-augs",
    "robust-optim",
    "robust-models",
    "robust-bench",
    "robust-train",
    "robust-viz",
]
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
WORKERS = ["-n", "auto", "--maxprocesses", "4", "--dist", "loadfile"]  # a file's fixtures are made once
# glibc hands large blocks back to the kernel and gets them anew, page by page: in a virtual machine that costs up to a
# third of the time, now one side of a comparison and now the other. Blocks that stay are measured instead.
STEADY_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**31)}


def uv_environment() -> dict[str, str]:
    """What pip is told about package indexes through its variables, in uv's words: uv reads no pip settings."""
    environ = os.environ
    passed = {
        "UV_FIND_LINKS": ",".join(environ.get("PIP_FIND_LINKS", "").split()),
        "UV_INDEX": environ.get("PIP_EXTRA_INDEX_URL", ""),
        "UV_DEFAULT_INDEX": environ.get("PIP_INDEX_URL", ""),
    }
    return {name: value for name, value in passed.items() if value and name not in environ}


def install(session: nox.Session, *requirements: str, constrained: bool = True, **environment: str) -> None:
    """Install with uv, at the versions of constraints.txt unless told otherwise."""
    pins = ["--constraint", CONSTRAINTS] if constrained else []
    session.install(*pins, *requirements, env=uv_environment() | environment)


def editable(*, extra: str = "") -> list[str]:
    """All seven packages on one line, so that the resolver checks their ranges of each other."""
    return [word for name in PACKAGES for word in ("-e", f"packages/{name}{extra}")]


@nox.session
def demo(session: nox.Session) -> None:
    """Train an ordinary and a robust classifier on real digits, attack and corrupt both, write the report."""
    install(session, *editable())
    session.run("python", "examples/demo.py", *session.posargs)


@nox.session
def sheet(session: nox.Session) -> None:
    """One photograph under all corruptions and severities: `nox -s sheet -- [IMAGE] [--out docs/images/...]`."""
    install(session, *editable(), "scikit-image>=0.26")
    session.run("python", "examples/contact_sheet.py", *session.posargs)


@nox.session
def grid(session: nox.Session) -> None:
    """Three photographs under all augmentations: `nox -s grid -- [--out docs/images/...]`."""
    install(session, *editable(), "scikit-image>=0.26")
    session.run("python", "examples/augmentation_grid.py", *session.posargs)


@nox.session
def augmentations(session: nox.Session) -> None:
    """Train a classifier of digits plainly, with AugMix and with APR-SP, and compare them under corruption."""
    install(session, *editable())
    session.run("python", "examples/augmentations.py", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests and docstring examples of all packages."""
    install(session, *editable(extra="[test]"), "pytest-xdist")
    session.run("pytest", *WORKERS, *session.posargs, env=ONE_THREAD)


def siblings(package: str) -> list[str]:
    """The package and, first, every package of this repository that it requires, directly or not."""
    metadata = nox.project.load_toml(ROOT / "packages" / package / "pyproject.toml")["project"]
    required = [name for name in PACKAGES if any(line.startswith(name) for line in metadata["dependencies"])]
    found = [name for direct in required for name in siblings(direct)]
    return [*dict.fromkeys(found), package]


@nox.session(reuse_venv=False)
@nox.parametrize("package", PACKAGES, ids=PACKAGES)
def isolated(session: nox.Session, package: str) -> None:
    """One package from its wheel alone: what it installs, every import, then its tests away from the source tree."""
    place = Path(session.create_tmp()).resolve()
    wheels = place / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    for name in siblings(package):
        session.run_install(
            "uv", "build", "--quiet", "--wheel", "--out-dir", str(wheels), f"packages/{name}",
            env=uv_environment(), external=True,
        )  # fmt: skip
    built = {wheel.name.split("-")[0].replace("_", "-"): str(wheel) for wheel in wheels.glob("*.whl")}
    install(session, "--reinstall-package", package, *built.values())
    away = place / "tests"
    shutil.rmtree(away, ignore_errors=True)
    shutil.copytree(ROOT / "packages" / package / "tests", away, ignore=shutil.ignore_patterns("__pycache__"))
    with session.chdir(place):
        session.run("python", str(ROOT / ".ci" / "check_isolated.py"), package)
        others = (wheel for name, wheel in built.items() if name != package)
        install(session, f"{built[package]}[test]", *others, "pytest-xdist")
        settings = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(away), "-p", "no:cacheprovider"]
        session.run("pytest", *settings, *WORKERS, str(away), *session.posargs, env=ONE_THREAD)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: rules and formatting."""
    install(session, "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy in strict mode over the sources of all packages."""
    install(session, *editable(), "mypy", "types-pyyaml")
    for name in PACKAGES:
        session.run("mypy", f"packages/{name}/src")


@nox.session
def build(session: nox.Session) -> None:
    """Source archive and wheel of every package, as they would be published."""
    install(session, "poetry", "twine")
    for name in PACKAGES:
        folder = ROOT / "packages" / name
        shutil.rmtree(folder / "dist", ignore_errors=True)
        with session.chdir(folder):  # Poetry 2.5.1 mishandles src/ under a relative -C
            session.run("poetry", "check", "--strict")
            session.run("poetry", "build")
    archives = sorted(str(path) for path in ROOT.glob("packages/*/dist/*"))
    session.run("twine", "check", "--strict", *archives)


@nox.session
def minimums(session: nox.Session) -> None:
    """The tests at the lowest versions that the wheels admit; what is deprecated between old libraries is no error."""
    install(session, "--resolution", "lowest-direct", *editable(extra="[test]"), constrained=False)
    deprecations = ["-W", "default::DeprecationWarning"]
    session.run("pytest", *deprecations, "-m", "not browser", *session.posargs, env=ONE_THREAD)


@nox.session
def gpu(session: nox.Session) -> None:
    """The tests that need a CUDA device."""
    install(session, *editable(extra="[test]"))
    session.run("pytest", "-m", "gpu", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Side by side with peers: `nox -s bench -- attacks` writes a folder's page, `-- attacks/pgd` runs one script."""
    folders: dict[str, list[str]] = {}
    for script in sorted(ROOT.glob("benchmarks/*/[!_]*.py")):
        folders.setdefault(script.parent.name, []).append(script.stem)
    known = [*folders, *(f"{folder}/{name}" for folder, names in folders.items() for name in names)]
    chosen, *arguments = session.posargs or [""]
    if chosen not in known:
        session.error(f"name a benchmark: nox -s bench -- {{{','.join(known)}}} [its arguments]")
    folder, _, name = chosen.partition("/")
    place = ROOT / "benchmarks" / folder
    old_tools = place / "build-constraints.txt"  # for peers that do not build with today's
    build = {"UV_BUILD_CONSTRAINT": str(old_tools)} if old_tools.is_file() else {}
    install(session, *editable(), "--requirement", str(place / "requirements.txt"), **build)
    alone = place / "requirements-alone.txt"  # peers whose own requirements would not install beside the others
    if alone.is_file():
        install(session, "--no-deps", "--requirement", str(alone))
    apart = place / "requirements-apart.txt"  # peers that need other versions: the scripts start another Python
    if apart.is_file():
        peers = ROOT / ".peers" / folder
        uv = {"env": uv_environment(), "external": True}
        session.run_install("uv", "venv", "--quiet", "--allow-existing", str(peers), **uv)
        session.run_install("uv", "pip", "install", "--python", str(peers), "--requirement", str(apart), **uv)
    shared = {"PYTHONPATH": str(ROOT / "benchmarks")}  # what the scripts of all folders use
    steady = ONE_THREAD | STEADY_MEMORY | shared
    if name:
        session.run("python", f"benchmarks/{chosen}.py", *arguments, env=steady)
        return
    results = ROOT / "benchmarks" / "results"
    pages = [results / folder / f"{name}.md" for name in folders[folder]]
    for name, page in zip(folders[folder], pages, strict=True):
        session.run("python", f"benchmarks/{folder}/{name}.py", *arguments, "--out", str(page), env=steady)
    texts = [page.read_text(encoding="utf-8") for page in pages]
    joined = [
        f"# {folder.capitalize()}: `nox -s bench -- {folder}`\n",
        *(text.replace("# ", "## ", 1) for text in texts),
    ]
    (results / f"{folder}.md").write_text("\n".join(joined), encoding="utf-8")
    for page in pages:
        page.unlink()


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation site, strict, and the examples of all docstrings."""
    install(session, *editable(), "mkdocs-material", "mkdocstrings[python]", "pytest", "ruff")
    session.run("pytest", *(f"packages/{name}/src" for name in PACKAGES))
    session.run("mkdocs", "build", "--strict")

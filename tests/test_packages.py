"""What holds for all seven packages: who imports whom, what each declares, and that its texts keep up."""

import ast
import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The arrows of the README: a package may import these packages of the repository, and no others.
ARROWS = {
    "robust-attacks": set(),
    "robust-augs": set(),
    "robust-optim": set(),
    "robust-models": set(),
    "robust-bench": {"robust-attacks", "robust-models"},
    "robust-train": {"robust-attacks", "robust-augs", "robust-optim", "robust-models", "robust-bench"},
    "robust-viz": {"robust-attacks", "robust-models"},
}
PROVIDES = {
    "jinja2": "jinja2",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "open_clip": "open-clip-torch",
}
each_package = pytest.mark.parametrize("package", ARROWS)


def project(package):
    return tomllib.loads((ROOT / "packages" / package / "pyproject.toml").read_text())["project"]


def required(package):
    return {re.split(r"[^a-z0-9-]", line)[0] for line in project(package)["dependencies"]}


def optional(package):
    """What the extras for users bring."""
    extras = project(package).get("optional-dependencies", {})
    return {re.split(r"[^a-z0-9-]", line)[0] for name, lines in extras.items() if name != "test" for line in lines}


def imported(package):
    """The top-level names that the sources of `package` import, anywhere in a module."""
    names = set()
    for source in (ROOT / "packages" / package / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(node.module.split(".")[0])
    return names - {package.replace("-", "_")}


@each_package
def test_imports_follow_the_arrows(package):
    siblings = {name.replace("_", "-") for name in imported(package) if name.startswith("robust_")}
    assert siblings <= ARROWS[package]


@each_package
def test_every_import_is_declared_and_every_declared_requirement_is_imported(package):

    foreign = {name for name in imported(package) if name not in sys.stdlib_module_names}
    provided = {PROVIDES.get(name, name).replace("_", "-") for name in foreign}
    assert provided - optional(package) == required(package)


@each_package
def test_siblings_are_required_by_a_range_that_admits_their_version(package):
    for line in project(package)["dependencies"]:
        if line.startswith("robust-"):
            name, low, high = re.fullmatch(r"(robust-\w+)>=(\d+\.\d+),<(\d+\.\d+)", line).groups()
            version = tuple(int(part) for part in project(name)["version"].split(".")[:2])
            assert tuple(map(int, low.split("."))) <= version < tuple(map(int, high.split(".")))


@each_package
def test_readme_has_a_line_for_every_public_name(package):
    public = importlib.import_module(package.replace("-", "_")).__all__
    readme = (ROOT / "packages" / package / "README.md").read_text()
    undocumented = [name for name in public if not re.search(rf"`[^`]*\b{name}\b[^`]*`", readme)]
    assert [name for name in undocumented if name != "__version__"] == []


@each_package
def test_changelog_knows_the_version(package):
    changelog = (ROOT / "packages" / package / "CHANGELOG.md").read_text()
    section = changelog.split(f"## [{project(package)['version']}]")[1].split("\n## ")[0]
    assert re.search(r"^- ", section, flags=re.MULTILINE), "the changelog's section of this version has no entry"


@each_package
def test_licence_copies_are_equal(package):
    assert (ROOT / "packages" / package / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()

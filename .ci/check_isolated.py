"""What a package's wheel brings along, and whether each of its modules imports: `check_isolated.py robust-attacks`.

Run inside an environment that holds the wheel, its declared requirements and nothing else.
"""

import importlib
import pkgutil
import re
import sys
import warnings
from importlib.metadata import distribution, distributions

# The leaves promise to bring nothing beyond what these themselves require: no timm, no matplotlib.
PROMISES = {
    "robust-attacks": {"torch"},
    "robust-augs": {"torch", "torchvision"},
    "robust-optim": {"torch"},
}


def normal(name: str) -> str:
    """The name of a distribution in the form that compares."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(name: str, extras: frozenset[str]) -> set[tuple[str, frozenset[str]]]:
    """The distributions that `name` with these extras requires, each with the extras that it is required with."""
    found = set()
    for line in distribution(name).requires or []:
        condition = re.search(r"""extra == ['"]([^'"]+)""", line)
        if condition is None or condition.group(1) in extras:
            required, _, listed = re.match(r"([A-Za-z0-9._-]+)(\[([^\]]*)\])?", line).groups()
            found.add((normal(required), frozenset((listed or "").replace(" ", "").split(",")) - {""}))
    return found


def closure(names: set[str], installed: set[str]) -> set[str]:
    """`names` and all that they require, as far as it is installed."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = {(name, frozenset[str]()) for name in names}
    while waiting:
        one = waiting.pop()
        if one not in seen and one[0] in installed:
            seen.add(one)
            waiting |= requirements(*one)
    return {name for name, _ in seen}


def main(package: str) -> None:
    """Check `package` and say what was found; a broken promise ends with a message and exit status 1."""
    installed = {normal(found.metadata["Name"]) for found in distributions()}
    if package in PROMISES:
        surplus = installed - closure(PROMISES[package], installed) - {package}
        if surplus:
            sys.exit(
                f"{package} promises {sorted(PROMISES[package])} and what they require, but brings {sorted(surplus)}"
            )
    module = importlib.import_module(package.replace("-", "_"))
    if "site-packages" not in str(module.__file__):
        sys.exit(f"{package} was imported from {module.__file__}, not from its wheel")
    warnings.simplefilter("error")
    names = [found.name for found in pkgutil.walk_packages(module.__path__, module.__name__ + ".")]
    names = [name for name in names if not name.endswith("__main__")]
    for name in names:
        importlib.import_module(name)
    print(f"{package}: {len(names) + 1} modules import; {len(installed)} distributions installed")


if __name__ == "__main__":
    main(sys.argv[1])

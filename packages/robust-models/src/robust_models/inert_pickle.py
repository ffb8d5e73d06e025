"""The tensors of a whole pickled model, taken out without importing or running anything that the file names.

`torch.save(model)` writes the names of the classes of its modules, and `torch.load(weights_only=False)` imports and
calls whatever is named: that needs the code of the authors and can run any other. Here every named object but those
that rebuild tensors is replaced by a dummy that only keeps its state, in which the tensors are found by the way in
which `torch.nn.Module` stores them. The program `python -m robust_models.inert_pickle SOURCE TARGET` does this in a
process of its own, for `convert`.
"""

import argparse
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from robust_models.key_mapping import pick_state_dict
from robust_models.safe_pickle import SAFE_GLOBALS


class Inert:
    """Stands for an object of the file, or for what a function of the file would have returned."""

    state: Any

    def __new__(cls, *_: object, **__: object) -> "Inert":
        """Take any arguments and forget them."""
        made = super().__new__(cls)
        made.state = {}
        return made

    def __call__(self, *_: object, **__: object) -> "Inert":
        """Take any arguments and forget them."""
        return Inert()

    def __setstate__(self, state: Any) -> None:
        self.state = state[0] if isinstance(state, tuple) and len(state) == 2 else state

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        """Take what belongs into a kind of list."""

    extend = add = append


def _tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    rebuild: Callable[..., Tensor] = torch._utils._rebuild_tensor  # it checks the bounds of the storage
    return rebuild(storage, offset, size, stride)


def _parameter(data: Tensor, *_: object) -> Tensor:
    return data


_REAL: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "builtins.set": set,
    "__builtin__.set": set,  # its name in the pickle protocols that torch writes
    "torch.Size": torch.Size,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    **{name: value for value, name in SAFE_GLOBALS},
}


class Unpickler(pickle.Unpickler):
    """Gives an `Inert` for everything that is named, except what rebuilds tensors and plain values."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for `name` of `module`; nothing is imported."""
        return _REAL.get(f"{module}.{name}") or type(name.rpartition(".")[2], (Inert,), {"__module__": "inert"})


def load(stream: Any, **options: Any) -> Any:
    """Read one object as `pickle.load` does, with `Unpickler`; torch calls it for the parts of older files."""
    return Unpickler(stream, **options).load()


def read_inert(file: Path) -> Any:
    """Return what `file` of `torch.save` holds, with modules as dicts of their tensors and other objects as `Inert`.

    Raises:
        ValueError: if the file is damaged.
    """
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(name.endswith("constants.pkl") for name in archive.namelist()):
                raise ValueError(f"{file} is a TorchScript archive, which is a program and not only weights")
    reader = ModuleType("inert_pickle")  # torch asks for the interface of the module pickle
    vars(reader).update(Unpickler=Unpickler, load=load)
    try:
        content = torch.load(file, map_location="cpu", pickle_module=reader, weights_only=False)
    except Exception as error:  # a damaged file makes torch raise nearly anything
        raise ValueError(f"{file} is truncated or damaged ({type(error).__name__}: {error})".splitlines()[0]) from error
    if isinstance(content, Mapping):
        return {name: _state_dict(value) if _is_module(value) else value for name, value in content.items()}
    return _state_dict(content) if _is_module(content) else content


def _is_module(value: object) -> bool:
    return isinstance(value, Inert) and isinstance(value.state, Mapping) and "_modules" in value.state


def _state_dict(module: Inert) -> dict[str, Tensor]:
    return dict(_tensors(module, ""))


def _tensors(module: Inert, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """The entries that `module.state_dict()` would have, in its order."""
    state = module.state
    passing = state.get("_non_persistent_buffers_set")
    passing = passing if isinstance(passing, set) else set()
    held = {**state.get("_parameters", {}), **state.get("_buffers", {})}
    yield from (
        (prefix + name, value) for name, value in held.items() if isinstance(value, Tensor) and name not in passing
    )
    for name, child in state["_modules"].items():
        if _is_module(child):
            yield from _tensors(child, f"{prefix}{name}.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the tensors of one file to another; the errors of the user end with a message and exit status 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--ema", action="store_true")
    chosen = parser.parse_args(arguments)
    try:
        nest, weights = pick_state_dict(read_inert(chosen.source), ema=chosen.ema, name=str(chosen.source))
        tensors = {name: value.detach().contiguous().clone() for name, value in weights.items()}
        safetensors.torch.save_file(tensors, chosen.target, metadata={"nest": nest})
    except (ValueError, RecursionError, OSError, safetensors.SafetensorError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

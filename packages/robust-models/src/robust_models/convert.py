"""Any weight file as safetensors, with a note of where it came from."""

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from robust_models.cache import Origin, write_whole
from robust_models.key_mapping import pick_state_dict
from robust_models.weight_files import UnsafePickleError, check_file, read_file


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What `convert` wrote.

    Attributes:
        path: the new file.
        tensors: how many it has.
        metadata: what stands in its header; see `convert`.
    """

    path: Path
    tensors: int
    metadata: Mapping[str, str]


def convert(source: Path, target: Path, *, entry: str = "", ema: bool = False) -> Converted:
    """Write the tensors of `source`, under the names that they have there, to the safetensors file `target`.

    Nothing in the file is executed. A whole pickled model, which `load_weights` refuses, is taken apart in a process of
    its own by `robust_models.inert_pickle`; the code of its classes is neither needed nor run.

    The header of the new file tells: `entry` of the zoo, `source_url` (its path where it was not downloaded),
    `source_sha256`, `date` of the conversion (ISO 8601, UTC) and `mapping`, the key under which the weights lay in the
    source, empty for the top.

    Args:
        source: a file of torch.save, or safetensors.
        target: ends in `.safetensors`; an older file is replaced.
        entry: name of the zoo's entry that the file belongs to.
        ema: take the averaged weights of a checkpoint that has both.

    Raises:
        ValueError: if the source is damaged or holds no weights, or the target has another ending.
        FileNotFoundError: if the source or the folder of the target does not exist.
    """
    if target.suffix != ".safetensors":
        raise ValueError(f"weights are written as .safetensors, got {target.name}: change the ending")
    if not source.is_file() or not target.parent.is_dir():
        missing = source if not source.is_file() else target.parent
        raise FileNotFoundError(f"{missing} does not exist: give a weight file, and a place in a folder that exists")
    sha256 = check_file(source, None)
    try:
        nest, weights = pick_state_dict(read_file(source), ema=ema, name=str(source))
    except UnsafePickleError:
        nest, weights = _taken_apart(source, ema)
    origin = Origin.read(source)
    metadata = {
        "format": "pt",
        "entry": entry,
        "source_url": origin.url if origin and origin.sha256 == sha256 else str(source),
        "source_sha256": sha256,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "mapping": nest,
    }
    tensors = {name: value.detach().contiguous().clone() for name, value in weights.items()}
    write_whole(target, safetensors.torch.save(tensors, metadata=metadata))
    return Converted(path=target, tensors=len(tensors), metadata=metadata)


def _taken_apart(source: Path, ema: bool) -> tuple[str, dict[str, Tensor]]:
    """The weights of a whole pickled model, read in another process; with the key under which they lay."""
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "weights.safetensors"
        command = [sys.executable, "-P", "-m", "robust_models.inert_pickle", str(source), str(plain)]
        ended = subprocess.run([*command, "--ema"] if ema else command, capture_output=True, text=True, check=False)
        if ended.returncode:
            said = ended.stderr.strip().rpartition("\n")[2]
            raise ValueError(said or f"{source} could not be read: the reading process ended with {ended.returncode}")
        with safetensors.safe_open(plain, framework="pt") as opened:
            nest = opened.metadata()["nest"]
        return nest, safetensors.torch.load_file(plain)

"""What the files of a folder are made from, kept beside them, so that only a run with the same may go on."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from robust_augs._files import write_whole


def check_record(path: Path, record: Mapping[str, object]) -> None:
    """Write down at `path` with which settings its folder is made, or compare them with those of the run before.

    Raises:
        ValueError: if they differ; it says in what.
    """
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [
            f"{name} was {before.get(name)}, is {record.get(name)}"
            for name in {**before, **record}
            if before.get(name) != record.get(name)
        ]
        if changed:
            raise ValueError(
                f"{path.parent} was written with other settings ({'; '.join(changed)}): use the same, or another folder"
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(record, indent=2) + "\n").encode())


def check_shard(shard: tuple[int, int]) -> tuple[int, int]:
    """Refuse what is no part (index, count) of the work, and give it back."""
    index, count = shard
    if not 0 <= index < count:
        raise ValueError(f"shard must be (index, count) with 0 <= index < count, got {shard}")
    return index, count


def digest_of_names(names: Iterable[Path]) -> str:
    """One hash of relative file names in their order, the same on all systems."""
    return hashlib.sha256(b"\0".join(name.as_posix().encode(errors="surrogateescape") for name in names)).hexdigest()


def digest_of_numbers(*parts: object) -> str:
    """One hash of tensors and of the parameters and buffers of modules; of plain functions there is nothing to hash."""
    digest = hashlib.sha256()
    for place, part in enumerate(parts):
        for name, tensor in _named(part):
            digest.update(f"{place} {name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _named(part: object) -> list[tuple[str, Tensor]]:
    if isinstance(part, nn.Module):  # not its state_dict(), which lacks the buffers that are not saved
        return [*part.named_parameters(), *part.named_buffers()]
    return [("", part)] if isinstance(part, Tensor) else []

"""The process of the peers, which lives in an environment of its own."""

import json
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from torch import Tensor

PYTHON = Path(__file__).resolve().parents[2] / ".peers" / "corruptions" / "bin" / "python"


class Peers:
    """Peers on images uint8 (N, 3, H, W): a context in which they answer how fast they are.

    Raises:
        FileNotFoundError: if their environment is not there.
    """

    def __init__(self, images: Tensor) -> None:
        if not PYTHON.is_file():
            raise FileNotFoundError(f"no {PYTHON}: `nox -s bench -- corruptions` makes the environment of the peers")
        self._folder = tempfile.TemporaryDirectory()
        file = Path(self._folder.name, "images.npy")
        np.save(file, images.permute(0, 2, 3, 1).contiguous().numpy())
        worker = [str(PYTHON), "-W", "ignore", str(Path(__file__).with_name("_peer.py")), str(file)]
        self._process = subprocess.Popen(worker, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        first = self._answer()
        self.runs = {(library, name) for library, name in first["runs"]}
        self.versions: dict[str, str] = first["versions"]

    def speed(self, library: str, name: str, span: float) -> float:
        """Images per second of CPU time, measured over at least `span` of them."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([library, name, span]) + "\n")
        self._process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of the peers ended with exit code {self._process.wait()}: see above")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()  # closes its input, at which it ends
        self._folder.cleanup()

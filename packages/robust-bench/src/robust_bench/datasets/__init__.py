"""Where images come from."""

from robust_bench.datasets.digits import digits as digits
from robust_bench.datasets.folder import Folder as Folder
from robust_bench.datasets.folder import class_folders as class_folders
from robust_bench.datasets.folder import folder as folder

__all__ = ["Folder", "class_folders", "digits", "folder"]

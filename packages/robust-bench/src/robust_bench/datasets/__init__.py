"""Where images come from."""

from robust_bench.datasets.arrays import Arrays as Arrays
from robust_bench.datasets.digits import digits as digits
from robust_bench.datasets.folder import Folder as Folder
from robust_bench.datasets.folder import class_folders as class_folders
from robust_bench.datasets.folder import folder as folder
from robust_bench.datasets.human_responses import human_responses as human_responses
from robust_bench.datasets.labelled_folder import LabelledFolder as LabelledFolder
from robust_bench.datasets.stimuli import Stimuli as Stimuli
from robust_bench.datasets.video import Videos as Videos

__all__ = [
    "Arrays",
    "Folder",
    "LabelledFolder",
    "Stimuli",
    "Videos",
    "class_folders",
    "digits",
    "folder",
    "human_responses",
]

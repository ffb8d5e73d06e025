"""Where images come from."""

from robust_bench.datasets.arrays import Arrays as Arrays
from robust_bench.datasets.class_map import ClassMap as ClassMap
from robust_bench.datasets.class_map import read_class_map as read_class_map
from robust_bench.datasets.digits import digits as digits
from robust_bench.datasets.folder import Folder as Folder
from robust_bench.datasets.folder import class_folders as class_folders
from robust_bench.datasets.folder import folder as folder
from robust_bench.datasets.hugging_face import HuggingFace as HuggingFace
from robust_bench.datasets.human_responses import human_responses as human_responses
from robust_bench.datasets.labelled_folder import LabelledFolder as LabelledFolder
from robust_bench.datasets.readers import open_images as open_images
from robust_bench.datasets.sequences import Sequences as Sequences
from robust_bench.datasets.stimuli import Stimuli as Stimuli
from robust_bench.datasets.tar_folders import tar_folders as tar_folders
from robust_bench.datasets.tar_images import TarImages as TarImages
from robust_bench.datasets.video import Videos as Videos
from robust_bench.datasets.webdataset import webdataset as webdataset

__all__ = [
    "Arrays",
    "ClassMap",
    "Folder",
    "HuggingFace",
    "LabelledFolder",
    "Sequences",
    "Stimuli",
    "TarImages",
    "Videos",
    "class_folders",
    "digits",
    "folder",
    "human_responses",
    "open_images",
    "read_class_map",
    "tar_folders",
    "webdataset",
]

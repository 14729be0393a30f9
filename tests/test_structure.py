"""The house: class names with one meaning, small folders, few files for a saliency map."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

import voxplain as vx

SOURCE = Path(vx.__file__).parent
METHODS = SOURCE / "attribution" / "methods"


def test_a_class_name_has_one_meaning() -> None:
    places = defaultdict(list)
    for file in SOURCE.rglob("*.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef):
                places[node.name.lstrip("_")].append(file.relative_to(SOURCE).as_posix())
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_folders_are_small() -> None:
    counts = {folder: len(list(folder.glob("*.py"))) for folder in SOURCE.rglob("*/")}
    crowded = {folder.name: count for folder, count in counts.items() if count > 20}
    assert crowded.keys() <= {METHODS.name}
    assert counts[METHODS] <= 26


class _Moves:
    """Counts the files of the package that calls enter, and the moves between them."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.moves = 0
        self._last = ""

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(str(SOURCE)):
            self.files.add(Path(file).relative_to(SOURCE).as_posix())
            self.moves += file != self._last
            self._last = file


def test_a_saliency_map_takes_few_files_and_few_moves_between_them() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).eval()
    image = torch.rand(1, 1, 16, 16)
    vx.explain(network, image, "saliency", target=1)  # imports and caches
    moves = _Moves()
    sys.setprofile(moves)
    try:
        vx.explain(network, image, "saliency", target=1)
    finally:
        sys.setprofile(None)
    assert len(moves.files) <= 25, sorted(moves.files)
    assert moves.moves <= 130

"""What torchvision misses beside a build of torch for the CPU."""

from __future__ import annotations

import torch

_defined: list[torch.library.Library] = []


def define_operators() -> None:
    """Defines the two operators that its import asks for; nothing calls them."""
    if _defined or torch.version.cuda is not None:
        return
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _defined.append(library)

"""How a network sees the points of a stream: whole, or window by window."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from voxplain.attribution.passes import Passes
from voxplain.attribution.rules import Rule
from voxplain.attribution.scene import Scene
from voxplain.attribution.taps import Tap
from voxplain.attribution.whole import WholePasses
from voxplain.attribution.windowed import WindowedPasses
from voxplain.model import Model
from voxplain.targets import WeightField


def passes_over(
    scene: Scene,
    model: Model,
    rule: Rule,
    field: WeightField,
    places: tuple[Tap, ...] = (),
    rebind: Callable[[Tensor], WeightField] | None = None,
) -> Passes:
    """Passes of the kind that the windows of a network ask for.

    Args:
        scene: Knows the windows, and how layers are arranged.
        model: The network, in the precision it will run in.
        rule: The backward rule.
        field: The weight field of the batch of unperturbed images.
        places: Where gradients are wanted.
        rebind: Binds the target again at each batch of outputs, for targets that follow.
    """
    asked = (model, rule, field, places, scene.arranged, rebind)
    if scene.layout is None:
        return WholePasses(*asked)
    return WindowedPasses(*asked, scene.spacing)

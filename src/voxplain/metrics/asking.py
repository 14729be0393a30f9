"""From an image, maps and a target to a question that metrics can be asked on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from voxplain.attribution.baselines import baseline_image
from voxplain.attribution.binding import bind, look
from voxplain.attribution.explanation import AnyTarget, References, references_of
from voxplain.attribution.method import Method
from voxplain.attribution.randomness import image_key
from voxplain.attribution.rules import Plain
from voxplain.attribution.samplers import Item
from voxplain.attribution.scene import Scene
from voxplain.attribution.viewing import passes_over
from voxplain.errors import InputError
from voxplain.image import Image
from voxplain.metrics.fellows import Networks, fellows_of
from voxplain.metrics.field import MapField
from voxplain.metrics.given import AnyMap, given_map, method_of
from voxplain.metrics.question import Question
from voxplain.model import Model
from voxplain.targets import parse_target

Maps = Mapping[str, AnyMap]
"""Attributions, arrays ``(C, *spatial)`` (``(B, C, *spatial)`` for a batch) or files, by name."""


def question_about(
    model: Model,
    image: Image | Tensor,
    target: AnyTarget,
    mask: Tensor | None = None,
    references: References = None,
    seed: int = 0,
    maps: Maps | None = None,
    networks: Networks = (),
    truth: int | None = None,
) -> Question:
    """Looks at an image once and fixes the target on it.

    Args:
        model: The network.
        image: On its grid, or ``(C, *spatial)`` as the network sees it.
        target: What is explained.
        mask: Reference, ``(*spatial)`` on the source grid of an image, non-zero is inside.
        references: Other images.
        seed: Of every random draw.
        maps: Attributions whose methods can explain again.
        networks: Other networks that are asked the same, and how they differ.
        truth: The class that is right for the whole image.
    """
    scan = image if isinstance(image, Image) else None
    data = image.data if isinstance(image, Image) else image
    plain = data[None].detach().as_subclass(Tensor)
    inputs = model.admit(plain.clone() if plain.is_inference() else plain)
    spacing = scan.grid.spacing if scan and scan.grid.unit == "mm" else None
    scene = Scene(model, inputs, spacing, scan)
    asked = parse_target(target)
    bound = bind(asked, look(model, inputs, asked.layers, scan, scene.arranged))
    item = Item(
        inputs[0],
        0,
        f"{seed}/{image_key(inputs[0])}",
        references_of(references, inputs[0]),
        spacing=spacing,
    )
    methods = [method_of(found) for found in (maps or {}).values()]
    return Question(
        scene,
        item,
        bound,
        passes_over(scene, model, Plain(), bound.field, rebind=bound.rebind),
        None if mask is None else _on_input(mask, scan, scene.shape),
        [method for method in methods if method is not None],
        fellows_of(networks, model),
        truth,
    )


def map_field(name: str, found: AnyMap, question: Question) -> MapField:
    """A map on the grid of the network.

    Raises:
        InputError: If it lies elsewhere.
    """
    given = given_map(name, found, question.scene)
    return MapField(
        name=name,
        map=given.map.to(question.item.image.device),
        sign=given.sign,
        share=given.share,
        key=question.item.key,
        completeness=given.completeness,
        start=_start(given.method, question.item.image),
    )


def _start(method: Method | None, image: Tensor) -> Tensor | None:
    """The baseline of a method that has one."""
    baseline = method.baseline_of if method else None
    if baseline is None or (isinstance(baseline, Tensor) and baseline.shape != image.shape):
        return None
    return baseline_image(baseline, image)


def _on_input(mask: Tensor, scan: Image | None, shape: tuple[int, ...]) -> Tensor:
    inside = torch.as_tensor(mask) != 0
    if scan is not None and tuple(inside.shape) == scan.source_grid.shape:
        inside = scan.project(inside.long()) != 0
    if tuple(inside.shape) != shape:
        raise InputError(
            f"a reference mask of shape {tuple(mask.shape)} lies neither on the grid of the image "
            f"nor on that of the network, {shape}"
        )
    return inside

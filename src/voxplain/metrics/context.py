"""One image, one network, one target: what metrics ask of them, each thing once."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from voxplain.attribution.explanation import AnyTarget
from voxplain.engine.context import BoundTarget, Context, References, references_of
from voxplain.engine.identity import identity
from voxplain.engine.masks import Fill, Masks, Painter
from voxplain.engine.memory import ForwardBudget, in_batches
from voxplain.engine.method import Method
from voxplain.engine.passes.base import Passes
from voxplain.engine.passes.points import Points
from voxplain.engine.randomness import image_key
from voxplain.engine.rules import Plain
from voxplain.engine.stream_io import StreamInput
from voxplain.errors import InputError
from voxplain.image import Image
from voxplain.metrics.map_field import MapField, Undefined
from voxplain.metrics.maps import Maps, method_of
from voxplain.metrics.other_networks import Networks, OtherNetwork, other_networks
from voxplain.metrics.perturbed import PerturbedPrediction
from voxplain.models.model import Model
from voxplain.models.precision import running_in
from voxplain.targets import parse_target
from voxplain.targets.links import predicted_mask
from voxplain.targets.scores import volume_per_voxel

T = TypeVar("T")


class Query(ABC):
    """Something to ask of the network; subclasses are frozen dataclasses, compared by value.

    Attributes:
        per_map: Whether the question depends on the map that is judged.
        explains: Whether :meth:`expected` counts explanations by all methods, and not forwards.
    """

    per_map: ClassVar[bool] = False
    explains: ClassVar[bool] = False

    @abstractmethod
    def expected(self, context: Context) -> int:
        """About how many forwards it takes, of each network that it asks."""

    def networks(self, networks: Sequence[OtherNetwork]) -> int:
        """How many networks it asks; fellows are those that could be."""
        return 1

    @abstractmethod
    def run(self, context: MetricContext, field: MapField) -> Any:
        """Asks; a probe that is not per map must not look at the field."""


class MetricContext:
    """Everything that is fixed while the maps of one image are judged.

    Args:
        base: The network and what is known of it.
        item: The image, its index in the batch, its key and its references.
        bound: The target, bound on the unchanged image.
        passes: How scores of layer targets are taken.
        reference: Mask of what a map is compared with, ``(*spatial)`` bool, or None.
        methods: The methods behind the maps, for metrics that explain again.
        networks: Other networks that are asked the same, and how they differ.
        truth: The class that is right for the whole image, where it is known.

    Attributes:
        fields: The maps that are judged, by name.
        judged: The same and the controls beside them, for answers about all of them at once.
    """

    def __init__(
        self,
        base: Context,
        item: StreamInput,
        bound: BoundTarget,
        passes: Passes,
        reference: Tensor | None = None,
        methods: Sequence[Method] = (),
        networks: Sequence[OtherNetwork] = (),
        truth: int | None = None,
    ) -> None:
        self.base, self.item, self.bound, self.passes = base, item, bound, passes
        self.reference, self.methods = reference, tuple(methods)
        self.networks = tuple(networks)
        self.truth = truth
        self.fields: dict[str, MapField] = {}
        self.judged: tuple[MapField, ...] = ()
        self.forwards = 0
        self._results: dict[object, Any] = {}
        self._budget = _PredictionBudget(base.model.device)

    @property
    def whole(self) -> float:
        """S of the unchanged image."""
        return self.bound.scores[self.item.row]

    @property
    def spacing(self) -> tuple[float, ...]:
        """Millimeters per voxel; 1 per axis where unknown."""
        return self.base.spacing or (1.0,) * len(self.base.shape)

    @cached_property
    def predicted(self) -> Tensor:
        """Where the class of the target is predicted on the unchanged image, ``(*spatial)``.

        Raises:
            Undefined: If the output is not dense, or the target is about no class.
        """
        if not self._about_an_object:
            raise Undefined("the target is not about a class of a dense output")
        return self._object(self.bound.seen.output[self.item.row][None])[0]

    @property
    def predicted_class(self) -> int:
        """The class that a classifier prefers; of one-logit networks the side of the threshold.

        Raises:
            Undefined: If the output is dense.
        """
        if self.bound.seen.is_dense:
            raise Undefined("a dense output has no class of the whole image")
        target, output = self.bound.target, self.bound.seen.output[self.item.row][None]
        if output.shape[1] > 1:
            return int(output.argmax(dim=1))
        return int(predicted_mask(output, 1, target.activation, target.threshold))

    @cached_property
    def correct(self) -> bool | None:
        """Whether the prediction is right; None where the truth is not known.

        Of a classifier: whether it prefers the true class. Of a dense output: whether the Dice of
        the predicted object with the reference is at least 0.5, or there is neither.
        """
        if not self.bound.seen.is_dense:
            return None if self.truth is None else self.predicted_class == self.truth
        if self.reference is None or not self._about_an_object:
            return None
        if self.predicted.shape != self.reference.shape:
            return None
        true, found = self.reference.to(self.predicted.device), self.predicted
        return bool(4 * (true & found).sum() >= true.sum() + found.sum())

    def with_model(self, model: Model) -> MetricContext:
        """The same question, weight field included, about another network."""
        other = self.with_bound(self.bound)
        other.base = Context(model, self.item.image[None], self.base.spacing, self.base.image)
        other.passes = self.passes.with_model(model)
        return other

    def with_maps(self, fields: Mapping[str, MapField]) -> MetricContext:
        """The same question about other maps."""
        other = self.with_bound(self.bound)
        other.fields, other.judged = dict(fields), tuple(fields.values())
        return other

    def with_own_prediction(self) -> MetricContext:
        """The same question with what its network predicts itself, after :meth:`with_model`.

        The weight field stays: S is the score of the same voxels, given by the other network.
        """
        seen = self.base.look([self.bound.target])
        field = self.bound.field
        explained = seen.output if field.layer is None else seen.activations[field.layer]
        weights = self.bound.rebind(explained) if self.bound.rebind else field
        scores = tuple(weights.score(explained).tolist())
        return self.with_bound(replace(self.bound, seen=seen, scores=scores))

    def cached(self, key: object, make: Callable[[], T]) -> T:
        """What was made under this key before, or now."""
        if key not in self._results:
            self._results[key] = make()
        found: T = self._results[key]
        return found

    def with_bound(self, bound: BoundTarget) -> MetricContext:
        """The same question about another weight field."""
        other = copy.copy(self)
        other.bound, other._results = bound, {}
        for known in ("predicted", "correct"):
            other.__dict__.pop(known, None)
        return other

    def run_query(self, query: Query, field: MapField) -> Any:
        """The answer to a probe, asked once."""
        key = (identity(query), field if query.per_map else None)
        return self.cached(key, lambda: query.run(self, field))

    def empty(self, fill: Fill, size: tuple[float, ...]) -> float:
        """S where everything is filled."""
        images = torch.stack(fill.images(self.item, size))
        key = ("empty", identity(fill), size)
        return self.cached(key, lambda: float(self.observe(images).scores.mean()))

    def under(self, masks: Masks, fill: Fill) -> PerturbedPrediction:
        """The prediction under each mask; what several fill images give is averaged."""
        painters = fill.painters(self.item, masks)
        return PerturbedPrediction.averaged(
            [self.painted(painter, len(masks)) for painter in painters]
        )

    def painted(self, painter: Painter, count: int) -> PerturbedPrediction:
        """The prediction for each of the images that a painter makes."""
        return self.of_all(count, painter.painted)

    def of_all(self, count: int, images: Callable[[range], Tensor]) -> PerturbedPrediction:
        """The prediction for many changed images, of which a few exist at a time.

        Args:
            count: How many there are.
            images: Makes those of some numbers, ``(k, C, *spatial)``.
        """
        predictions = []

        def predict(numbers: range) -> None:
            with self._budget.measured(len(numbers)):
                predictions.append(self.observe(images(numbers)))

        in_batches(count, self._budget, predict)
        return PerturbedPrediction.joined(predictions)

    def observe(self, inputs: Tensor) -> PerturbedPrediction:
        """The prediction for changed images ``(k, C, *spatial)``, small enough for one call."""
        self.forwards += len(inputs)
        rows = [self.item.row] * len(inputs)
        if self.bound.field.layer is not None:
            return PerturbedPrediction(self.passes.scores(Points(inputs, rows)))
        model = self.base.model
        with torch.inference_mode(), running_in(model.precision, model.device):
            output = model.output(inputs, self.base.spacing)
            rebind = self.bound.rebind
            weights = rebind(output) if rebind else self.bound.field.rows(rows)
            return self._observed(output, weights.score(output).cpu())

    def _observed(self, output: Tensor, scores: Tensor) -> PerturbedPrediction:
        seen = self.bound.seen
        if not seen.is_dense:
            before = seen.output[self.item.row]
            agreed = _preferred(output) == _preferred(before[None])
            return PerturbedPrediction(scores, agreed=agreed.cpu())
        if not self._about_an_object:
            return PerturbedPrediction(scores)
        now, before = self._object(output), self.predicted
        sizes = now.flatten(1).sum(dim=1).double()
        both = (now & before).flatten(1).sum(dim=1).double()
        overlap = 2 * both / (sizes + before.sum()).clamp_min(1)
        return PerturbedPrediction(scores, overlap.cpu(), (sizes * volume_per_voxel(seen)[0]).cpu())

    @property
    def _about_an_object(self) -> bool:
        has_label = self.bound.field.label_of(self.item.row) is not None
        return self.bound.seen.is_dense and has_label and self.bound.field.layer is None

    def _object(self, output: Tensor) -> Tensor:
        target = self.bound.target
        label = self.bound.field.label_of(self.item.row)
        return predicted_mask(output, label or 0, target.activation, target.threshold)


class _PredictionBudget(ForwardBudget):
    """Leaves no single image for a last batch, which would take as long as four."""

    def next(self, waiting: int) -> int:
        return waiting if 1 < self.size == waiting - 1 else super().next(waiting)


def _preferred(output: Tensor) -> Tensor:
    """The class of the largest score; of one-logit networks the side of 0."""
    return output.argmax(dim=1) if output.shape[1] > 1 else (output[:, 0] > 0).long()


def metric_context(
    model: Model,
    image: Image | Tensor,
    target: AnyTarget,
    mask: Tensor | None = None,
    references: References = None,
    seed: int = 0,
    maps: Maps | None = None,
    networks: Networks = (),
    truth: int | None = None,
) -> MetricContext:
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
    context = Context.open(model, image if isinstance(image, Image) else image[None])
    inputs, bound = context.inputs, context.bind(parse_target(target))
    item = StreamInput(
        inputs[0],
        0,
        f"{seed}/{image_key(inputs[0])}",
        references_of(references, inputs[0]),
        spacing=context.spacing,
    )
    methods = [method_of(found) for found in (maps or {}).values()]
    return MetricContext(
        context,
        item,
        bound,
        context.passes(model, Plain(), bound.field, rebind=bound.rebind),
        None if mask is None else _on_input(mask, scan, context.shape),
        [method for method in methods if method is not None],
        other_networks(networks, model),
        truth,
    )


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

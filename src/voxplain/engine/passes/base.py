"""One pass through a network: points in, scores and gradients out."""

from __future__ import annotations

import contextlib
import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from voxplain.engine.acceleration.few_channels import quick_gradients
from voxplain.engine.acceleration.shared_prefix import PrefixUser
from voxplain.engine.passes.conservation import Conservation
from voxplain.engine.passes.points import PassLog, PassResult, Points
from voxplain.engine.passes.through_layer import relevance_at
from voxplain.engine.rules import Rule, RuleMode
from voxplain.engine.taps import INPUT, Changes, Tap, Tapped
from voxplain.errors import ConfigError, ModelError, RuleError, TargetError
from voxplain.models.failures import WITHOUT_GRADIENTS, raise_without_gradient
from voxplain.models.model import Model
from voxplain.targets import WeightField

Arrange = Callable[[Tap, Tensor], Tensor]
AnyPasses = TypeVar("AnyPasses", bound="Passes")

_FIRST_SCALE, _LAST_SCALE, _SCALE_STEP = 2.0**24, 2.0**-12, 2.0**4
"""Factors of float16 gradients: the first and the last that is tried, and the step between them."""


class _OverflowError(Exception):
    """A gradient in float16 is too large under the present factor."""


class Passes(ABC):
    """Evaluates points of one stream.

    Args:
        model: The network; the caller keeps it at rest.
        rule: The backward rule.
        bound: The weight field of the batch of unperturbed images.
        places: Where gradients are wanted: :data:`INPUT` and taps.
        arrange: Brings what a tap caught to ``(k, K, *cells)``.
        rebind: Binds the target again at each batch of outputs, for targets that follow.

    Attributes:
        prefix_user: The network's access to modules shared with others; None for one alone.
        in_windows: Whether the network sees images in windows.
    """

    in_windows: ClassVar[bool] = False

    def __init__(
        self,
        model: Model,
        rule: Rule,
        bound: WeightField,
        places: tuple[Tap, ...],
        arrange: Arrange | None = None,
        rebind: Callable[[Tensor], WeightField] | None = None,
    ) -> None:
        if rebind is not None and rule.paired:
            raise ConfigError(
                f"a target with follow=True changes between image and reference, so {rule.name} "
                "is not defined for it"
            )
        self.model = model
        self.rule = rule
        self.bound = bound
        self.places = places
        self.arrange = arrange or _as_it_is
        self.rebind = rebind
        self.taps = tuple(place for place in places if place != INPUT)
        if bound.layer is not None and Tap(bound.layer) not in self.taps:
            self.taps = (*self.taps, Tap(bound.layer))
        self.through = None if rule.is_plain else rule.through
        if self.through is not None and Tap(self.through.path) not in self.taps:
            self.taps = (*self.taps, Tap(self.through.path))
        self.log = PassLog()
        self.conservation = Conservation() if rule.starts_from_output else None
        self.prefix_user: PrefixUser | None = None
        self._checked = False
        self._mode: RuleMode | None = None
        self._copies = 1
        self._scale = _FIRST_SCALE if model.precision == "float16" else None

    def with_model(self: AnyPasses, model: Model) -> AnyPasses:
        """The same passes through another network."""
        other = copy.copy(self)
        other.model, other.log = model, PassLog()
        other._scale = _FIRST_SCALE if model.precision == "float16" else None
        return other

    def run(self, points: Points) -> PassResult:
        """Forward and backward for a batch of points.

        Raises:
            GradientError: If the network cannot be differentiated.
        """
        count = len(points.inputs)
        if count > 1 and self.model.behavior.one_by_one:
            return PassResult.joined([self.run(point) for point in points.apart()])
        self.log.passes += count
        shown = self._with_companion(points)
        self._copies = len(shown.rows) // count
        with torch.inference_mode(False), torch.enable_grad(), self.model.precise():
            run = self._run if self._scale is None else self._run_scaled
            result = _first(count, shown, run(shown))
        if self.conservation is not None and INPUT in result.gradients:
            self.conservation.add_maps(result.scores, result.gradients[INPUT])
        return result

    def _run_scaled(self, points: Points) -> PassResult:
        """A pass with gradients times a power of two, lowered until nothing overflows.

        In float16 gradients below 6e-8 are 0. The largest factor that the points allow is kept
        for those that follow, and the gradients are divided by it, which is exact.
        """
        while True:
            books = copy.deepcopy(self.conservation)
            try:
                return self._run(points)
            except _OverflowError:
                self.conservation = books
                self._scale = (self._scale or _FIRST_SCALE) / _SCALE_STEP

    def observe(self, points: Points) -> PassResult:
        """Scores and tapped activations of points, without gradients."""
        count = len(points.inputs)
        if count > 1 and self.model.behavior.one_by_one:
            return PassResult.joined([self.observe(point) for point in points.apart()])
        self.log.forwards += count
        with torch.inference_mode(False), torch.no_grad(), self.model.precise():
            shown = self._with_companion(points)
            return _first(count, shown, self._observe(shown))

    def scores(self, points: Points, changes: Changes | None = None) -> Tensor:
        """S of points, ``(k,)`` float64 on the CPU, under inference mode.

        Args:
            points: Inputs and rows.
            changes: What layers give instead of what they compute.
        """
        if len(points.inputs) > 1 and self.model.behavior.one_by_one:
            if changes is not None:
                raise ValueError("layers are changed for one image after the other")
            return torch.cat([self.scores(point) for point in points.apart()])
        shown = self._with_companion(points)
        with torch.inference_mode(), self.model.precise():
            return self._scores(shown, changes)[: len(points.inputs)]

    def _with_companion(self, points: Points) -> Points:
        """The points; for a lone input that is slow alone, twice the same."""
        return points

    @abstractmethod
    def _run(self, points: Points) -> PassResult: ...

    @abstractmethod
    def _observe(self, points: Points) -> PassResult: ...

    @abstractmethod
    def _scores(self, points: Points, changes: Changes | None) -> Tensor: ...

    def _explained(self, output: Tensor, tapped: Tapped) -> Tensor:
        layer = self.bound.layer
        return output if layer is None else self.arrange(Tap(layer), tapped[Tap(layer)])

    def leaf(self, inputs: Tensor) -> Tensor:
        """Inputs as the leaf of gradients; networks with a shared prefix have one leaf."""
        if self.prefix_user is not None:
            return self.prefix_user.leaf(inputs)
        return inputs.requires_grad_(True)

    def tapped_values(self, inputs: Tensor, tapped: Tapped) -> dict[Tap, Tensor]:
        """The value at each place after a forward."""
        for tap in self.taps:
            if remark := tapped.repeated(tap):
                self.log.remarks[remark] = None
        return {place: inputs if place == INPUT else tapped[place] for place in self.places}

    def gradients(
        self,
        score: Tensor,
        places: dict[Tap, Tensor],
        cotangent: Tensor | None = None,
        through_value: Tensor | None = None,
    ) -> dict[Tap, Tensor]:
        """Gradient of a score, or of an output against a cotangent, at each place.

        Args:
            score: Or the output.
            places: The values.
            cotangent: For an output.
            through_value: The value of the layer that everything has to pass.

        Raises:
            GradientError: If the backward pass fails.
            ModelError: If a layer does not depend on the image.
            TargetError: If the score does not.
        """
        for place, value in places.items():
            if not value.requires_grad:
                raise ModelError(
                    f"layer {place.path!r} does not depend on the image, so it has no gradient"
                )
        if not score.requires_grad:
            raise TargetError(
                "the score does not depend on the image through differentiable operations; "
                f"{WITHOUT_GRADIENTS}"
            )
        seed = cotangent
        if self._scale is not None:
            seed = torch.ones_like(score) if cotangent is None else cotangent
            seed = (seed * self._scale).to(score.dtype)
        elif cotangent is not None:
            seed = cotangent.to(score.dtype)
        try:
            if through_value is not None and self.rule.through is not None:
                relevance = relevance_at(
                    through_value, score, seed, self.rule.through, self.arrange
                )
                score, seed = through_value, relevance
            with quick_gradients(places.values()):
                found = torch.autograd.grad(
                    score,
                    list(places.values()),
                    grad_outputs=seed,
                    retain_graph=self.prefix_user is not None,
                    allow_unused=True,
                )
        except Exception as error:
            raise_without_gradient(error)
        parts = found if self._scale is None else self._divided(found, self._scale)
        gradients = {}
        for (place, value), gradient in zip(places.items(), parts, strict=True):
            if gradient is None:
                where = "the image" if place == INPUT else f"layer {place.path!r}"
                self.log.remarks[f"no gradient of the score reaches {where}: it counts as 0"] = None
                gradient = torch.zeros_like(value)
            gradients[place] = gradient
        if through_value is None and cotangent is not None and INPUT in gradients:
            self._add_to_conservation(cotangent, gradients[INPUT])
        return gradients

    def _add_to_conservation(self, seed: Tensor, relevance: Tensor) -> None:
        shares = self._mode.residuals() if self._mode else {}
        shares = {name: share / (self._scale or 1) for name, share in shares.items()}
        if shares and self.conservation is not None:
            self.conservation.add_backward(seed, relevance, shares, self._copies)

    def _divided(
        self, gradients: Sequence[Tensor | None], scale: float
    ) -> tuple[Tensor | None, ...]:
        """Gradients divided by the factor that their seed was multiplied by, in float32.

        Raises:
            _OverflowError: If any of them is too large for float16, and a smaller factor is left.
        """
        present = [gradient for gradient in gradients if gradient is not None]
        if scale > _LAST_SCALE and not all(bool(each.isfinite().all()) for each in present):
            raise _OverflowError
        return tuple(None if each is None else each.float() / scale for each in gradients)

    def through_value(self, tapped: Tapped) -> Tensor | None:
        """The value of the layer that a rule wants everything to pass."""
        through = self.rule.through
        return None if through is None else tapped[Tap(through.path)]

    def check_seen(self, output: Tensor, inputs: Tensor) -> None:
        """Looks once at the graph of a stream for calls that the rule should have replaced.

        Raises:
            RuleError: Where the rule does not go on without them.
        """
        if self._checked or self.rule.is_plain:
            return
        self._checked = True
        missed = self.rule.unseen(output, inputs)
        if not missed:
            return
        text = f"the rule {self.rule.name!r} did not see {', '.join(missed)}"
        if self.rule.on_unknown == "error":
            raise RuleError(f"{text}; its map would be wrong")
        self.log.remarks[f"{text}; there it is the plain gradient"] = None

    def detached(self, places: dict[Tap, Tensor]) -> dict[Tap, Tensor]:
        """Values without graph, layers as ``(k, K, *cells)``.

        Layers are brought to the CPU where what autograd saves is kept there, too.
        """
        return {
            place: value.detach() if place == INPUT else self._layer(place, value.detach())
            for place, value in places.items()
        }

    def _layer(self, place: Tap, value: Tensor) -> Tensor:
        arranged = self.arrange(place, value)
        return arranged.cpu() if self.log.offloaded else arranged

    def under_rule(
        self, images: Tensor, recording: RuleMode | None = None
    ) -> contextlib.AbstractContextManager[None]:
        """Forwards inside are differentiated by the rule; its counts are noted.

        Args:
            images: ``(k, C, *spatial)``, whole even where the network sees windows of them.
            recording: The reference run of a paired rule.
        """
        return contextlib.nullcontext() if self.rule.is_plain else self._mode_of(images, recording)

    @contextlib.contextmanager
    def _mode_of(self, images: Tensor, recording: RuleMode | None) -> Iterator[None]:
        mode = self.rule.mode() if recording is None else self.rule.replay(recording)
        mode.prepare(images)
        self._mode = mode
        with mode:
            yield
        self.log.treated.update(mode.treated)
        self.log.remarks.update(dict.fromkeys(mode.warnings))


def _first(count: int, points: Points, result: PassResult) -> PassResult:
    """The result without that of companions."""
    return result if len(points.rows) == count else result.part(slice(count))


def _as_it_is(_: Tap, value: Tensor) -> Tensor:
    return value

"""One pass of the gradient stream: points in, scores and gradients out."""

from __future__ import annotations

import contextlib
import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from voxplain.engine.acceleration.few_channels import quick_gradients
from voxplain.engine.acceleration.shared_prefix import PrefixUser
from voxplain.engine.passes.result import INPUT, PassLog, PassResult
from voxplain.engine.passes.through_layer import arriving
from voxplain.engine.rules import Plain, Rule, RuleMode
from voxplain.engine.taps import Changes, InterpolatedActivation, Tap, Tapped
from voxplain.errors import ConfigError, ModelError, RuleError, TargetError
from voxplain.models.model import Model
from voxplain.models.precision import running_in
from voxplain.targets import WeightField

Arrange = Callable[[Tap, Tensor], Tensor]


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
        prefix_user: The place of the network among others that run beside it; None for one alone.
    """

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
        if rule.through is not None and Tap(rule.through.path) not in self.taps:
            self.taps = (*self.taps, Tap(rule.through.path))
        self.notes = PassLog()
        self.prefix_user: PrefixUser | None = None
        self._checked = False
        self._mode: RuleMode | None = None
        self._copies = 1

    def with_model(self: AnyPasses, model: Model) -> AnyPasses:
        """The same points for another network."""
        other = copy.copy(self)
        other.model, other.notes = model, PassLog()
        return other

    def run(
        self,
        inputs: Tensor,
        rows: list[int],
        start: Tensor | None = None,
        interpolated: InterpolatedActivation | None = None,
    ) -> PassResult:
        """Forward and backward for a batch of points.

        Args:
            inputs: ``(k, C, *spatial)``.
            rows: Index of the image of each point in the batch.
            start: Aligned references ``(k, C, *spatial)``, read by paired rules only.
            interpolated: A layer whose activation stands elsewhere than the image.
        """
        self.notes.passes += len(inputs)
        self._copies = 1
        try:
            with torch.inference_mode(False), torch.enable_grad(), self.precise():
                found = self._run(inputs.detach().clone(), rows, start, interpolated)
        except NotImplementedError as error:
            raise ModelError(no_gradient(error)) from error
        if INPUT in found.gradients:
            self.notes.conservation.settled(found.scores, found.gradients[INPUT])
        return found

    def observe(self, inputs: Tensor, rows: list[int]) -> PassResult:
        """Scores and tapped activations of points, without gradients."""
        self.notes.forwards += len(inputs)
        with torch.inference_mode(False), torch.no_grad(), self.precise():
            return self._observe(inputs, rows)

    @abstractmethod
    def scores(self, inputs: Tensor, rows: list[int], changes: Changes | None = None) -> Tensor:
        """S of points, ``(k,)`` float64 on the CPU, under inference mode.

        Args:
            inputs: ``(k, C, *spatial)``.
            rows: Index of the image of each point in the batch.
            changes: What layers give instead of what they compute.
        """

    @abstractmethod
    def _run(
        self,
        inputs: Tensor,
        rows: list[int],
        start: Tensor | None,
        interpolated: InterpolatedActivation | None,
    ) -> PassResult: ...

    @abstractmethod
    def _observe(self, inputs: Tensor, rows: list[int]) -> PassResult: ...

    def precise(self) -> contextlib.AbstractContextManager[None]:
        """Forwards inside run in the precision of the model."""
        return running_in(self.model.precision, self.model.device)

    def _explained(self, output: Tensor, tapped: Tapped) -> Tensor:
        layer = self.bound.layer
        return output if layer is None else self.arrange(Tap(layer), tapped[Tap(layer)])

    def leaf(self, inputs: Tensor) -> Tensor:
        """Points as the leaf that gradients are taken at; networks with a trunk have one."""
        return (
            inputs.requires_grad_(True)
            if self.prefix_user is None
            else self.prefix_user.leaf(inputs)
        )

    def tapped_values(self, inputs: Tensor, tapped: Tapped) -> dict[Tap, Tensor]:
        """The value at each place after a forward."""
        for tap in self.taps:
            if tap.call == -1 and tapped.calls(tap) > 1:
                self.notes.remarks[
                    f"layer {tap.path!r} is called {tapped.calls(tap)} times; its last call is "
                    f"taken, {tap.path}#0 would be the first"
                ] = None
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
                "the score does not depend on the image through differentiable operations"
            )
        with _in_words():
            if through_value is not None and self.rule.through is not None:
                arrived = arriving(score, cotangent, through_value, self.rule.through, self.arrange)
                score, cotangent = through_value, arrived
            with quick_gradients(places.values()):
                found = torch.autograd.grad(
                    score,
                    list(places.values()),
                    grad_outputs=cotangent,
                    retain_graph=self.prefix_user is not None,
                    allow_unused=True,
                )
        gradients = {}
        for (place, value), gradient in zip(places.items(), found, strict=True):
            if gradient is None:
                where = "the image" if place == INPUT else f"layer {place.path!r}"
                self.notes.remarks[f"the score does not depend on {where}: gradient 0"] = None
                gradient = torch.zeros_like(value)
            gradients[place] = gradient
        shares = self._mode.shares() if self._mode and through_value is None else {}
        if shares and cotangent is not None and INPUT in gradients:
            self.notes.conservation.passed(cotangent, gradients[INPUT], shares, self._copies)
        return gradients

    def through_value(self, tapped: Tapped) -> Tensor | None:
        """The value of the layer that a rule wants everything to pass."""
        through = self.rule.through
        return None if through is None else tapped[Tap(through.path)]

    def check_seen(self, output: Tensor, inputs: Tensor) -> None:
        """Looks once at the graph of a stream for calls that the rule should have replaced.

        Raises:
            RuleError: Where the rule does not go on without them.
        """
        if self._checked or isinstance(self.rule, Plain):
            return
        self._checked = True
        missed = self.rule.unseen(output, inputs)
        if not missed:
            return
        text = f"the rule {self.rule.name!r} did not see {', '.join(missed)}"
        if getattr(self.rule, "on_unknown", "error") == "error":
            raise RuleError(f"{text}; its map would be wrong")
        self.notes.remarks[f"{text}; there it is the plain gradient"] = None

    def settled(self, places: dict[Tap, Tensor]) -> dict[Tap, Tensor]:
        """What was caught, detached and with channels first."""
        return {
            place: value.detach() if place == INPUT else self.arrange(place, value.detach())
            for place, value in places.items()
        }

    @contextlib.contextmanager
    def under_rule(self, images: Tensor, recording: RuleMode | None = None) -> Iterator[None]:
        """Forwards inside are differentiated by the rule; its counts are noted.

        Args:
            images: ``(k, C, *spatial)``, whole even where the network sees windows of them.
            recording: The reference run of a paired rule.
        """
        if isinstance(self.rule, Plain):
            yield
            return
        mode = self.rule.mode() if recording is None else self.rule.replay(recording)
        mode.look(images)
        self._mode = mode
        with mode:
            yield
        self.notes.treated.update(mode.treated)
        self.notes.remarks.update(dict.fromkeys(mode.warnings))


AnyPasses = TypeVar("AnyPasses", bound="Passes")


def no_gradient(error: NotImplementedError) -> str:
    """The sentence for a network with a function that torch cannot differentiate."""
    first = str(error).strip().splitlines()[0]
    return f"the network cannot be differentiated: {first}"


def _as_it_is(_: Tap, value: Tensor) -> Tensor:
    return value


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "inplace operation" not in str(error):
            raise
        raise ModelError(
            "the network overwrites in place a value that its gradient needs (as `x += 1` after a "
            "rectifier does), so it cannot be differentiated; write that step out of place"
        ) from error


__all__ = ["INPUT", "Arrange", "PassLog", "PassResult", "Passes", "no_gradient"]

"""The one door to a network, its images and its targets, for all that explain or evaluate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from voxplain.engine.network_layers import NetworkLayers
from voxplain.engine.passes.base import Passes
from voxplain.engine.passes.whole import WholePasses
from voxplain.engine.passes.windowed import WindowedPasses
from voxplain.engine.rules import Rule
from voxplain.engine.stream_io import StreamInput
from voxplain.engine.taps import Tap, tapping
from voxplain.errors import ConfigError, InputError, TargetError
from voxplain.image import Image
from voxplain.models.failures import GradientError
from voxplain.models.layout import Layout
from voxplain.models.model import Model
from voxplain.models.output_place import OutputPlace
from voxplain.records.sidecar import ModelFacts
from voxplain.regions import RegionMap, Regions, segment
from voxplain.targets import Target, UnperturbedOutput, WeightField
from voxplain.targets.activations import is_squashed
from voxplain.targets.field import Activation, lies_in_unit_range

References = Tensor | Sequence[Image] | None
"""Other images on the same grid: a tensor ``(K, C, *spatial)``, or images."""

_BYTES_AT_ONCE = 64 * 2**20


@dataclass(frozen=True, eq=False)
class BoundTarget:
    """A target on a batch of images.

    Attributes:
        target: What is explained.
        field: Its weight field.
        scores: S(x) per image.
        unperturbed: The output that it was bound on.
    """

    target: Target
    field: WeightField
    scores: tuple[float, ...]
    unperturbed: UnperturbedOutput

    @classmethod
    def of(cls, target: Target, unperturbed: UnperturbedOutput) -> BoundTarget:
        """Fixes a target on the output for unperturbed images.

        Raises:
            TargetError: In words, if there is nothing to explain.
        """
        field = target.bind(unperturbed)
        explained = unperturbed.output
        if field.layer is not None:
            explained = unperturbed.activations[field.layer]
        return cls(target, field, tuple(field.score(explained).tolist()), unperturbed)

    @property
    def rebind(self) -> Callable[[Tensor], WeightField] | None:
        """Binds again at an output, for targets that follow; None for the others."""
        if not self.target.follow:
            return None
        if self.field.layer is not None:
            raise TargetError("follow=True is for targets on the output, not for units of a layer")
        seen = self.unperturbed
        return lambda output: self.target.rebind(
            replace(seen, output=output, known_meaning=seen.meaning)
        )

    @property
    def activation(self) -> Activation:
        """What makes probabilities of the output.

        Raises:
            TargetError: If what the output holds is unclear.
        """
        return self.unperturbed.activation(self.target.activation)


class Context:
    """A network and the images it is asked about; layers, regions and bound targets of both.

    Args:
        model: The network under study.
        inputs: Images ``(B, C, *spatial)`` in model space.
        spacing: Millimeters per voxel, or None.
        image: The image on its grid, where the call is about one.

    Attributes:
        shape: Spatial shape of the images.
        home: Where the caller's images are, and the maps return to.
    """

    def __init__(
        self,
        model: Model,
        inputs: Tensor,
        spacing: tuple[float, ...] | None = None,
        image: Image | None = None,
    ) -> None:
        self.model, self.inputs, self.spacing = model, inputs, spacing
        self.image, self.shape = image, tuple(inputs.shape[2:])
        self.home = inputs.device
        self._unperturbed: UnperturbedOutput | None = None

    @classmethod
    def open(cls, model: Model | nn.Module, images: Image | Tensor, seed: int = 0) -> Context:
        """Brings images to the device and type of a network; nothing is run yet.

        Args:
            model: A network, or a model.
            images: One image on its grid, or a batch ``(B, C, *spatial)``.
            seed: Of the numbers that a random network draws in each call.
        """
        batch = images if isinstance(images, Tensor) else images.data[None]
        image = None if isinstance(images, Tensor) else images
        plain = plain_tensor(batch)
        studied = Model.of(model).for_task(seed)
        inputs = studied.admit(plain)
        context = cls(studied, inputs, image.grid.spacing_mm if image else None, image)
        context.home = batch.device
        return context

    def look(self, targets: Sequence[Target] = ()) -> UnperturbedOutput:
        """The output for the unperturbed images, and activations that targets are about.

        It is kept for :meth:`bind`.

        Args:
            targets: Their layers are tapped.

        Raises:
            InputError: If the images hold NaN.
            ModelError: If the network cannot take them.
        """
        if not torch.isfinite(self.inputs).all():
            bad = int((~torch.isfinite(self.inputs)).sum())
            raise InputError(f"the image holds {bad} NaN or infinite values; replace them first")
        taps = tuple(dict.fromkeys(Tap(layer) for target in targets for layer in target.layers))
        outputs: list[Tensor] = []
        activations: dict[str, list[Tensor]] = {tap.path: [] for tap in taps}
        at_once = max(1, _BYTES_AT_ONCE // max(1, self.inputs[0].nbytes))
        if taps:
            self.model.observe(self.example)
            at_once = 1 if self.model.behavior.one_by_one else at_once
        for images in torch.split(self.inputs, at_once):
            with tapping(self.model.network, taps) as tapped, self.model.exact():
                outputs.append(self.model.output(images, self.spacing))
            for tap in taps:
                value = self.layers.arranged(tap, tapped[tap].detach().clone())
                activations[tap.path].append(value[: len(images)])
        grid = self.image.grid if self.image else None
        output = torch.cat(outputs)
        self._unperturbed = UnperturbedOutput(
            output=output,
            image=self.image,
            input_shape=self.shape,
            voxel_volume=grid.voxel_volume if grid and grid.unit == "mm" else None,
            activations={path: torch.cat(values) for path, values in activations.items()},
            classes=self.model.classes,
            place=self._place(output),
            squashed=self._is_squashed() if lies_in_unit_range(output) else None,
            stated=self.model.activation,
        )
        return self._unperturbed

    def seen(self, targets: Sequence[Target] = ()) -> UnperturbedOutput:
        """What :meth:`look` gives, which is kept unless a layer of these targets is missing.

        For a network that is as it was when the context was opened.
        """
        known = self._unperturbed
        if known is None:
            return self.look(targets)
        layers = {layer for target in targets for layer in target.layers}
        return known if layers <= known.activations.keys() else self.look(targets)

    def _place(self, output: Tensor) -> OutputPlace | None:
        """Where the cells of a dense output lie in the images; None where this is unknown."""
        cells = tuple(output.shape[2:])
        if not cells:
            return None
        if cells == self.shape:
            return OutputPlace.same(self.shape)
        if self.layout is not None:
            return self.layout.place
        return self.model.place(self.inputs[:1])

    def _is_squashed(self) -> bool | None:
        """Whether the network ends in a sigmoid, a softmax or the like; None if unknown."""
        if not self.model.differentiable:
            return None
        nothing = torch.autograd.graph.saved_tensors_hooks(_nothing, _nothing)
        try:
            with torch.inference_mode(False), torch.enable_grad(), self.model.at_rest(), nothing:
                # A copy, since some networks write into their input, which a leaf must not be.
                return is_squashed(self.model(self.example.clone().requires_grad_(True).clone()))
        except GradientError:
            return None

    def bind(self, target: Target) -> BoundTarget:
        """Fixes a target on the unperturbed images.

        Raises:
            TargetError: In words, if there is nothing to explain.
        """
        return BoundTarget.of(target, self.seen([target]))

    def passes(
        self,
        model: Model,
        rule: Rule,
        field: WeightField,
        places: tuple[Tap, ...] = (),
        rebind: Callable[[Tensor], WeightField] | None = None,
    ) -> Passes:
        """Passes through the network as it sees images: whole, or window by window.

        Args:
            model: The network, in the precision it will run in.
            rule: The backward rule.
            field: The weight field of the batch of unperturbed images.
            places: Where gradients are wanted.
            rebind: Binds the target again at each batch of outputs, for targets that follow.
        """
        if self.layout is None:
            return WholePasses(model, rule, field, places, self._arranged, rebind)
        return WindowedPasses(model, rule, field, places, self._arranged, rebind, self.spacing)

    def _arranged(self, tap: Tap, activation: Tensor) -> Tensor:
        return self.layers.arranged(tap, activation)

    @cached_property
    def model_facts(self) -> ModelFacts:
        """The description of the network, with a hash of all its weights."""
        return self.model.facts

    @cached_property
    def layout(self) -> Layout | None:
        """The windows over the image, or None."""
        has_windows = self.model.window is not None
        return self.model.layout(self.inputs[0], self.spacing) if has_windows else None

    @cached_property
    def example(self) -> Tensor:
        """What one call of the network sees: the image, or its middle window."""
        return self.inputs[:1] if self.layout is None else self.layout.example(self.inputs[0])

    @cached_property
    def layers(self) -> NetworkLayers:
        """The layers of the network, on the first image."""
        self.model.observe(self.example)
        return NetworkLayers(self.model, self.example, self.shape, self.layout)

    def regions(self, spec: Regions, item: StreamInput) -> RegionMap:
        """The regions of an image, whatever noise it is under."""
        return segment(spec, item.clean, self.spacing, self.image)

    def expected_regions(self, spec: Regions) -> int:
        """About how many regions an image has."""
        return spec.expected(self.shape, self.inputs.shape[1], self.spacing)


def _nothing(_: Tensor) -> Tensor:
    """What a forward saves whose graph is looked at and not used."""
    return torch.empty(0)


def plain_tensor(tensor: Tensor) -> Tensor:
    """A tensor without subclass, graph or inference mode."""
    bare = tensor.detach().as_subclass(Tensor)
    return bare.clone() if bare.is_inference() else bare


def references_of(references: References, image: Tensor) -> Tensor | None:
    """The references of one image, without the image itself."""
    if references is None:
        return None
    if isinstance(references, Tensor):
        stacked = plain_tensor(references).to(image)
    else:
        stacked = torch.stack([other.data.to(image) for other in references])
    if stacked.shape[1:] != image.shape:
        raise ConfigError(
            f"references of shape {tuple(stacked.shape[1:])} for an image of shape "
            f"{tuple(image.shape)}; they must lie on the same grid"
        )
    same = (stacked == image).flatten(1).all(dim=1)
    return stacked[~same]

"""A target as a PyTorch module, for tools that explain modules: captum, Quantus, grad-cam."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from voxplain.attribution.explanation import AnyTarget
from voxplain.engine.context import Context
from voxplain.errors import ConfigError, InputError
from voxplain.image import Image
from voxplain.models.model import Model
from voxplain.targets import Label, Target, UnperturbedOutput, WeightField, parse_target


def as_module(
    model: Model | nn.Module,
    target: AnyTarget | Sequence[AnyTarget] | None = None,
    images: Image | Tensor | None = None,
) -> TargetModule:
    """A module that maps images to what a target makes of the output of a network.

    Its layers are those of the network, under ``network.``; so are its weights and its mode:
    ``eval()`` switches the network too. It is differentiable where the network is.

    Args:
        model: A network, or a :class:`Model` with a head.
        target: One target; several; or None for all classes, each by its number.
        images: The unperturbed images on whose output targets are fixed, as in ``explain``: one,
            for any number of perturbed copies, or a batch, for batches of the same images. Without
            them targets are bound anew at each input, so that regions move with the prediction.

    Returns:
        A module from ``(B, C, *spatial)`` to ``(B,)`` for one target, else to ``(B, targets)`` or
        ``(B, classes)``. The value of a class that is predicted nowhere is 0.

    Raises:
        ConfigError: For models with windows, and targets on a layer.
        TargetError: In words, if there is nothing to explain on the images.

    Example:
        >>> network = nn.Conv2d(1, 3, 3, padding=1)
        >>> as_module(network, 1)(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2])
        >>> as_module(network)(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 3])
    """
    studied = Model.of(model)
    if studied.window is not None:
        raise ConfigError(
            "a model with windows runs in parts and is no single module; use voxplain.explain, or "
            "a model without window="
        )
    targets, is_one = _parsed(target)
    if on_layer := [each for each in targets if each.layers]:
        raise ConfigError(
            f"{on_layer[0]} explains a layer, and this module gives what the output is worth; "
            "other tools take layers themselves"
        )
    return TargetModule(studied, targets, is_one, images)


class TargetModule(nn.Module):
    """What targets make of the output of a network; made by :func:`as_module`.

    Attributes:
        network: The network.
        targets: What each column is; empty for all classes.
    """

    def __init__(
        self,
        model: Model,
        targets: tuple[Target, ...],
        is_one: bool,
        images: Image | Tensor | None = None,
    ) -> None:
        super().__init__()
        self.network = model.network
        self.training = self.network.training
        self.targets = targets
        self._model, self._is_one = model, is_one
        self._fields = None if images is None else self._bound(Context.open(model, images))

    def forward(self, images: Tensor) -> Tensor:
        """The value of each target, ``(B,)`` or ``(B, targets)``, in the type of the output.

        Args:
            images: ``(B, C, *spatial)``.

        Raises:
            InputError: If targets are fixed on several images and these are not as many.
        """
        output = self._model(images)
        fields = self._fields if self._fields is not None else self._at(output, images)
        if len(fields[0]) not in (1, len(output)):
            raise InputError(
                f"the target is fixed on {len(fields[0])} images, and {len(output)} are given; fix "
                "it on one image, or on the same ones"
            )
        scores = [field.score(output).to(output.dtype) for field in fields]
        return scores[0] if self._is_one else torch.stack(scores, dim=1)

    def _bound(self, context: Context) -> tuple[WeightField, ...]:
        """The targets fixed on images; of all classes also those that are predicted nowhere."""
        seen = context.look()
        if self.targets:
            return tuple(target.bind(seen) for target in self.targets)
        return tuple(target.rebind(seen) for target in _classes(seen.output))

    def _at(self, output: Tensor, images: Tensor) -> tuple[WeightField, ...]:
        """The targets bound at an output."""
        seen = UnperturbedOutput(
            output=output.detach(),
            input_shape=tuple(images.shape[2:]),
            classes=self._model.classes,
            stated=self._model.activation,
        )
        return tuple(target.rebind(seen) for target in self.targets or _classes(output))


def _parsed(
    target: AnyTarget | Sequence[AnyTarget] | None,
) -> tuple[tuple[Target, ...], bool]:
    """The targets, none for all classes; and whether one is asked for, not a list of them."""
    if isinstance(target, (int, str, Mapping, Target)):
        return (parse_target(target),), True
    return tuple(parse_target(each) for each in target or ()), False


def _classes(output: Tensor) -> tuple[Target, ...]:
    return tuple(Label(label=label) for label in range(max(2, output.shape[1])))

"""What is sampled: networks that drop units, several networks, and changed images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from voxplain.engine.context import Context
from voxplain.engine.randomness import generator
from voxplain.engine.variants.chains import Chain, Flip
from voxplain.engine.variants.dropout import NO_DROPOUT, dropout_draw, dropout_places
from voxplain.engine.variants.perturbations import (
    GaussianNeighbor,
    Perturbation,
    Rotation,
    Shift,
    WindowShift,
)
from voxplain.errors import ConfigError, ModelError, nearest
from voxplain.image import Image
from voxplain.models.model import Model


class _Sampling(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MonteCarloDropout(_Sampling):
    """Networks that drop units, each the same in the whole image.

    Units are dropped in dropout layers and where dropout is called as a function.

    Paper: Gal and Ghahramani, Dropout as a Bayesian approximation, 2016.
    """

    kind: Literal["dropout"] = "dropout"


class DeepEnsemble(_Sampling):
    """Several trained networks.

    Paper: Lakshminarayanan et al., Simple and scalable predictive uncertainty, 2017.
    """

    kind: Literal["ensemble"] = "ensemble"


class Augmentation(_Sampling):
    """Changed images, whose predictions are moved back before they are averaged.

    Paper: Wang et al., Aleatoric uncertainty estimation with test-time augmentation, 2019.

    Attributes:
        flips: Spatial axes along which half of the images are mirrored; ``lateral`` is the
            left-right axis where the grid states one, the columns of pictures, and else none.
        rotation: Largest angle in degrees, in the plane of the two longest axes.
        shift: Largest shift in voxels, along each axis.
        intensity: Largest change of level and width of the intensities, as a share of their range.
        noise: Standard deviation of Gaussian noise, as a share of the range of intensities.
    """

    kind: Literal["augmentation"] = "augmentation"
    flips: tuple[int, ...] | Literal["lateral"] = "lateral"
    rotation: float = Field(default=5.0, ge=0, le=45)
    shift: int = Field(default=2, ge=0)
    intensity: float = Field(default=0.05, ge=0)
    noise: float = Field(default=0.01, ge=0)

    def axes(self, context: Context) -> tuple[int, ...]:
        """The axes along which images are mirrored.

        Raises:
            ConfigError: If the image has no such axis.
        """
        rank = len(context.shape)
        if self.flips == "lateral":
            return _lateral(context.image, rank)
        if any(not 0 <= axis < rank for axis in self.flips):
            raise ConfigError(f"flips {list(self.flips)}: the image has axes 0 to {rank - 1}")
        return self.flips

    def change(self, context: Context, key: str, sample: int) -> Chain:
        """The changes of one sample."""
        source = generator(key, "augmentation", sample)
        shape, spacing = context.shape, context.spacing or ()
        long = [axis for axis, side in enumerate(shape) if side > 1]
        links: list[tuple[Perturbation, int]] = []
        flipped = tuple(axis for axis in self.axes(context) if _drawn(source) > 0)
        if flipped:
            links.append((Flip(flipped), 0))
        angle = self.rotation * _drawn(source)
        if angle and len(long) > 1:
            links.append((Rotation(angle, spacing), 0))
        voxels = [round(_drawn(source) * (self.shift + 0.499)) for _ in long]
        links += [(Shift(count), number) for number, count in enumerate(voxels) if count]
        if self.intensity:
            links.append((WindowShift(self.intensity), sample))
        if self.noise:
            links.append((GaussianNeighbor(self.noise), sample))
        return Chain(tuple(links))


Sampling = Annotated[MonteCarloDropout | DeepEnsemble | Augmentation, Field(discriminator="kind")]
Method = str | MonteCarloDropout | DeepEnsemble | Augmentation

_BY_NAME: dict[str, type[MonteCarloDropout | DeepEnsemble | Augmentation]] = {
    "dropout": MonteCarloDropout,
    "ensemble": DeepEnsemble,
    "augmentation": Augmentation,
}


@dataclass(frozen=True, eq=False)
class Sample:
    """A network and a change of the image.

    Attributes:
        network: Its number among those of an ensemble, else 0.
        model: The network.
        change: What the image becomes, and how its prediction is moved back.
    """

    network: int
    model: Model
    change: Perturbation


def parse_sampling(method: Method | Sequence[Method]) -> tuple[Sampling, ...]:
    """What is sampled: ``dropout``, ``ensemble``, ``augmentation``, or several joined by ``+``.

    Raises:
        ConfigError: With the nearest name, if there is none of this name, or one is named twice.
    """
    if isinstance(method, str):
        names = method.split("+")
        unknown = next((name for name in names if name not in _BY_NAME), None)
        if unknown is not None:
            raise ConfigError(
                f"unknown uncertainty method {unknown!r}; {nearest(unknown, tuple(_BY_NAME))}"
            )
        parsed: list[Sampling] = [_BY_NAME[name]() for name in names]
    elif isinstance(method, Sequence):
        parsed = [each for part in method for each in parse_sampling(part)]
    else:
        parsed = [method]
    if len({each.kind for each in parsed}) < len(parsed):
        raise ConfigError("an uncertainty method is named twice; name each once")
    return tuple(parsed)


def samples_of(
    models: Sequence[Model],
    context: Context,
    sampling: Sequence[Sampling],
    count: int,
    seed: int,
) -> Iterator[Sample]:
    """The samples, one after another; each depends on the seed and its number alone.

    Args:
        models: Several for an ensemble, else one.
        context: The image.
        sampling: What is sampled.
        count: How many samples.
        seed: Of the draws.

    Raises:
        ConfigError: If there are several networks and no ensemble, or one and an ensemble.
    """
    by_kind = {each.kind: each for each in sampling}
    _check(models, {*by_kind})
    key, augmentation = str(seed), by_kind.get("augmentation")
    for sample in range(count):
        network = sample % len(models)
        model = models[network]
        if "dropout" in by_kind:
            model = dropout_draw(model, key, sample)
        change: Perturbation = Chain()
        if isinstance(augmentation, Augmentation):
            change = augmentation.change(context, key, sample)
        yield Sample(network, model, change)


def _check(models: Sequence[Model], kinds: set[str]) -> None:
    if "ensemble" in kinds and len(models) < 2:
        raise ConfigError("an ensemble needs at least two networks; pass a list of them")
    if "ensemble" not in kinds and len(models) > 1:
        raise ConfigError(f"{len(models)} networks are an ensemble; add it to the method")


def dropout_found(contexts: Sequence[Context], sampling: Sequence[Sampling]) -> dict[str, int]:
    """How many places drop units, layers and calls of functions; empty without dropout.

    Of several networks the first one is counted.

    Raises:
        ModelError: If a network has none.
    """
    if all(each.kind != "dropout" for each in sampling):
        return {}
    found = [dropout_places(each.model, each.inputs[:1], each.spacing) for each in contexts]
    if not all(found):
        raise ModelError(f"{NO_DROPOUT}; augmentation works for every network")
    return {"dropout_layers": len(found[0].layers), "dropout_calls": found[0].calls}


def _drawn(source: torch.Generator) -> float:
    """A number between -1 and 1."""
    return float(torch.rand((), generator=source, dtype=torch.float64)) * 2 - 1


def _lateral(image: Image | None, rank: int) -> tuple[int, ...]:
    """The left-right axis; in 2-D without an orientation the columns."""
    codes = image.grid.orientation if image is not None else ""
    if not codes and rank == 2:
        return (1,)
    return tuple(axis for axis, code in enumerate(codes) if code in "LR")

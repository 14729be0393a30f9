"""Loading of networks from their files, as a study does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from voxplain.errors import ConfigError
from voxplain.image import Image
from voxplain.models.loading import ModelSpec, load_network, open_network, weights_sha256
from voxplain.models.model import Model
from voxplain.preprocess import Step, apply, parse_step
from voxplain.study.config.errors import explain_validation
from voxplain.study.config.study import ModelConfig
from voxplain.study.planning.networks import model_of

__all__ = ["LoadedNetwork", "ModelSpec", "load_model", "load_network", "weights_sha256"]


@dataclass(frozen=True, eq=False)
class LoadedNetwork:
    """A network with the preprocessing of its images.

    Attributes:
        model: For ``explain``, ``predict`` and ``evaluate``.
        preprocess: The steps of :meth:`prepare`.
    """

    model: Model
    preprocess: tuple[Step, ...]

    def prepare(self, image: Image) -> Image:
        """An image, as it was read, on the grid and in the intensities of the network.

        Raises:
            InputError: If a step does not fit the image.
        """
        return apply(image, self.preprocess)


def load_model(*, trust: bool = False, base: Path | None = None, **spec: Any) -> LoadedNetwork:
    """A network as a study states it, with the windows and preprocessing of its folder.

    Args:
        trust: Whether files may run code.
        base: Folder from which relative paths start; the working folder if None.
        **spec: The fields of a network of a study, such as ``nnunet``, ``folds``, ``bundle``.

    Raises:
        ConfigError: If a field is not known or does not fit.
        ModelError: If the network cannot be loaded.

    Example:
        >>> loaded = load_model(factory="torch.nn:Conv2d", arguments={
        ...     "in_channels": 1, "out_channels": 2, "kernel_size": 3}, window={"size": 16})
        >>> loaded.model.window.size
        16
    """
    try:
        config = ModelConfig.model_validate(spec)
    except ValidationError as error:
        raise ConfigError(explain_validation(error, ModelConfig, "load_model")) from error
    opened = open_network(config, trust=trust, base=base)
    config = config.completed(opened.beside)
    model = model_of(config, opened, config.precision or "auto")
    return LoadedNetwork(model, tuple(map(parse_step, config.preprocess)))

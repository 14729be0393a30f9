"""What tells networks of equal weights apart: how they are built, their code, what they answer."""

from __future__ import annotations

import hashlib
import inspect
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from voxplain.image import Image
from voxplain.models.loading import ModelSpec
from voxplain.models.model import Model
from voxplain.models.rest import observing
from voxplain.records.atomic import sha256
from voxplain.study.planning.tasks import digest

_PROJECTIONS = 3


def definition_sha256(spec: ModelSpec, network: nn.Module, base: Path) -> str:
    """A hash of the source of a network: its factory, arguments and code, or its file.

    Names of folders play no part: a moved factory is the same factory.

    Args:
        spec: Of the network.
        network: Built of it.
        base: Folder that relative paths start from.
    """
    factory = str(spec.factory or "").replace("\\", "/").rsplit("/", 1)[-1]
    file = sha256(base / spec.file) if spec.file is not None else ""
    return digest([factory, spec.arguments, file, sorted(map(sha256, _source_files(network)))])


def probe_shape(model: Model, image: Image) -> tuple[int, ...]:
    """``(C, *spatial)`` of what a network is given in one call for an image."""
    layout = model.layout(image.data, image.grid.spacing)
    return (len(image.data), *(layout.size if layout else image.data.shape[1:]))


def fingerprint(model: Model, shape: Sequence[int]) -> str:
    """A hash of what a network answers to a fixed pattern, the same for every study and image.

    A few sums of the output are rounded to a thousandth of the largest, so that another machine,
    which rounds otherwise, gives the same hash.

    Args:
        model: Called once, without gradients, and left as it was.
        shape: ``(C, *spatial)`` of the pattern.

    Raises:
        ModelError: If the network cannot take this shape.
    """
    places = torch.arange(math.prod(shape), dtype=torch.float64)
    pattern = (torch.sin(1.7 * places) + torch.cos(places / 97)).float().reshape(1, *shape)
    with observing(model.network):
        torch.manual_seed(0)
        sums = _sums(model(model.admit(pattern)))
    largest = float(sums.abs().max())
    rounded = torch.round(sums / (largest or 1.0), decimals=3) + 0.0  # no negative zero
    return hashlib.sha256(f"{largest:.3g} {rounded.tolist()}".encode()).hexdigest()


def _sums(output: Tensor) -> Tensor:
    """Mean, spread and place of the channels ``(1, K, ...)``, each under a few fixed weights."""
    values = torch.nan_to_num(output.detach().double().cpu()).reshape(output.shape[1], -1)
    along = torch.linspace(0, 1, values.shape[1], dtype=torch.float64)
    facts = torch.stack([values.mean(1), values.std(1, correction=0), (values * along).mean(1)])
    ranks = torch.arange(1, len(values) + 1, dtype=torch.float64)
    weights = torch.stack([torch.cos(ranks * turn) for turn in range(_PROJECTIONS)])
    return (facts @ weights.T).flatten() / len(values)


def _source_files(network: nn.Module) -> set[Path]:
    """The files of the code of a network, without torch; of its own files, what they import too."""
    waiting = {type(part).__module__ for part in network.modules()}
    seen: set[str] = set()
    files: set[Path] = set()
    while waiting:
        name = waiting.pop()
        module = sys.modules.get(name)
        if name in seen or module is None or name.partition(".")[0] == "torch":
            continue
        seen.add(name)
        file = _file(module)
        if file is not None:
            files.add(file)
            waiting.update(() if _is_packaged(file) else _imported(module))
    return files


def _imported(module: ModuleType) -> Iterator[str]:
    """Names of the modules behind the names of a module that are the user's own too."""
    for value in vars(module).values():
        name = value.__name__ if isinstance(value, ModuleType) else _home(value)
        file = _file(sys.modules[name]) if name in sys.modules else None
        if file is not None and not _is_packaged(file):
            yield name


def _home(value: object) -> str:
    """The name of the module in which a function or class was written."""
    name = getattr(value, "__module__", None)
    return name if isinstance(name, str) else ""


def _file(module: ModuleType) -> Path | None:
    place = getattr(module, "__file__", None)
    return Path(place) if place and Path(place).is_file() else None


def _is_packaged(file: Path) -> bool:
    """Whether a file belongs to Python, to an installed package or to voxplain."""
    homes = (Path(inspect.__file__).parent, Path(__file__).parents[2])
    return "site-packages" in file.parts or any(file.is_relative_to(home) for home in homes)

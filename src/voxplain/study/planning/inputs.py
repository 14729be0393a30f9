"""The images and networks of a study, read from their files."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from voxplain.attribution import Prediction, predict
from voxplain.errors import (
    ConfigError,
    InputError,
    ModelError,
    TargetError,
    VoxplainError,
    VoxplainWarning,
)
from voxplain.image import Image
from voxplain.io import read_image
from voxplain.metrics.other_networks import OtherNetwork, Role
from voxplain.models.loading import load_network
from voxplain.models.model import Model
from voxplain.preprocess import apply
from voxplain.records.sidecar import ModelFacts
from voxplain.study.config.case_files import OWN_REFERENCE, files_of
from voxplain.study.config.cases import CaseConfig
from voxplain.study.config.study import ModelConfig, StudyConfig
from voxplain.targets import Target


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A network of the study, ready to be asked."""

    config: ModelConfig
    model: Model
    facts: ModelFacts

    def prepare(self, image: Image) -> Image:
        """The image as this network wants to see it.

        Raises:
            InputError: If a preprocessing step does not fit the image.
        """
        with naming(f"model {self.config.name}, preprocess"):
            return apply(image, self.config.preprocess)

    @property
    def is_control(self) -> bool:
        """Whether it was trained on permuted labels."""
        return self.config.labels == "permuted"

    def alike(self, models: Mapping[str, LoadedModel]) -> list[LoadedModel]:
        """The other networks that want to see the same image.

        One that was trained on permuted labels is none where it has another architecture too:
        nobody could tell which of the two makes the difference.
        """
        return [
            other
            for name, other in models.items()
            if name != self.config.name
            and other.config.preprocess == self.config.preprocess
            and not (other.is_control and self._shares_architecture(other) is False)
        ]

    def networks(self, models: Mapping[str, LoadedModel]) -> list[OtherNetwork]:
        """The same networks, with how they differ."""
        return [OtherNetwork(other.model, self.differs(other)) for other in self.alike(models)]

    def differs(self, other: LoadedModel) -> Role | None:
        """How another network differs from this one; None where that cannot be told."""
        if other.is_control:
            return "labels"
        same = self._shares_architecture(other)
        return None if same is None else ("seed" if same else "architecture")

    def _shares_architecture(self, other: LoadedModel) -> bool | None:
        """By name where both have one, else by the names and shapes of their parameters."""
        named = self.config.architecture, other.config.architecture
        if all(named):
            return named[0] == named[1]
        ours, theirs = _structure(self.model), _structure(other.model)
        return ours == theirs if ours or theirs else None


def _structure(model: Model) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters by name; empty for networks that hold none, such as ONNX files."""
    return {name: tuple(part.shape) for name, part in model.network.named_parameters()}


@contextlib.contextmanager
def naming(where: str) -> Iterator[None]:
    """Puts the place in front of the sentence of an error."""
    try:
        yield
    except VoxplainError as error:
        raise type(error)(f"{where}: {error}") from error


@contextlib.contextmanager
def remarks(into: list[str]) -> Iterator[None]:
    """Collects the warnings of voxplain, each once, and lets others through."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        warnings.simplefilter("always", VoxplainWarning)
        yield
    for warning in caught:
        text = str(warning.message)
        if not issubclass(warning.category, VoxplainWarning):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
        elif text not in into:
            into.append(text)


def read_case(case: CaseConfig) -> Image:
    """The image of a case.

    Raises:
        InputError: With the id of the case, if a file is missing, broken or holds NaN.
    """
    with naming(f"case {case.id}"):
        spacing = case.spacing[0] if case.spacing and len(case.spacing) == 1 else case.spacing
        return read_image(case.image, channels=case.channels, rank=case.rank, spacing=spacing)


def content_sha256(image: Image) -> str:
    """A hash of the voxels and of where they lie, whatever file they came in."""
    digest = hashlib.sha256(repr((image.data.shape, image.grid.unit)).encode())
    digest.update(image.grid.affine.tobytes())
    digest.update(image.data.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def load_model(config: ModelConfig, study: StudyConfig, trust: bool) -> LoadedModel:
    """A network of the study with its weights, on its device.

    Args:
        config: As the study says.
        study: Says where paths start, on which device and in which precision networks run.
        trust: Whether files that run code may be opened.

    Raises:
        ConfigError: If the device is not there.
        ModelError: With the name of the model.
    """
    device = find_device(study.execution.device)
    with naming(f"model {config.name}"):
        network = load_network(config, trust=trust, base=study.base).to(device)
        model = Model(
            network,
            head=config.head,
            window=config.window,
            precision=config.precision or study.execution.precision,
            name=config.name,
            classes=config.classes,
        )
    return LoadedModel(config, model, model.facts)


def open_first(
    case: CaseConfig, config: ModelConfig, study: StudyConfig, trust: bool
) -> tuple[LoadedModel, Image]:
    """One network of a study, and one case as that network wants to see it."""
    loaded = load_model(config, study, trust)
    with naming(f"case {case.id}"):
        return loaded, loaded.prepare(read_case(case))


def read_references(study: StudyConfig, cases: dict[str, CaseConfig]) -> list[Image]:
    """The reference images of a study: case ids, or files of their own.

    Raises:
        InputError: If one is neither.
    """
    return [read_case(_reference(name, study, cases)) for name in study.references]


def sources(study: StudyConfig, cases: tuple[CaseConfig, ...]) -> list[Path]:
    """Every file a study reads, for keeping their names out of what it writes."""
    images = [path for case in cases for path in (*case.image, case.reference) if path]
    weights = [
        path
        for model in study.models
        for path in (model.weights, model.bundle, model.file)
        if path is not None
    ]
    named = [
        text.replace("*", str(case.id))
        for part in (*study.all_targets, *study.methods)
        for text in files_of(part)
        for case in cases
        if text != OWN_REFERENCE
    ]
    others = [*map(str, weights), *study.references, *named]
    return [*images, *(study.base / text for text in others)]


def find_device(name: str) -> torch.device:
    """A device by its name; ``auto`` is the first CUDA device, or the CPU.

    Raises:
        ConfigError: If this machine, or this build of torch, does not have it.
    """
    cuda = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if cuda else "cpu")
    device = torch.device(name)
    there = {"cpu": True, "mps": torch.backends.mps.is_available(), "cuda": cuda > 0}
    if not there[device.type] or (device.index or 0) >= max(1, cuda):
        raise ConfigError(f"run.device: {name} is not there; `voxplain doctor` lists the devices")
    return device


def device_name(model: Model) -> str:
    """Where a network runs: ``cpu``, or the name of the accelerator."""
    device = model.device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _reference(name: str, study: StudyConfig, cases: dict[str, CaseConfig]) -> CaseConfig:
    if name in cases:
        return cases[name]
    if not (study.base / name).exists():
        raise InputError(f"references: {name!r} is neither the id of a case nor a file")
    return CaseConfig(id="reference", image=(study.base / name,))


# What networks raise for an image they cannot take.
_FROM_A_CALL = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def predict_case(loaded: LoadedModel, image: Image, target: Target) -> Prediction:
    """What a network says of an image, with its failures in words.

    Args:
        loaded: The network.
        image: As the network wants to see it.
        target: What is asked.

    Raises:
        ModelError: If the network cannot take the image.
        TargetError: If the target does not fit the prediction.
    """
    try:
        return predict(loaded.model, image, target)
    except (TargetError, InputError):
        raise
    except (
        VoxplainError,
        RuntimeError,
        ValueError,
        TypeError,
        IndexError,
        AssertionError,
    ) as error:
        known = _misfit(loaded.model.network, image)
        if known is None and isinstance(error, VoxplainError):
            raise
        raise ModelError(known or _refusal(image, error)) from error


def _misfit(network: nn.Module, image: Image) -> str | None:
    """How the first convolution disagrees with the image, which is why a call fails."""
    first = next((part for part in network.modules() if isinstance(part, _CONVOLUTIONS)), None)
    if first is None:
        return None
    rank, channels = first.weight.ndim - 2, len(image.data)
    if rank != image.rank:
        shape = "x".join(map(str, image.grid.shape))
        return f"the network is {rank}-D and the image is {image.rank}-D ({shape})"
    if first.in_channels != channels:
        names = ", ".join(image.channels)
        return (
            f"the network takes {first.in_channels} channels and the image has {channels} ({names})"
        )
    return None


def _refusal(image: Image, error: Exception) -> str:
    shape = "x".join(map(str, image.grid.shape))
    first_line = next(iter(str(error).strip().splitlines()), "")[:160]
    return (
        f"the network cannot take this image ({len(image.data)} channels, {shape}); a "
        f"preprocessing step such as pad_to_multiple may be missing ({type(error).__name__}: "
        f"{first_line})"
    )

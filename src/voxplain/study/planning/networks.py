"""The networks of a study: where they come from, and how they differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from voxplain.errors import ConfigError, ModelError
from voxplain.image import Image
from voxplain.metrics.other_networks import OtherNetwork, Role
from voxplain.models.loading import OpenedNetwork, open_network
from voxplain.models.model import Model, Offload
from voxplain.models.precision import Precision
from voxplain.preprocess import apply
from voxplain.records.sidecar import ModelFacts
from voxplain.study.config.cases import CaseConfig
from voxplain.study.config.study import ModelConfig, StudyConfig
from voxplain.study.planning.identity import definition_sha256
from voxplain.study.planning.images import read_case
from voxplain.study.planning.messages import errors_at


@dataclass(frozen=True)
class NetworkSource:
    """Where a network comes from and how it runs; any process that sees its files can load it.

    Attributes:
        config: As the study says.
        base: Folder that relative paths start from.
        device: Name of a device, or ``auto``.
        precision: Numeric type of the passes, where ``config`` names none.
        trust: Whether files that run code may be opened.
        facts: What the network was when the study was checked; None before.
        offload: What is done with what a backward pass needs.
    """

    config: ModelConfig
    base: Path
    device: str
    precision: Precision
    trust: bool
    facts: ModelFacts | None = None
    offload: Offload = "auto"

    @classmethod
    def of(cls, config: ModelConfig, study: StudyConfig, trust: bool) -> NetworkSource:
        """The source of a network of a study."""
        run = study.execution
        return cls(config, study.base, run.device, run.precision, trust, offload=run.offload)

    @property
    def files(self) -> list[Path]:
        """The files that hold the network and its weights."""
        config = self.config
        named = (config.weights, config.bundle, config.file, config.nnunet)
        return [self.base / path for path in named if path is not None]

    def load(self) -> LoadedModel:
        """The network with its weights, on its device.

        Raises:
            ConfigError: If the device is not there.
            ModelError: With the name of the model; also if it is not what was planned with.
        """
        device = find_device(self.device)
        with errors_at(f"model {self.config.name}"):
            opened = open_network(self.config, trust=self.trust, base=self.base)
            network, config = opened.network.to(device), self.config.completed(opened.beside)
            precision = config.precision or self.precision
            model = model_of(config, opened, precision, self.offload)
            facts = model.facts
            _require_unchanged(facts, self.facts or facts)
            definition = definition_sha256(config, network, self.base)
        return LoadedModel(replace(self, config=config, facts=facts), model, facts, definition)


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A network of the study that is ready to run.

    Attributes:
        source: Where it comes from, with its facts.
        model: The network.
        facts: What sidecars and the manifest say of it.
        definition: Hash of its factory, arguments and code.
        fingerprint: Hash of what it answers to a fixed pattern; empty where that is not known.
        probe: ``(C, *spatial)`` of the pattern.
    """

    source: NetworkSource
    model: Model
    facts: ModelFacts
    definition: str = ""
    fingerprint: str = ""
    probe: tuple[int, ...] = ()

    @property
    def config(self) -> ModelConfig:
        """What the study says of it."""
        return self.source.config

    @property
    def identity(self) -> dict[str, object]:
        """What determines its results beyond its weights and how it is run."""
        activation = self.config.activation
        return {
            "name": self.config.name,
            "classes": self.config.classes,
            "definition": self.definition,
            "fingerprint": self.fingerprint,
            **({} if activation == "auto" else {"activation": activation}),
        }

    def prepare(self, image: Image) -> Image:
        """The image after the preprocessing of this network.

        Raises:
            InputError: If a preprocessing step does not fit the image.
        """
        with errors_at(f"model {self.config.name}, preprocess"):
            return apply(image, self.config.preprocess)

    @property
    def has_permuted_labels(self) -> bool:
        """Whether it was trained on permuted labels."""
        return self.config.labels == "permuted"

    def comparable(self, models: Mapping[str, LoadedModel]) -> list[LoadedModel]:
        """The other networks with the same preprocessing.

        A network that was trained on permuted labels is left out where its architecture differs
        as well: its maps could differ for either reason.
        """
        return [
            other
            for name, other in models.items()
            if name != self.config.name
            and other.config.preprocess == self.config.preprocess
            and not (other.has_permuted_labels and self._shares_architecture(other) is False)
        ]

    def as_other_network(self, other: LoadedModel) -> OtherNetwork:
        """Another network as metrics compare it with this one."""
        return OtherNetwork(other.model, self.differs(other))

    def differs(self, other: LoadedModel) -> Role | None:
        """How another network differs from this one; None where that cannot be told."""
        if other.has_permuted_labels:
            return "labels"
        same = self._shares_architecture(other)
        return None if same is None else ("seed" if same else "architecture")

    def _shares_architecture(self, other: LoadedModel) -> bool | None:
        """By name where both have one, else by the names and shapes of their parameters."""
        names = self.config.architecture, other.config.architecture
        if all(names):
            return names[0] == names[1]
        shapes = _parameter_shapes(self.model), _parameter_shapes(other.model)
        return shapes[0] == shapes[1] if any(shapes) else None


def model_of(
    config: ModelConfig, opened: OpenedNetwork, precision: Precision, offload: Offload = "auto"
) -> Model:
    """A network as it is explained.

    Args:
        config: With what its folder states.
        opened: The network, on its device.
        precision: Numeric type of the passes.
        offload: What is done with what autograd saves.
    """
    return Model(
        opened.network,
        head=config.head,
        window=config.window,
        precision=precision,
        offload=offload,
        name=config.name,
        classes=config.classes,
        activation=config.activation,
        remarks=opened.beside.remarks,
    )


def open_first(
    case: CaseConfig, config: ModelConfig, study: StudyConfig, trust: bool
) -> tuple[LoadedModel, Image]:
    """One network of a study, and one case after the preprocessing of that network."""
    loaded = NetworkSource.of(config, study, trust).load()
    with errors_at(f"case {case.id}"):
        return loaded, loaded.prepare(read_case(case))


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


def _parameter_shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters by name; empty for networks that hold none, such as ONNX files."""
    return {name: tuple(value.shape) for name, value in model.network.named_parameters()}


def _require_unchanged(facts: ModelFacts, planned: ModelFacts) -> None:
    before = dict(planned)
    changed = [name for name, value in facts if value != before[name]]
    if changed:
        raise ModelError(
            f"its {' and '.join(changed)} changed after the study was checked; run the study again"
        )

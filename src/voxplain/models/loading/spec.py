"""The source of a network in a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from voxplain.models.head import StatedActivation
from voxplain.models.loading.nnunet import Folds


def _listed(value: Any) -> Any:
    """One fold as a list of it."""
    return (value,) if isinstance(value, (int, str)) else value


class ModelSpec(BaseModel):
    """A network of a study: exactly one of ``factory``, ``bundle``, ``file``, ``nnunet``.

    Attributes:
        name: Name in file names and reports.
        factory: ``package.module:Name`` of an installed package: a subclass of ``nn.Module``, or
            a function whose return annotation is one. Anything else, such as
            ``nets/unet.py:function`` of a file, can run any code, so it needs trust.
        arguments: Keyword arguments of the factory.
        weights: A safetensors file, or a ``state_dict`` saved by torch, alone or in a checkpoint.
        prefix: Prefix of the names in the weights file, such as ``module.``; determined from the
            names if None.
        part: Entry of a checkpoint with several sets of weights, such as ``state_dict_ema``; names
            inside each other with a slash between them.
        bundle: Folder of a MONAI bundle (needs trust).
        file: An ONNX file, or a TorchScript or pickled module (both need trust).
        nnunet: A trained folder of nnU-Net v2, with ``plans.json``, ``dataset.json`` and folds.
        folds: Of an nnU-Net folder, such as ``0`` or ``[0, 1]``, each a network of its own unless
            ``ensemble`` is true; the ensemble of all that are there if none is named.
        ensemble: Whether the mean of the folds is the network, as nnU-Net predicts.
        checkpoint: Name of the file in each fold; ``checkpoint_final.pth``, or else
            ``checkpoint_best.pth``, if None.
        head: The explained part of a tuple, list or dict output: an index or a key.
        window: Sliding windows.
        precision: Numeric type of the passes.
        classes: Names of the output classes, for reports.
        activation: What turns the output into probabilities (``softmax`` or ``sigmoid``), where a
            target leaves it open; ``auto`` to find out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(default="network", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    factory: str | None = Field(default=None, pattern=r"^[^:].*:[A-Za-z_][\w.]*$")
    arguments: dict[str, Any] = Field(default_factory=dict)
    weights: Path | None = None
    prefix: str | None = None
    part: str | None = None
    bundle: Path | None = None
    file: Path | None = None
    nnunet: Path | None = None
    folds: Annotated[Folds, BeforeValidator(_listed)] = ()
    ensemble: bool = False
    checkpoint: str | None = Field(default=None, pattern=r"^[\w.-]+$")
    head: int | str | None = None
    window: Any = None
    precision: Any = None
    classes: tuple[str, ...] = ()
    activation: StatedActivation = "auto"

    @model_validator(mode="after")
    def _one_source(self) -> ModelSpec:
        sources = {
            "factory": self.factory,
            "bundle": self.bundle,
            "file": self.file,
            "nnunet": self.nnunet,
        }
        names = [name for name, source in sources.items() if source is not None]
        if len(names) != 1:
            stated = " and ".join(names) or "none of them"
            raise ValueError(f"give exactly one of factory, bundle, file and nnunet, not {stated}")
        if self.arguments and self.factory is None:
            raise ValueError(f"arguments belong to a factory, and this network is a {names[0]}")
        beside = (self.weights, self.prefix, self.part)
        if self.file is not None and any(value is not None for value in beside):
            raise ValueError("a network from a file brings its weights; leave weights out")
        return self

    @model_validator(mode="after")
    def _folds_of_nnunet(self) -> ModelSpec:
        if self.nnunet is not None:
            if any(value is not None for value in (self.weights, self.prefix, self.part)):
                raise ValueError("an nnU-Net folder brings its weights; leave weights out")
            if len({*self.folds}) != len(self.folds):
                raise ValueError(f"folds {list(self.folds)} name one twice")
        elif self.folds or self.ensemble or self.checkpoint is not None:
            raise ValueError("folds, ensemble and checkpoint belong to an nnunet folder")
        return self

"""The source of a network in a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ModelSpec(BaseModel):
    """A network of a study: exactly one of ``factory``, ``bundle`` and ``file``.

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
        head: The explained part of a tuple, list or dict output: an index or a key.
        window: Sliding windows.
        precision: Numeric type of the passes.
        classes: Names of the output classes, for reports.
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
    head: int | str | None = None
    window: Any = None
    precision: Any = None
    classes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_source(self) -> ModelSpec:
        sources = {"factory": self.factory, "bundle": self.bundle, "file": self.file}
        names = [name for name, source in sources.items() if source is not None]
        if len(names) != 1:
            stated = " and ".join(names) or "none of them"
            raise ValueError(f"give exactly one of factory, bundle and file, not {stated}")
        if self.arguments and self.factory is None:
            raise ValueError(f"arguments belong to a factory, and this network is a {names[0]}")
        beside = (self.weights, self.prefix, self.part)
        if self.file is not None and any(value is not None for value in beside):
            raise ValueError("a network from a file brings its weights; leave weights out")
        return self

"""Flags that several commands share: the network, the image and its preprocessing."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from voxplain.cli.flag_values import parsed_json, parsed_parameters, parsed_target, parsed_values
from voxplain.errors import ConfigError

_NETWORK, _IMAGE = "Network", "Image and preprocessing"
F = TypeVar("F", bound=Callable[..., None])


def _network(name: str, text: str) -> Any:
    return typer.Option(name, help=text, rich_help_panel=_NETWORK)


def _image(name: str, text: str) -> Any:
    return typer.Option(name, help=text, rich_help_panel=_IMAGE)


MaxPasses = Annotated[
    int | None,
    typer.Option(
        "--max-passes",
        min=1,
        help="Refuse a method that takes more passes or forwards for one image, before anything "
        "starts; else run.max_passes of the study holds, which is 20,000 unless it says otherwise.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class SharedFlags:
    """One image and one network, as flags state them."""

    images: Annotated[
        list[Path],
        typer.Argument(
            help="A NIfTI, DICOM folder, PNG, TIFF or NumPy file; several become channels. "
            "Or a study file (.yaml, .json), whose first case and network are taken.",
            show_default=False,
        ),
    ]
    factory: Annotated[
        str | None,
        _network(
            "--factory",
            "package.module:Name of an installed package, a network class or a function that "
            "states a network as what it returns; others need --trust, as do files (net.py:build).",
        ),
    ] = None
    bundle: Annotated[Path | None, _network("--bundle", "MONAI bundle folder (needs --trust).")] = (
        None
    )
    file: Annotated[
        Path | None,
        _network("--file", "Pickled, TorchScript (both need --trust) or ONNX network."),
    ] = None
    nnunet: Annotated[
        Path | None,
        _network("--nnunet", "Trained folder of nnU-Net v2 (extra nnunet)."),
    ] = None
    folds: Annotated[
        str | None,
        _network("--folds", "Of an nnU-Net folder: 0, or 0,1 for their mean; all if left out."),
    ] = None
    weights: Annotated[
        Path | None, _network("--weights", "safetensors, or a PyTorch state_dict.")
    ] = None
    arguments: Annotated[
        str | None,
        _network("--arguments", """Arguments of the factory, as JSON: '{"classes": 4}'."""),
    ] = None
    head: Annotated[
        str | None,
        _network("--head", "Index or key of the output, where the network returns several."),
    ] = None
    window: Annotated[
        str | None, _network("--window", "Sliding window: 64, or 64,64,32, or 80mm.")
    ] = None
    overlap: Annotated[
        str,
        _network("--overlap", "Share of a window that its neighbors cover too: 0.5, or 0.5,0.5,0."),
    ] = "0.5"
    precision: Annotated[
        str, _network("--precision", "auto, float32, float64, tf32, bfloat16 or float16.")
    ] = "auto"
    device: Annotated[str, _network("--device", "auto, cpu, cuda, cuda:1 or mps.")] = "auto"
    trust: Annotated[
        bool, _network("--trust", "Run code of others: pickles, bundles, .py files, any factory.")
    ] = False
    id: Annotated[str, _image("--id", "Name of the image in files and reports.")] = "scan"
    channels: Annotated[
        str | None, _image("--channels", "first or last: channel axis of a NumPy array.")
    ] = None
    rank: Annotated[int | None, _image("--rank", "2 or 3, where the file does not say.")] = None
    series: Annotated[
        int | None, _image("--series", "Series number, for DICOM folders with several.")
    ] = None
    reorient: Annotated[str | None, _image("--reorient", "Axis directions, such as RAS.")] = None
    spacing: Annotated[str | None, _image("--spacing", "Voxel size in mm: 1, or 1,1,2.5.")] = None
    crop_foreground: Annotated[
        bool, _image("--crop-foreground", "Crop to where the image is above 0.")
    ] = False
    normalize: Annotated[
        str | None,
        _image(
            "--normalize",
            "zscore, minmax, percentile, or with details: zscore:foreground=true",
        ),
    ] = None
    pad_to_multiple: Annotated[
        str | None, _image("--pad-to-multiple", "Pad every axis to a multiple of: 16.")
    ] = None
    preprocess: Annotated[
        str | None,
        _image("--preprocess", "All steps as a JSON list, in place of the flags above."),
    ] = None

    @property
    def is_study(self) -> bool:
        """Whether a study file stands in place of an image."""
        first = self.images[0]
        return len(self.images) == 1 and first.suffix.lower() in {".yaml", ".yml", ".json"}

    def case(self) -> dict[str, Any]:
        """The image as a case of a study; its id holds no file name unless it is given."""
        absolute = [str(path.absolute()) for path in self.images]
        return _stated(
            id=self.id,
            image=absolute,
            channels=self.channels,
            rank=self.rank,
            series=self.series,
        )

    def model(self) -> dict[str, Any]:
        """The network as a model of a study."""
        window = None
        if self.window is not None:
            window = {"size": parsed_values(self.window), "overlap": parsed_values(self.overlap)}
        arguments = None
        if self.arguments is not None:
            arguments = parsed_json(self.arguments, "--arguments")
        return _stated(
            name=self._name(),
            arguments=arguments,
            head=None if self.head is None else parsed_values(self.head),
            window=window,
            precision=self.precision,
            preprocess=self._steps(),
            **self.network(),
        )

    def network(self) -> dict[str, Any]:
        """The flags that say where the network is, as far as they are given."""
        files = {name: getattr(self, name) for name in ("bundle", "file", "nnunet", "weights")}
        absolute = {name: str(path.absolute()) for name, path in files.items() if path is not None}
        return _stated(factory=self.factory, **absolute, **self._folds())

    def _folds(self) -> dict[str, Any]:
        """Several folds are one network here: their mean."""
        if self.folds is None:
            return {}
        folds = parsed_values(self.folds)
        several = isinstance(folds, list)
        return {"folds": folds if several else [folds], **({"ensemble": True} if several else {})}

    def study(
        self,
        target: str | None,
        methods: Sequence[Any] = ("saliency",),
        seed: int = 0,
        analyses: Sequence[Any] = (),
    ) -> dict[str, Any]:
        """A study of this image and this network, as a file would state it.

        Args:
            target: As a flag states it; None where nothing asks for one.
            methods: Names, or mappings with parameters.
            seed: Of all random draws.
            analyses: Names, or mappings with parameters.
        """
        asked = {} if target is None else {"target": parsed_target(target)}
        return {
            **asked,
            "cases": [self.case()],
            "models": [self.model()],
            "methods": list(methods),
            "analyses": list(analyses),
            "run": {"seed": seed, "device": self.device},
        }

    def _name(self) -> str:
        if self.factory is not None:
            return self.factory.rsplit(":", 1)[-1]
        return "network"

    def _steps(self) -> list[Any]:
        if self.preprocess is not None:
            self._require_no_single_steps()
            steps = parsed_json(self.preprocess, "--preprocess")
            return steps if isinstance(steps, list) else [steps]
        steps = []
        if self.reorient is not None:
            steps.append({"kind": "reorient", "axes": self.reorient})
        if self.spacing is not None:
            steps.append({"kind": "spacing", "size": parsed_values(self.spacing)})
        if self.crop_foreground:
            steps.append({"kind": "crop_foreground"})
        if self.normalize is not None:
            mode, _, details = self.normalize.partition(":")
            steps.append({"kind": "normalize", "mode": mode, **parsed_parameters(details)})
        if self.pad_to_multiple is not None:
            steps.append(
                {"kind": "pad_to_multiple", "multiple": parsed_values(self.pad_to_multiple)}
            )
        return steps

    def _require_no_single_steps(self) -> None:
        given = [name for name in _SINGLE_STEPS if getattr(self, name)]
        if given:
            flags = " and ".join(f"--{name.replace('_', '-')}" for name in given)
            raise ConfigError(
                f"--preprocess states all steps, so {flags} beside it would be left out; write "
                "them into the list"
            )


_SINGLE_STEPS = ("reorient", "spacing", "crop_foreground", "normalize", "pad_to_multiple")


def with_request(command: F) -> F:
    """Gives a command the flags of :class:`SharedFlags`, and passes it the request they make.

    Args:
        command: A function whose first parameter is a request.
    """
    own = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    ]
    hints = get_type_hints(SharedFlags, include_extras=True)
    shared = [_parameter(field, hints[field.name]) for field in dataclasses.fields(SharedFlags)]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        request = SharedFlags(**{flag.name: values.pop(flag.name) for flag in shared})
        command(request, **values)

    # Typer reads a command from its signature and its annotations.
    signature = inspect.Signature([*shared, *own])
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {flag.name: flag.annotation for flag in [*shared, *own]}
    return run  # type: ignore[return-value]


def _parameter(field: dataclasses.Field[Any], annotation: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _stated(**fields: Any) -> dict[str, Any]:
    """The fields that are given."""
    return {name: value for name, value in fields.items() if value not in (None, [])}

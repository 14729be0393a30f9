"""Flags that several commands share: which network, which image, how it is prepared."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer
import yaml

from voxplain.errors import ConfigError

_NETWORK, _IMAGE = "Network", "Image and preprocessing"
F = TypeVar("F", bound=Callable[..., None])


def _network(*names: str, help: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=_NETWORK)


def _image(*names: str, help: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=_IMAGE)


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
class Request:
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
        _network("--factory", help="package.module:function that builds the network."),
    ] = None
    bundle: Annotated[
        Path | None, _network("--bundle", help="MONAI bundle folder (needs --trust).")
    ] = None
    file: Annotated[
        Path | None,
        _network("--file", help="Pickled, TorchScript (both need --trust) or ONNX network."),
    ] = None
    weights: Annotated[
        Path | None, _network("--weights", help="safetensors, or a PyTorch state_dict.")
    ] = None
    arguments: Annotated[
        str | None,
        _network("--arguments", help="""Arguments of the factory, as JSON: '{"classes": 4}'."""),
    ] = None
    head: Annotated[
        str | None,
        _network("--head", help="Index or key of the output, where the network gives several."),
    ] = None
    window: Annotated[
        str | None, _network("--window", help="Sliding window: 64, or 64,64,32, or 80mm.")
    ] = None
    overlap: Annotated[
        float, _network("--overlap", help="Share of a window that its neighbors cover too.")
    ] = 0.5
    precision: Annotated[
        str, _network("--precision", help="auto, float32, float64, bfloat16 or float16.")
    ] = "auto"
    device: Annotated[str, _network("--device", help="auto, cpu, cuda, cuda:1 or mps.")] = "auto"
    trust: Annotated[
        bool, _network("--trust", help="Open files that run code (pickles, bundles, .py files).")
    ] = False
    id: Annotated[str, _image("--id", help="Name of the image in files and reports.")] = "scan"
    channels: Annotated[
        str | None, _image("--channels", help="first or last: channel axis of a NumPy array.")
    ] = None
    rank: Annotated[int | None, _image("--rank", help="2 or 3, where the file leaves it open.")] = (
        None
    )
    reorient: Annotated[str | None, _image("--reorient", help="Axis directions, such as RAS.")] = (
        None
    )
    spacing: Annotated[str | None, _image("--spacing", help="Voxel size in mm: 1, or 1,1,2.5.")] = (
        None
    )
    crop_foreground: Annotated[
        bool, _image("--crop-foreground", help="Crop to where the image is above 0.")
    ] = False
    normalize: Annotated[
        str | None,
        _image(
            "--normalize",
            help="zscore, minmax, percentile, or with details: zscore:foreground=true",
        ),
    ] = None
    pad_to_multiple: Annotated[
        str | None, _image("--pad-to-multiple", help="Pad every axis to a multiple of: 16.")
    ] = None
    preprocess: Annotated[
        str | None,
        _image("--preprocess", help="All steps as a JSON list, in place of the flags above."),
    ] = None

    @property
    def is_study(self) -> bool:
        """Whether a study file stands in place of an image."""
        first = self.images[0]
        return len(self.images) == 1 and first.suffix.lower() in {".yaml", ".yml", ".json"}

    def case(self) -> dict[str, Any]:
        """The image as a case of a study; unless told, its id says nothing of the file."""
        absolute = [str(path.absolute()) for path in self.images]
        return _given(id=self.id, image=absolute, channels=self.channels, rank=self.rank)

    def model(self) -> dict[str, Any]:
        """The network as a model of a study."""
        files = {name: getattr(self, name) for name in ("bundle", "file", "weights")}
        window = None
        if self.window is not None:
            window = {"size": _values(self.window), "overlap": self.overlap}
        return _given(
            name=self._name(),
            factory=self.factory,
            arguments=None
            if self.arguments is None
            else parsed_json(self.arguments, "--arguments"),
            head=None if self.head is None else _values(self.head),
            window=window,
            precision=self.precision,
            preprocess=self._steps(),
            **{name: str(path.absolute()) for name, path in files.items() if path is not None},
        )

    def network(self) -> dict[str, Any]:
        """The flags that say where a network is, as far as they are stated."""
        files = {name: getattr(self, name) for name in ("bundle", "file", "weights")}
        absolute = {name: str(path.absolute()) for name, path in files.items() if path is not None}
        return _given(factory=self.factory, **absolute)

    def _name(self) -> str:
        if self.factory is not None:
            return self.factory.rsplit(":", 1)[-1]
        return "network"

    def _steps(self) -> list[Any]:
        if self.preprocess is not None:
            steps = parsed_json(self.preprocess, "--preprocess")
            return steps if isinstance(steps, list) else [steps]
        steps = []
        if self.reorient is not None:
            steps.append({"kind": "reorient", "axes": self.reorient})
        if self.spacing is not None:
            steps.append({"kind": "spacing", "size": _values(self.spacing)})
        if self.crop_foreground:
            steps.append({"kind": "crop_foreground"})
        if self.normalize is not None:
            mode, _, details = self.normalize.partition(":")
            steps.append({"kind": "normalize", "mode": mode, **parameters(details)})
        if self.pad_to_multiple is not None:
            steps.append({"kind": "pad_to_multiple", "multiple": _values(self.pad_to_multiple)})
        return steps


def with_request(command: F) -> F:
    """Gives a command the flags of :class:`Request` and hands it the filled-in request first.

    Args:
        command: A function whose first parameter is a request.
    """
    own = [
        part.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for part in list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    ]
    hints = get_type_hints(Request, include_extras=True)
    shared = [_parameter(part, hints[part.name]) for part in dataclasses.fields(Request)]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        request = Request(**{part.name: values.pop(part.name) for part in shared})
        command(request, **values)

    # Typer reads a command from its signature and its annotations.
    signature = inspect.Signature([*shared, *own])
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {part.name: part.annotation for part in [*shared, *own]}
    return run  # type: ignore[return-value]


def parameters(text: str) -> dict[str, Any]:
    """``"steps=16,layers=[enc1,enc2]"`` as a mapping; values are read as YAML.

    Raises:
        ConfigError: If a part has no ``=``.
    """
    found = {}
    for part in _split(text):
        name, equals, value = part.partition("=")
        if not equals:
            raise ConfigError(f"{part!r} is not name=value; write steps=16,baseline=minimum")
        found[name.strip()] = yaml.safe_load(value)
    return found


def named(text: str, flag: str = "--method") -> str | dict[str, Any]:
    """``"integrated_gradients:steps=16"`` as a name, or as a mapping with its parameters."""
    if text.lstrip().startswith("{"):
        mapping: dict[str, Any] = parsed_json(text, flag)
        return mapping
    name, _, details = text.partition(":")
    return {"name": name, **parameters(details)} if details else name


def asked(text: str) -> int | str | dict[str, Any]:
    """A target as a flag states it: a class, ``kind:class``, ``kind:name=value,...`` or JSON."""
    if text.lstrip().startswith("{"):
        mapping: dict[str, Any] = parsed_json(text, "--target")
        return mapping
    kind, _, details = text.partition(":")
    if "=" in details:
        return {"kind": kind, **parameters(details)}
    return int(text) if text.isdigit() else text


def parsed_json(text: str, flag: str) -> Any:
    """JSON from a flag.

    Raises:
        ConfigError: If it is none.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{flag}: not JSON ({error.msg} at character {error.pos})") from error


def _parameter(part: dataclasses.Field[Any], annotation: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if part.default is dataclasses.MISSING else part.default
    return inspect.Parameter(
        part.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _values(text: str) -> Any:
    """One value, or a list of comma-separated ones."""
    values = [yaml.safe_load(part) for part in text.split(",")]
    return values[0] if len(values) == 1 else values


def _split(text: str) -> list[str]:
    """Parts between commas that stand outside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[{(") - (character in "]})")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part for part in parts if part.strip()]


def _given(**fields: Any) -> dict[str, Any]:
    """The fields that were stated."""
    return {name: value for name, value in fields.items() if value not in (None, [])}

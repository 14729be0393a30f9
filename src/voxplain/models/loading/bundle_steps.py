"""The preprocessing and the inferer of a MONAI bundle, as steps and windows of a study."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from voxplain.errors import ModelError

Transform = Mapping[str, Any]
Step = dict[str, Any]


class NoCounterpartError(ModelError):
    """Something of a bundle that cannot be said in a study, in words."""


def steps_of(preprocessing: Any) -> tuple[Step, ...]:
    """The steps that do the same as the transforms of a bundle to its image.

    Args:
        preprocessing: The part of the configuration, its references resolved.

    Raises:
        NoCounterpartError: With the transform, if one has no counterpart.
    """
    transforms = [each for each in _listed(preprocessing) if not each.get("_disabled_")]
    loading = (each for each in transforms if _name(each) == "LoadImage")
    image = next((_keys(each)[0] for each in loading if _keys(each)), None)
    steps: list[Step] = []
    for transform in transforms:
        keys = _keys(transform)
        if image is not None and keys and image not in keys:
            continue  # of the label, and not of the image
        steps += _steps(transform)
    return tuple(steps)


def window_of(inferer: Any) -> Step | None:
    """The windows of an inferer; None for one without windows.

    Raises:
        NoCounterpartError: If it does something else.
    """
    if not isinstance(inferer, Mapping):
        raise NoCounterpartError("an expression")
    name = _class(inferer)
    if name == "SimpleInferer":
        return None
    if name not in ("SlidingWindowInferer", "SlidingWindowInfererAdapt"):
        raise NoCounterpartError(name)
    given = _Arguments(inferer, ignored=_NOT_OF_WINDOWS)
    size = given.take("roi_size")
    window = {
        "size": tuple(map(_side, size)) if isinstance(size, Sequence) else _side(size),
        "overlap": _fixed(given.take("overlap", 0.25)),
        "blend": given.choose("mode", {"constant": "constant", "gaussian": "gaussian"}, "constant"),
        "padding": given.choose("padding_mode", {name: name for name in _PADDINGS}, "constant"),
        "padding_value": float(given.take("cval", 0.0)),
    }
    given.require("sigma_scale", 0.125)
    given.finish()
    return window


def _side(size: Any) -> int | float:
    """Voxels of a window along an axis; the whole axis where MONAI says None, 0 or -1."""
    return 1.0 if size is None or size <= 0 else int(size)


_PADDINGS = ("constant", "reflect", "replicate", "circular")
_NOT_OF_WINDOWS = (
    "sw_batch_size", "sw_device", "device", "progress", "cache_roi_weight_map", "cpu_thresh",
    "buffer_steps", "buffer_dim",
)  # fmt: skip


class _Arguments:
    """The arguments of one transform, each of which has to be taken.

    Args:
        transform: As in the configuration.
        ignored: Arguments without an influence on the result.
    """

    def __init__(self, transform: Transform, ignored: Sequence[str] = ()) -> None:
        self.name = _class(transform)
        without = {"_target_", "_disabled_", "_requires_", "_desc_", "keys", *_HARMLESS, *ignored}
        self._left = {name: value for name, value in transform.items() if name not in without}

    def take(self, name: str, default: Any = None) -> Any:
        """An argument, which must be a plain value."""
        value = self._left.pop(name, default)
        if isinstance(value, str) and value.startswith("$"):
            raise NoCounterpartError(f"{self.name} with an expression as {name}")
        return value

    def choose(self, name: str, known: Mapping[Any, Any], default: Any) -> Any:
        """What stands for a word, one for all keys or one for each of one key."""
        value = self.take(name, default)
        if isinstance(value, list) and value:
            value = value[0]
        if value not in known:
            raise NoCounterpartError(f"{self.name} with {name} {value!r}")
        return known[value]

    def require(self, name: str, *values: Any) -> None:
        """Takes an argument that may only have one of some values, the first if it is not given."""
        value = self.take(name, values[0])
        if value not in values:
            raise NoCounterpartError(f"{self.name} with {name} {value!r}")

    def finish(self) -> None:
        """Refuses what was not taken."""
        if self._left:
            raise NoCounterpartError(f"{self.name} with {', '.join(self._left)}")


_HARMLESS = (
    "allow_missing_keys", "dtype", "image_only", "meta_keys", "meta_key_postfix", "meta_dict_key",
    "start_coord_key", "end_coord_key", "lazy", "overwrite", "overwriting", "track_meta", "device",
    "wrap_sequence", "data_type", "prune_meta_pattern", "prune_meta_sep",
)  # fmt: skip


def _steps(transform: Transform) -> list[Step]:
    name = _name(transform)
    if name not in _COUNTERPARTS:
        raise NoCounterpartError(_class(transform))
    given = _Arguments(transform)
    steps = _COUNTERPARTS[name](given)
    given.finish()
    return steps


def _none(_: _Arguments) -> list[Step]:
    return []


def _load(given: _Arguments) -> list[Step]:
    readers = ("NibabelReader", "ITKReader", "PydicomReader", "PILReader", "NumpyReader")
    given.require("reader", None, *readers)
    given.take("ensure_channel_first")
    given.take("simple_keys")
    return []


def _channel_first(given: _Arguments) -> list[Step]:
    given.require("channel_dim", None, "no_channel", 0, -1)
    given.take("strict_check")
    return []


def _orientation(given: _Arguments) -> list[Step]:
    if given.take("as_closest_canonical"):
        given.take("axcodes")
        return [{"kind": "reorient", "axes": "RAS"}]
    given.require("labels", None)
    return [{"kind": "reorient", "axes": given.take("axcodes")}]


def _spacing(given: _Arguments) -> list[Step]:
    size = given.take("pixdim")
    sides = [float(side) if side > 0 else None for side in _numbers(size, given.name)]
    modes = {"bilinear": "linear", "trilinear": "linear", "nearest": "nearest", 1: "linear"}
    step = {
        "kind": "spacing",
        "size": tuple(sides) if len(sides) > 1 else sides[0],
        "interpolation": given.choose("mode", modes, "bilinear"),
        "antialias": False,
        "align": "monai",
    }
    given.choose("padding_mode", {"border": 0}, "border")
    given.require("diagonal", False)
    given.require("scale_extent", False)
    given.take("align_corners")  # plays no part: voxels are found by their index
    given.take("recompute_affine")
    given.require("min_pixdim", None)
    given.require("max_pixdim", None)
    return [step]


def _crop_foreground(given: _Arguments) -> list[Step]:
    given.take("source_key")
    given.require("select_fn", None)
    given.require("channel_indices", None)
    given.require("k_divisible", 1)
    given.take("mode")
    smaller, margin = given.take("allow_smaller", False), given.take("margin", 0)
    if margin and not smaller:
        raise NoCounterpartError(f"{given.name} with a margin beyond the image")
    return [{"kind": "crop_foreground", "margin": _fixed(margin)}]


def _scale_range(given: _Arguments) -> list[Step]:
    window = (float(given.take("a_min")), float(given.take("a_max")))
    ends, clip = (given.take("b_min"), given.take("b_max")), bool(given.take("clip", False))
    output = _output(ends, given)
    if output is None:
        output, clip = (0.0, 1.0), False  # with no range to scale to, MONAI cuts at no end
    return [_normalize("hu_window", window=_growing(window, given), output=output, clip=clip)]


def _scale_percentiles(given: _Arguments) -> list[Step]:
    ends = (float(given.take("lower")), float(given.take("upper")))
    output = _output((given.take("b_min"), given.take("b_max")), given)
    if output is None:
        raise NoCounterpartError(f"{given.name} without b_min and b_max")
    given.require("relative", False)
    clip, channels = bool(given.take("clip", False)), bool(given.take("channel_wise", False))
    return [
        _normalize(
            "percentile",
            percentiles=_growing(ends, given),
            output=output,
            clip=clip,
            per_channel=channels,
        )
    ]


def _scale(given: _Arguments) -> list[Step]:
    output = _output((given.take("minv", 0.0), given.take("maxv", 1.0)), given)
    given.require("factor", None)
    if output is None:
        return []
    channels = bool(given.take("channel_wise", False))
    return [_normalize("minmax", output=output, per_channel=channels)]


def _normalize_intensity(given: _Arguments) -> list[Step]:
    subtract, divide = given.take("subtrahend"), given.take("divisor")
    inside, channels = bool(given.take("nonzero", False)), bool(given.take("channel_wise", False))
    shared = {"foreground": inside, "per_channel": channels}
    if subtract is None and divide is None:
        return [_normalize("zscore", **shared)]
    if subtract is None or divide is None:
        raise NoCounterpartError(f"{given.name} with one of subtrahend and divisor")
    return [_normalize("scale", subtract=_fixed(subtract), divide=_fixed(divide), **shared)]


def _divisible_pad(given: _Arguments) -> list[Step]:
    given.choose("mode", {"constant": 0}, "constant")
    given.require("method", "symmetric")
    given.require("value", None, 0, 0.0)
    given.require("constant_values", None, 0, 0.0)
    return [{"kind": "pad_to_multiple", "multiple": _fixed(given.take("k"))}]


_COUNTERPARTS: dict[str, Callable[[_Arguments], list[Step]]] = {
    "LoadImage": _load,
    "EnsureChannelFirst": _channel_first,
    "EnsureType": _none,
    "CastToType": _none,
    "ToTensor": _none,
    "Identity": _none,
    "Orientation": _orientation,
    "Spacing": _spacing,
    "CropForeground": _crop_foreground,
    "ScaleIntensityRange": _scale_range,
    "ScaleIntensityRangePercentiles": _scale_percentiles,
    "ScaleIntensity": _scale,
    "NormalizeIntensity": _normalize_intensity,
    "DivisiblePad": _divisible_pad,
}


def _normalize(mode: str, **fields: Any) -> Step:
    return {"kind": "normalize", "mode": mode, **fields}


def _output(ends: tuple[Any, Any], given: _Arguments) -> tuple[float, float] | None:
    """The range to which intensities are scaled; None where none is named."""
    if ends == (None, None):
        return None
    if None in ends:
        raise NoCounterpartError(f"{given.name} with one end of its output")
    return _growing((float(ends[0]), float(ends[1])), given)


def _growing(ends: tuple[float, float], given: _Arguments) -> tuple[float, float]:
    if not ends[0] < ends[1]:
        raise NoCounterpartError(f"{given.name} with a range of {list(ends)}")
    return ends


def _numbers(value: Any, name: str) -> list[float]:
    numbers = list(value) if isinstance(value, (list, tuple)) else [value]
    if not numbers or not all(isinstance(number, (int, float)) for number in numbers):
        raise NoCounterpartError(f"{name} of {value!r}")
    return numbers


def _fixed(value: Any) -> Any:
    """Lists as tuples."""
    return tuple(value) if isinstance(value, list) else value


def _listed(part: Any) -> list[Transform]:
    """The transforms of a list, of ``Compose``, or of one inside the other."""
    if isinstance(part, Mapping) and _class(part) == "Compose":
        part = part.get("transforms", [])
    if isinstance(part, Mapping):
        return [part]
    if not isinstance(part, list):
        raise NoCounterpartError("an expression")
    return [
        inner
        for each in part
        for inner in (
            _listed(each) if not isinstance(each, Mapping) or _class(each) == "Compose" else [each]
        )
    ]


def _keys(transform: Transform) -> list[str]:
    keys = transform.get("keys", [])
    return [keys] if isinstance(keys, str) else [str(key) for key in keys]


def _class(part: Transform) -> str:
    return str(part.get("_target_", "a part without a class")).rsplit(".", 1)[-1]


def _name(transform: Transform) -> str:
    """Name of the class without the ending of transforms of dictionaries."""
    name = _class(transform)
    for ending in ("Dict", "D", "d"):
        if name.removesuffix(ending) in _COUNTERPARTS and name.endswith(ending):
            return name.removesuffix(ending)
    return name

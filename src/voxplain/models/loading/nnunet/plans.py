"""What the plans of nnU-Net v2 say about one configuration, and how that is done here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxplain.errors import ModelError, nearest

Stated = Mapping[str, Any]
Step = dict[str, Any]

_SCHEMES = {
    "ZScoreNormalization": "zscore",
    "CTNormalization": "ct",
    "NoNormalization": "none",
    "RescaleTo01Normalization": "rescale",
    "RGBTo01Normalization": "rgb",
}
_VOLUME_READERS = ("SimpleITKIO", "NibabelIO", "Tiff3DIO")
_REORIENTING_READERS = ("SimpleITKIOWithReorient", "NibabelIOWithReorient")
_PICTURE_READER = "NaturalImage2DIO"
_RESAMPLING, _NO_RESAMPLING = "resample_data_or_seg_to_shape", "no_resampling_hack"


@dataclass(frozen=True)
class Plans:
    """One configuration of a plans file.

    Attributes:
        name: Such as ``3d_fullres``.
        plans: The whole file.
        configuration: The configuration with what it inherits.
    """

    name: str
    plans: Stated
    configuration: Stated

    @classmethod
    def of(cls, plans: Stated, name: str) -> Plans:
        """A configuration that can be explained.

        Raises:
            ModelError: If it does not exist, or needs what is not supported, in a sentence.
        """
        found = cls(name, plans, _inherited(plans, name, ()))
        found._require_supported()
        return found

    @property
    def patch(self) -> tuple[int, ...]:
        """Voxels of a window per axis, two or three, in the order of the network."""
        return tuple(int(side) for side in self._needed("patch_size"))

    @property
    def takes_pictures(self) -> bool:
        """Whether images are pictures, without a third axis."""
        return self._reader == _PICTURE_READER

    @property
    def takes_slices(self) -> bool:
        """Whether a 2-D network is applied to each slice of a volume."""
        return len(self.patch) == 2 and not self.takes_pictures

    @property
    def window(self) -> dict[str, Any]:
        """Its windows: half a patch apart, weighted by the bell of nnU-Net."""
        if not self.takes_slices:
            return {"size": self.patch, "overlap": 0.5, "blend": "nnunet"}
        return {"size": (1, *self.patch), "overlap": (0.0, 0.5, 0.5), "blend": "nnunet"}

    def steps(self, channels: int) -> tuple[Step, ...]:
        """The preprocessing of an image with so many channels."""
        return (
            *self._axes(),
            {"kind": "crop_foreground", "threshold": "nonzero"},
            {"kind": "nnunet_normalize", "channels": self._schemes(channels)},
            *self._resampling(),
        )

    @property
    def _reader(self) -> str:
        return str(self.plans.get("image_reader_writer", _VOLUME_READERS[0]))

    @property
    def _transposed(self) -> tuple[int, ...]:
        return tuple(int(axis) for axis in self.plans.get("transpose_forward", (0, 1, 2)))

    def _axes(self) -> list[Step]:
        """The order of the axes: the readers of nnU-Net turn x, y, z into z, y, x."""
        if self.takes_pictures:
            order = tuple(axis - 1 for axis in self._transposed[1:])
            return [{"kind": "transpose", "order": order}]
        order = tuple(2 - axis for axis in self._transposed)
        step: Step = {"kind": "transpose", "order": order}
        reorients = self._reader in _REORIENTING_READERS
        return [{"kind": "reorient", "axes": "RAS"}, step] if reorients else [step]

    def _schemes(self, channels: int) -> tuple[Step, ...]:
        names, inside = self._needed("normalization_schemes"), self._needed("use_mask_for_norm")
        if len(names) != channels or len(inside) != channels:
            raise ModelError(
                "plans.json: normalization_schemes and use_mask_for_norm are for "
                f"{len(names)} and {len(inside)} channels, and dataset.json names {channels}"
            )
        measured = self.plans.get("foreground_intensity_properties_per_channel") or self.plans.get(
            "foreground_intensity_properties_by_modality", {}
        )
        return tuple(
            self._scheme(str(name), bool(masked), measured.get(str(channel), {}))
            for channel, (name, masked) in enumerate(zip(names, inside, strict=True))
        )

    def _scheme(self, name: str, masked: bool, measured: Stated) -> Step:
        scheme = _SCHEMES[name]
        if scheme == "zscore":
            return {"scheme": scheme, "inside": masked}
        if scheme != "ct":
            return {"scheme": scheme}
        keys = {
            "lower": "percentile_00_5",
            "upper": "percentile_99_5",
            "mean": "mean",
            "deviation": "std",
        }
        lacking = [key for key in keys.values() if key not in measured]
        if lacking:
            raise ModelError(f"plans.json: CTNormalization needs {', '.join(lacking)} of a channel")
        return {"scheme": scheme, **{name: float(measured[key]) for name, key in keys.items()}}

    def _resampling(self) -> list[Step]:
        spacing = tuple(float(side) for side in self._needed("spacing"))
        if self.takes_pictures or self.configuration.get("resampling_fn_data") == _NO_RESAMPLING:
            return []
        forth = self.configuration.get("resampling_fn_data_kwargs", {})
        back = self.configuration.get("resampling_fn_probabilities_kwargs", {})
        return [
            {
                "kind": "nnunet_resample",
                "size": (None, *spacing) if len(spacing) == 2 else spacing,
                "order": int(forth.get("order", 3)),
                "order_z": int(forth.get("order_z", 0)),
                "separate": forth.get("force_separate_z", False),
                "output_order": int(back.get("order", 3)),
                "output_order_z": int(back.get("order_z", 0)),
                "output_separate": back.get("force_separate_z", False),
            }
        ]

    def _needed(self, key: str) -> Sequence[Any]:
        value = self.configuration.get(key)
        if not isinstance(value, (list, tuple)) or not value:
            raise ModelError(f"plans.json: configuration {self.name} states no {key}")
        return value

    def _require_supported(self) -> None:
        stage = self.configuration.get("previous_stage")
        if stage:
            self._refuse(
                f"is the second stage of a cascade, whose input holds the prediction of {stage}; "
                "explain the first stage, or 3d_fullres"
            )
        self._require("preprocessor_name", ("DefaultPreprocessor",))
        for key in ("resampling_fn_data", "resampling_fn_probabilities"):
            self._require(key, (_RESAMPLING, _NO_RESAMPLING))
        for name in self._needed("normalization_schemes"):
            if name not in _SCHEMES:
                self._refuse(f"normalizes by {name}; {', '.join(_SCHEMES)} are supported")
        manager = self.plans.get("label_manager", "LabelManager")
        if manager != "LabelManager":
            self._refuse(f"decodes labels by {manager}; LabelManager is supported")
        readers = (*_VOLUME_READERS, *_REORIENTING_READERS, _PICTURE_READER)
        if self._reader not in readers:
            self._refuse(f"reads images by {self._reader}; {', '.join(readers)} are supported")
        self._require_axes()

    def _require_axes(self) -> None:
        if sorted(self._transposed) != [0, 1, 2]:
            self._refuse(f"transposes axes by {list(self._transposed)}, which are not 0, 1 and 2")
        if len(self.patch) not in (2, 3) or min(self.patch) < 1:
            self._refuse(f"has windows of {list(self.patch)}; two or three axes are supported")
        if not self.takes_pictures:
            return
        if len(self.patch) != 2 or self._transposed[0] != 0:
            self._refuse("takes pictures, whose network and axes are those of volumes")
        if any(float(side) != 1 for side in self._needed("spacing")):
            self._refuse("resamples pictures, which is not supported")

    def _require(self, key: str, known: tuple[str, ...]) -> None:
        value = self.configuration.get(key, known[0])
        if value not in known:
            self._refuse(f"has {key} {value}; {' and '.join(known)} are supported")

    def _refuse(self, why: str) -> None:
        raise ModelError(f"nnU-Net configuration {self.name} {why}")


def _inherited(plans: Stated, name: str, seen: tuple[str, ...]) -> dict[str, Any]:
    configurations = plans.get("configurations")
    if not isinstance(configurations, Mapping):
        raise ModelError(
            "plans.json states no configurations, which those of nnU-Net v2 do; other versions "
            "are not supported"
        )
    if name not in configurations:
        raise ModelError(
            f"plans.json has no configuration {name!r}; {nearest(name, configurations)}"
        )
    if name in seen:
        raise ModelError(f"plans.json: configuration {name} inherits from itself")
    own = dict(configurations[name])
    parent = own.pop("inherits_from", None)
    return own if parent is None else {**_inherited(plans, parent, (*seen, name)), **own}

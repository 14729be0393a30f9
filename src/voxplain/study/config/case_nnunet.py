"""Cases from a data set folder of nnU-Net: ``dataset.json``, ``imagesTr``, ``labelsTr``."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from voxplain.errors import ConfigError, nearest
from voxplain.study.config.case_sources import CaseSource, existing_folder
from voxplain.study.config.cases import CaseConfig

RAW = "nnUNet_raw"
"""Variable of the environment with the folder of all data sets."""

_FOLDERS = {"train": ("imagesTr", "labelsTr"), "test": ("imagesTs", "labelsTs")}


class CaseNnunet(CaseSource):
    """The cases of a data set as nnU-Net keeps it, versions 1 and 2.

    Channel names, the ending of files and the label to ignore are those of ``dataset.json``. The
    references are the labels; those of the test cases where there are any.

    Attributes:
        nnunet: Folder of the data set; a name without such a folder is looked up in the folder
            that the environment variable ``nnUNet_raw`` names.
        split: ``train`` for ``imagesTr``, ``test`` for ``imagesTs``.
    """

    nnunet: Path
    split: Literal["train", "test"] = "train"

    def all_cases(self, base: Path) -> list[CaseConfig]:
        """A case per image.

        Raises:
            ConfigError: With the name of the case.
        """
        root = self._root(base)
        facts = _Facts(root)
        if self.split == "train" and facts.listed:
            return [
                self._case(root, facts, name, *_listed(root, name, entry))
                for name, entry in sorted(facts.listed.items())
            ]
        images, labels = (root / folder for folder in _FOLDERS[self.split])
        cases = [
            self._case(root, facts, name, files, self._label(labels, name, facts))
            for name, files in sorted(_images(existing_folder(images), facts).items())
        ]
        if not cases:
            raise ConfigError(
                f"cases: {images} has no files <case>_0000{facts.ending}; file_ending in "
                f"dataset.json is {facts.ending}"
            )
        return cases

    def _root(self, base: Path) -> Path:
        root, raw = base / self.nnunet, os.environ.get(RAW)
        if not root.is_dir() and raw and not self.nnunet.is_absolute():
            named = sorted(Path(raw).glob(f"{self.nnunet.name}*"))
            if len(named) > 1 and Path(raw, self.nnunet) not in named:
                names = " and ".join(folder.name for folder in named[:2])
                raise ConfigError(f"cases: nnunet: {self.nnunet} may be {names}; name one of them")
            if named:
                return Path(raw, self.nnunet) if Path(raw, self.nnunet) in named else named[0]
            there = [folder.name for folder in Path(raw).glob("Dataset*")]
            raise ConfigError(
                f"cases: nnunet: no data set {self.nnunet}; {nearest(str(self.nnunet), there)}"
            )
        return existing_folder(root)

    def _label(self, folder: Path, name: str, facts: _Facts) -> Path | None:
        label = folder / f"{name}{facts.ending}"
        if label.exists():
            return label
        if self.split == "train" and folder.is_dir():
            raise ConfigError(f"cases: {name}: {folder.name} has no {label.name}")
        return None

    def _case(
        self, root: Path, facts: _Facts, name: str, files: Mapping[int, Path], label: Path | None
    ) -> CaseConfig:
        several = len(facts.channels) > 1
        missing = next((each for each in range(len(facts.channels)) if each not in files), None)
        holds_all = [*files] == [0] and not facts.ending.startswith(".nii")  # an RGB picture
        if missing is not None and not holds_all:
            raise ConfigError(
                f"cases: {name}: {root.name} has no file for channel {missing} "
                f"({facts.channels[missing]}), {name}_{missing:04d}{facts.ending}"
            )
        return self.case(
            f"cases: {name}",
            id=name,
            image=[files[each] for each in range(1 if holds_all else len(facts.channels))],
            channels=facts.channels if several else None,
            reference=label,
            reference_ignore=self.reference_ignore or (facts.ignore if label else None),
        )


class _Facts:
    """What ``dataset.json`` says.

    Args:
        root: Folder of the data set.

    Attributes:
        channels: Their names.
        ending: Of files.
        ignore: The label that stands for nothing; None if there is none.
        listed: Files of the training cases, where they are stated.

    Raises:
        ConfigError: If there is no such file, or it says no channels.
    """

    def __init__(self, root: Path) -> None:
        file = root / "dataset.json"
        if not file.is_file():
            raise ConfigError(f"cases: {root} has no dataset.json, so it is no nnU-Net data set")
        try:
            stated: dict[str, Any] = dict(json.loads(file.read_text(encoding="utf-8")))
            names = stated.get("channel_names") or stated["modality"]
            self.channels = tuple(str(names[str(number)]) for number in range(len(names)))
            ignore = stated.get("labels", {}).get("ignore")
            self.ending = str(stated.get("file_ending", ".nii.gz"))
            self.ignore = int(ignore) if isinstance(ignore, int) and ignore > 0 else None
            self.listed: dict[str, Any] = dict(stated.get("dataset") or {})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"cases: {file}: not the dataset.json of nnU-Net, which has channel_names by "
                "number and labels"
            ) from error
        if len({*self.channels}) < len(self.channels):
            self.channels = tuple(f"{name}_{number}" for number, name in enumerate(self.channels))


def _images(folder: Path, facts: _Facts) -> dict[str, dict[int, Path]]:
    """The files of each case by the number of their channel."""
    shape = re.compile(r"(.+)_(\d{4})" + re.escape(facts.ending), re.DOTALL)
    found: dict[str, dict[int, Path]] = defaultdict(dict)
    with os.scandir(folder) as entries:
        for entry in entries:
            fit = shape.fullmatch(entry.name)
            if fit and not entry.name.startswith("."):
                found[fit[1]][int(fit[2])] = folder / entry.name
    return found


def _listed(root: Path, name: str, entry: Any) -> tuple[dict[int, Path], Path | None]:
    """The files of a case as ``dataset.json`` lists them: images per channel, and the label."""
    try:
        images = {number: root / file for number, file in enumerate(entry["images"])}
        label = root / entry["label"] if entry.get("label") else None
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"cases: {name}: dataset in dataset.json takes images (a list) and label per case"
        ) from error
    missing = [file for file in (*images.values(), *filter(None, [label])) if not file.exists()]
    if missing:
        raise ConfigError(f"cases: {name}: there is no file {missing[0]}, which dataset.json names")
    return images, label

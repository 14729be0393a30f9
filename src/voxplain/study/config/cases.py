"""The cases of a study: their files, and the expansion of patterns."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from voxplain.errors import ConfigError

CASE_ID = r"^[A-Za-z0-9*][A-Za-z0-9_.+*-]*$"


def listed(value: Any) -> Any:
    """A name or path as a list of one."""
    return [value] if isinstance(value, (str, Path)) else value


def _name(value: Any) -> Any:
    if isinstance(value, (int, float)):
        raise ValueError(f"{value!r} is a number; in quotes it stays as it is written")
    if isinstance(value, str) and not re.match(CASE_ID, value):
        raise ValueError(
            f"{value!r} goes into file names; it takes letters, digits and . _ + -, a letter or "
            "digit first"
        )
    return value


def _channels(value: Any) -> Any:
    if isinstance(value, str) and value not in ("first", "last"):
        raise ValueError("write a list of names, or first or last for the axis of an array")
    return value


def _spacing(value: Any) -> Any:
    return (value,) if isinstance(value, (int, float)) else value


Spacing = Annotated[tuple[float, ...] | None, BeforeValidator(_spacing)]


class CaseConfig(BaseModel):
    """One case of a study, or a pattern that stands for many.

    Attributes:
        id: The name under which everything of this case is written. Left out, cases are numbered:
            a file name may identify a patient, so it becomes an id only if the id says so with a
            ``*``.
        patient: Whose image it is, where several cases are of one patient: those are resampled
            together. Left out, the case stands for itself; nothing is taken from the files. ``*``
            as in the id.
        image: A file, a DICOM folder, or several files that become channels. With a ``*`` it
            stands for every file that fits, and ``*`` is the same text in all of its files.
        channels: A name per channel, such as ``[flair, t1, t1ce, t2]``; or ``first`` or ``last``,
            the channel axis of a NumPy array.
        spacing: Millimeters per pixel, where the file does not say it (pictures, NumPy).
        reference: A label image on the grid of the case, for contours, error targets and metrics.
        reference_label: The label in it that metrics compare maps with; left out, the class of
            the target where it occurs, else every label.
        reference_ignore: The label in it that marks voxels of which it says nothing, such as 255;
            metrics and targets that compare with the reference leave them out.
        truth: The class that is right for the whole image, for classifiers.
        facts: What else is known of the whole image, such as ``{scanner: A, sex: f}``; concepts
            may be made of it.
        rank: 2 or 3, where the file leaves it open (one slice is 2-D unless 3 is asked for).
        series: Number of the series (``SeriesNumber``), for DICOM folders that hold several.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str | None, BeforeValidator(_name)] = Field(default=None, pattern=CASE_ID)
    patient: Annotated[str | None, BeforeValidator(_name)] = Field(default=None, pattern=CASE_ID)
    image: Annotated[tuple[Path, ...], BeforeValidator(listed), Field(min_length=1)]
    channels: Annotated[
        Literal["first", "last"] | tuple[str, ...] | None, BeforeValidator(_channels)
    ] = None
    spacing: Spacing = None
    reference: Path | None = None
    reference_label: int | None = Field(default=None, ge=1)
    reference_ignore: int | None = Field(default=None, ge=1)
    truth: int | None = Field(default=None, ge=0)
    facts: Mapping[str, str | float] = {}
    rank: Literal[2, 3] | None = None
    series: int | None = None

    @property
    def is_pattern(self) -> bool:
        """Whether this entry stands for every file that fits."""
        return any("*" in str(path) for path in self.image)

    def expanded(self, base: Path) -> list[CaseConfig]:
        """Every case that this entry stands for, with absolute paths.

        Raises:
            ConfigError: If it is a pattern that fits no file.
        """
        return _expanded(self, base)


class CaseEntry(Protocol):
    """What stands in the list of cases."""

    def expanded(self, base: Path) -> list[CaseConfig]:
        """Every case that it stands for, with absolute paths."""


def expand_cases(entries: Sequence[CaseEntry], base: Path) -> tuple[CaseConfig, ...]:
    """Every case, patterns filled in, with its id and with paths below ``base``.

    Args:
        entries: As written in the study.
        base: Folder that relative paths start from.

    Raises:
        ConfigError: If a pattern fits no file, or two cases have one id.
    """
    expanded = [case for entry in entries for case in entry.expanded(base)]
    width = max(3, len(str(len(expanded))))
    cases = [
        case if case.id else case.model_copy(update={"id": f"case{number:0{width}d}"})
        for number, case in enumerate(expanded, start=1)
    ]
    ids = [str(case.id) for case in cases]
    counts = Counter(name.casefold() for name in ids)
    repeated = [name for name in ids if counts[name.casefold()] > 1]
    if repeated:
        and_case = "" if ids.count(repeated[0]) > 1 else ", which some systems do not tell by case"
        raise ConfigError(
            f"cases: two of them have the id {repeated[0]!r}{and_case}; an id names one case"
        )
    return tuple(cases)


def _expanded(entry: CaseConfig, base: Path) -> list[CaseConfig]:
    if entry.is_pattern:
        return [_filled(entry, base, text) for text in _matches(entry, base)]
    if entry.id and "*" in entry.id:
        raise ConfigError(f"cases: the id {entry.id!r} has a *, but its image names one file")
    if entry.patient and "*" in entry.patient:
        raise ConfigError(
            f"cases: the patient {entry.patient!r} has a *, but the image names one file"
        )
    return [_filled(entry, base, "*")]


def _matches(entry: CaseConfig, base: Path) -> list[str]:
    """The texts that ``*`` stands for in the first file of the pattern, one per case."""
    pattern = next(str(base / path) for path in entry.image if "*" in str(path))
    head, *rest = map(re.escape, pattern.split("*"))
    shape = re.compile(head + "([^/]*)" + r"\1".join(rest), re.DOTALL)
    fits = (shape.fullmatch(file) for file in sorted(glob.glob(pattern)))
    texts = [fit[1] for fit in fits if fit]
    if not texts:
        raise ConfigError(f"cases: no file fits {pattern}")
    return texts


def _filled(entry: CaseConfig, base: Path, text: str) -> CaseConfig:
    def path(pattern: Path) -> Path:
        return base / str(pattern).replace("*", text)

    update: Mapping[str, Any] = {
        "id": entry.id.replace("*", text) if entry.id else None,
        "patient": entry.patient.replace("*", text) if entry.patient else None,
        "image": tuple(path(file) for file in entry.image),
        "reference": path(entry.reference) if entry.reference else None,
    }
    return entry.model_copy(update=update)

"""The source series of a case, which must be the ones that were explained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from voxplain.errors import ConfigError, InputError, VoxplainError
from voxplain.image import Image
from voxplain.io.dicom import series_numbers
from voxplain.io.dicom_export import SourceSeries, read_source
from voxplain.io.dicom_planes import is_dicom
from voxplain.records.manifest import CaseRecord, Manifest
from voxplain.study.config.cases import CaseConfig
from voxplain.study.planning.images import content_sha256, read_case


def sources_of(manifest: Manifest, named: Sequence[str]) -> dict[str, CaseConfig]:
    """The sources of cases that are named one by one, or by a pattern.

    Args:
        manifest: Of the run.
        named: ``CASE=FOLDER``, repeated where several series are channels; or ``FOLDER`` with a
            ``*`` for the id of the case, or of a run of one case.

    Raises:
        ConfigError: If there is no such case, or one folder is named for several cases.
    """
    records = {record.id: record for record in manifest.cases}
    paths: dict[str, list[Path]] = {}
    for text in named:
        case, _, path = text.partition("=")
        if path and case in records:
            paths.setdefault(case, []).append(Path(path))
        elif "*" in text or (len(records) == 1 and not path):
            for each in records:
                paths.setdefault(each, []).append(Path(text.replace("*", each)))
        else:
            raise ConfigError(
                f"--source {text} names no case of the run; write CASE=FOLDER, or a folder with a "
                "* for the id of the case"
            )
    return {case: _config(records[case], files) for case, files in paths.items()}


def _config(record: CaseRecord, files: Sequence[Path]) -> CaseConfig:
    rank = 2 if len(record.shape) == 2 else 3
    return CaseConfig(id=record.id, image=tuple(file.absolute() for file in files), rank=rank)


def explained_series(
    record: CaseRecord, sources: Mapping[str, CaseConfig]
) -> tuple[Image, list[SourceSeries]]:
    """The image of a case as it was explained, and the series of its channels.

    Raises:
        InputError: If none is named, it is no DICOM, or it is not the one that was explained.
    """
    config = sources.get(record.id)
    if config is None:
        raise InputError("its source series is not named; give --study, or --source CASE=FOLDER")
    for path in config.image:
        if not path.exists():
            raise InputError(f"there is no {path}")
        if path.is_file() and not is_dicom(path):
            raise InputError(
                f"its source {path.name} is no DICOM, and the objects take patient and study "
                "from a DICOM series"
            )
    for candidate in _candidates(config):
        image = read_case(candidate)
        if content_sha256(image) == record.image_sha256:
            return image, [read_source(path, candidate.series) for path in candidate.image]
    raise InputError("its source series is not the one that was explained; name that one")


def _candidates(config: CaseConfig) -> Iterator[CaseConfig]:
    """The case, with each series of a folder that holds several."""
    folders = [path for path in config.image if path.is_dir()]
    numbers = series_numbers(folders[0]) if len(config.image) == 1 and folders else []
    if config.series is not None or len(numbers) < 2:
        yield config
        return
    for number in numbers:
        candidate = config.model_copy(update={"series": number})
        try:
            read_case(candidate)
        except VoxplainError:
            continue  # another series of the study, such as a localizer
        yield candidate

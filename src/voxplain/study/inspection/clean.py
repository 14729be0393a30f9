"""Files of a run directory that nothing refers to any more."""

from __future__ import annotations

import os
from pathlib import Path

from voxplain.records.cascades import FOLDER as RANDOMIZATION
from voxplain.records.cascades import TABLE, files_of, read_randomizations
from voxplain.records.folder import refuse_links
from voxplain.records.manifest import Manifest
from voxplain.records.outcome import OUTCOMES, outcome_file, prediction_task
from voxplain.study.execution.earlier_results import SCORE_CACHES, score_cache_file
from voxplain.study.execution.store import Store

_CLEANED = ("maps", "images", "analyses", OUTCOMES, SCORE_CACHES, RANDOMIZATION)


def left_over(folder: str | Path) -> list[Path]:
    """The files of maps, copies, outcomes and scores that belong to no result of a run.

    They stay behind when a method, a case or a network is taken out of a study, or renamed. Figures
    and pages are left to the report, and what a person has put beside them to that person.

    Raises:
        ConfigError: If the folder holds no run.
        InputError: If it holds a link.
    """
    run = Path(folder)
    manifest = Store(run).manifest()
    refuse_links(run)
    kept = _referred(run, manifest)
    return [file for name in _CLEANED for file in _files(run / name) if file not in kept]


def clean(folder: str | Path) -> list[Path]:
    """Removes what is :func:`left_over`, and folders that are empty then; returns the files.

    Raises:
        ConfigError: If the folder holds no run, or somebody is writing into it.
        InputError: If it holds a link.
    """
    run = Path(folder)
    with Store(run).locked():
        files = left_over(run)
        for file in files:
            file.unlink(missing_ok=True)
        for name in _CLEANED:
            for inner, _, _ in os.walk(run / name, topdown=False):
                if not os.listdir(inner):
                    os.rmdir(inner)
    return files


def _referred(run: Path, manifest: Manifest) -> set[Path]:
    """Every file that the manifest speaks of, and those that belong to its tasks."""
    names: list[str | None] = [TABLE]
    for case in manifest.cases:
        names += [case.image, case.reference]
    for record in manifest.maps:
        names += [record.file, record.sidecar]
    kept: set[Path] = set()
    tasks = list(manifest.tasks)
    for prediction in manifest.predictions:
        names.append(prediction.image)
        kept.add(score_cache_file(run, prediction.key))
        tasks.append(
            prediction_task(prediction.key, prediction.case, prediction.model, prediction.target)
        )
    for task in tasks:
        file = outcome_file(run, task)
        kept |= {file, file.with_suffix(".log")}
    for analysis in manifest.analyses:
        kept.update(_files(run / analysis.folder))
    combinations = {(each.case, each.model, each.target) for each in manifest.predictions}
    for cascade in read_randomizations(run):
        if (cascade.case, cascade.model, cascade.target) in combinations:
            kept.update(files_of(run, cascade))
    return kept | {run / name for name in names if name is not None}


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())

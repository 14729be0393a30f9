"""``voxplain export``: the results of a run for other systems."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voxplain.cli.app import FAILED, app
from voxplain.cli.console import complain, fact, short_path
from voxplain.errors import ConfigError

if TYPE_CHECKING:
    from voxplain.study.export.dicom import CaseExport


@app.command()
def export(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run directory.", show_default=False)
    ],
    dicom: Annotated[
        bool,
        typer.Option(
            "--dicom",
            help="As DICOM: Parametric Maps, Segmentations, and figures as Secondary Captures.",
        ),
    ] = False,
    study: Annotated[
        Path | None, typer.Option("--study", help="The study file, which names the source series.")
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            help="The source series of a case: CASE=FOLDER, or FOLDER with a * for case ids. "
            "Repeat it for several.",
        ),
    ] = None,
    case: Annotated[
        list[str] | None,
        typer.Option("--case", help="This case alone; * stands for anything. Repeatable."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", "-m", help="The maps of this method alone. Repeatable."),
    ] = None,
) -> None:
    """Write the results of a run as DICOM objects on the source series.

    voxplain export runs/vessels --dicom --study study.yaml

    They carry the patient and the study of the source, are written into the folder dicom of the run
    alone, and replace themselves in an archive when they are written again. Exit code 1: some case
    could not be exported.
    """
    from voxplain.study import Study
    from voxplain.study.execution.store import Store
    from voxplain.study.export.dicom import export_dicom
    from voxplain.study.export.sources import sources_of

    if not dicom:
        raise ConfigError("say what to export the run as: --dicom")
    if study is None and not source:
        raise ConfigError(
            "a run holds no patient; name the source series with --study study.yaml or "
            "--source CASE=FOLDER"
        )
    sources = {str(each.id): each for each in Study.load(study).expanded_cases()} if study else {}
    sources |= sources_of(Store(folder).manifest(), source or ())
    exports = export_dicom(folder, sources, cases=case or (), methods=method or (), done=_show)
    fact("folder", short_path(folder / "dicom"))
    if any(each.problems for each in exports):
        raise typer.Exit(FAILED)


def _show(export: CaseExport) -> None:
    fact(export.case, f"{len(export.written)} objects written, {len(export.kept)} kept")
    for problem in export.problems:
        complain(f"case {export.case}: {problem.removeprefix(f'case {export.case}: ')}")

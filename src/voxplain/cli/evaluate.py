"""``voxplain evaluate``: scores the maps of a run, or external maps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voxplain.cli.app import FAILED, app, debugging
from voxplain.cli.console import complain, err, fact, short_path
from voxplain.cli.flag_values import parsed_declaration, parsed_parameters
from voxplain.cli.flags import SharedFlags, with_request
from voxplain.errors import ConfigError

if TYPE_CHECKING:
    from voxplain.image import Image
    from voxplain.metrics import BaseMetric, ExternalMap
    from voxplain.records.scores import Scores

DEFAULT_METRICS = (
    "morf_lerf_gap",
    "faithfulness_correlation",
    "infidelity_normalized",
    "max_sensitivity",
    "sparseness",
)
"""The metrics where neither flags nor study name any."""
REFERENCE_METRICS = ("roc_auc", "auprc", "pointing_game")
"""Those that are added where there is a reference."""
_SHARES = {"share": True, "slope": False}
_MAP_SETTINGS = {
    "sign": ("signed", "absolute", "positive"),
    "kind": tuple(_SHARES),
    "resampling": ("value", "mass"),
}


@app.command()
@with_request
def evaluate(
    request: SharedFlags,
    context: typer.Context,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            "-m",
            help="A metric, with parameters if need be: deletion:levels=16. Repeat it for several. "
            "Left out: those of the study of the run, or a default set.",
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option("--reference", help="A mask on the grid of the scan; * stands for case ids."),
    ] = None,
    label: Annotated[
        int | None,
        typer.Option(
            "--reference-label",
            min=1,
            help="The label in it that maps are compared with; left out, the class of the target "
            "where it occurs, else every label.",
        ),
    ] = None,
    ignore: Annotated[
        int | None,
        typer.Option(
            "--reference-ignore",
            min=1,
            help="The label in it that marks voxels of which it says nothing, such as 255.",
        ),
    ] = None,
    study: Annotated[
        Path | None,
        typer.Option("--study", help="Of a run: the study file that made it."),
    ] = None,
    maps: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            help="Of an image: a map on its grid (NIfTI, NumPy), as FILE, NAME=FILE or "
            "NAME=FILE:sign=positive,kind=slope. Repeat it for several.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", "-t", help="Of an image: what the maps explain; as in explain."),
    ] = None,
    controls: Annotated[
        bool,
        typer.Option(
            "--controls/--no-controls",
            help="Score maps without information beside them: random, edges, intensity, center.",
        ),
    ] = True,
    seed: Annotated[int, typer.Option("--seed", help="Of an image: of all random draws.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the scores: .parquet or .csv.")
    ] = None,
) -> None:
    """Score the maps of a run directory, or external maps, beside controls.

    voxplain evaluate runs/vessels --study study.yaml -m deletion -m roc_auc

    voxplain evaluate scan.nii.gz --factory my_package:build --weights net.safetensors
    --map cam=gradcam.npy --map other.nii.gz -t pixelwise:1 --reference lesion.nii.gz
    """
    from voxplain.cli.metrics import show_scores
    from voxplain.metrics import parse_metric

    _require_table(output)
    metrics = [parse_metric(parsed_declaration(text, "--metric")) for text in metric or ()]
    if reference is None and (label is not None or ignore is not None):
        raise ConfigError("--reference-label and --reference-ignore are about a --reference")
    if len(request.images) == 1 and (request.images[0] / "manifest.json").is_file():
        _refuse("a run", map=maps, target=target)
        scores, failed = _evaluate_run(
            request, metrics, (reference, label, ignore), study, controls, debugging(context)
        )
    else:
        _refuse("an image", study=study)
        scores = _evaluate_image(
            request, metrics, (reference, label, ignore), maps, target, controls, seed
        )
        failed = False
    show_scores(scores)
    if output is not None:
        scores.export(output)
        fact("scores", short_path(output))
    if failed:
        raise typer.Exit(FAILED)


def _evaluate_run(
    request: SharedFlags,
    metrics: list[BaseMetric],
    reference: tuple[Path | None, int | None, int | None],
    file: Path | None,
    controls: bool,
    debug: bool,
) -> tuple[Scores, bool]:
    """The new scores of a run, which are in its table and report too, and whether some failed."""
    from voxplain.cli.progress import Bar
    from voxplain.study import Run, Study
    from voxplain.study.kept_study import study_of_run
    from voxplain.study.reevaluate import evaluate_run, reevaluation_of

    folder = request.images[0].absolute()
    study = Study.load(file) if file else study_of_run(folder, request.network())
    if not metrics and not study.metrics and study.randomization is None:
        cases = study.expanded_cases()
        has_reference = reference[0] is not None or any(case.reference for case in cases)
        metrics = _default_metrics(has_reference)
    study = reevaluation_of(study, metrics, *reference)
    execution = study.execution.model_copy(update={"controls": controls, "device": request.device})
    study = study.model_copy(update={"execution": execution})
    with Bar(debug) as bar:
        result = evaluate_run(folder, study, trust=request.trust, listener=bar)
    for failure in result.failures:
        complain(failure)
    with err.status("writing the report"):
        page = Run.load(folder).write_report()
    fact("scores", short_path(folder / "metrics.parquet"))
    fact("report", short_path(page), "bold")
    return result.scores, bool(result.failures)


def _evaluate_image(
    request: SharedFlags,
    metrics: list[BaseMetric],
    reference: tuple[Path | None, int | None, int | None],
    maps: list[str] | None,
    target: str | None,
    controls: bool,
    seed: int,
) -> Scores:
    """The scores of maps of one image."""
    from voxplain.metrics import Case
    from voxplain.metrics import evaluate as evaluate_maps
    from voxplain.study import Study
    from voxplain.study.execution.evaluation_inputs import reference_mask
    from voxplain.study.planning.networks import open_first
    from voxplain.targets import Target

    if not maps:
        raise ConfigError(
            f"{request.images[0]} is not a run directory (no manifest.json); to score maps of an "
            "image, name them with --map"
        )
    if target is None:
        raise ConfigError("say with --target what the maps explain, such as --target 1")
    study = Study.parse(request.study(target, seed=seed))
    (case,), (config,) = study.expanded_cases(), study.models
    (explained,) = (each for each in study.all_targets if isinstance(each, Target))
    loaded, image = open_first(case, config, study, trust=request.trust)
    named = dict(_external_map(text, image) for text in maps)
    if len(named) < len(maps):
        raise ConfigError("two maps have the same name; write --map NAME=FILE")
    file, label, ignore = reference
    stated = {"reference": file, "reference_label": label, "reference_ignore": ignore}
    case = case.model_copy(update=stated)
    mask = reference_mask(case, explained, image)
    return evaluate_maps(
        loaded.model,
        image,
        named,
        metrics or _default_metrics(mask is not None),
        explained,
        cases=[Case(request.id, mask=mask, ignore=ignore)],
        controls=controls,
        seed=seed,
    )


def _external_map(text: str, image: Image) -> tuple[str, ExternalMap]:
    """``NAME=FILE:sign=positive,kind=slope`` as a map with its name."""
    from voxplain.metrics import read_map

    head, colon, details = text.rpartition(":")
    if not colon or "=" not in details:
        head, details = text, ""
    name, equals, file = head.partition("=")
    path = Path(file if equals else head)
    defaults = {"sign": "signed", "kind": "share", "resampling": "value"}
    settings: dict[str, Any] = {**defaults, **parsed_parameters(details)}
    for key, value in settings.items():
        if value not in _MAP_SETTINGS.get(key, ()):
            choices = ", ".join(_MAP_SETTINGS.get(key, tuple(_MAP_SETTINGS)))
            raise ConfigError(f"--map {path.name}: {key}={value}; one of: {choices}")
    external = read_map(
        path,
        image,
        sign=settings["sign"],
        share=_SHARES[settings["kind"]],
        resampling=settings["resampling"],
    )
    return name if equals else path.name.split(".")[0], external


def _default_metrics(with_reference: bool) -> list[BaseMetric]:
    from voxplain.metrics import parse_metric

    names = (*DEFAULT_METRICS, *(REFERENCE_METRICS if with_reference else ()))
    return [parse_metric(name) for name in names]


def _refuse(what: str, **flags: Any) -> None:
    for name, value in flags.items():
        if value:
            raise ConfigError(f"--{name} does not go with {what}; voxplain evaluate --help")


def _require_table(output: Path | None) -> None:
    if output is not None and output.suffix.lower() not in (".parquet", ".csv"):
        raise ConfigError(f"--output {output.name}: write .parquet or .csv")

"""``voxplain evaluate``: judges the maps of a run, or maps from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voxplain.cli.app import FAILED, app, debugging
from voxplain.cli.console import complain, err, fact, shown
from voxplain.cli.flags import Request, asked, named, parameters, with_request
from voxplain.errors import ConfigError

if TYPE_CHECKING:
    from voxplain.metrics import ExternalMap, Metric
    from voxplain.records.scores import Scores
    from voxplain.study import Study

USUAL = (
    "morf_lerf_gap",
    "faithfulness_correlation",
    "infidelity_normalized",
    "max_sensitivity",
    "sparseness",
)
"""What is judged if no metric is named."""
WITH_REFERENCE = ("roc_auc", "auprc", "pointing_game")
_KINDS = {"share": True, "slope": False}


@app.command()
@with_request
def evaluate(
    request: Request,
    context: typer.Context,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            "-m",
            help="A metric, with parameters if need be: deletion:levels=16. Repeat it. Left out: "
            "those of the study of the run, or a usual few.",
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
            help="The label in it that is meant; left out, the class of the target where it "
            "occurs, else every label.",
        ),
    ] = None,
    study: Annotated[
        Path | None,
        typer.Option("--study", help="Of a run: the study file that made it."),
    ] = None,
    map: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            help="Of an image: a map on its grid (NIfTI, NumPy), as FILE, NAME=FILE or "
            "NAME=FILE:sign=positive,kind=slope. Repeat it.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", "-t", help="Of an image: what the maps explain; as in explain."),
    ] = None,
    controls: Annotated[
        bool, typer.Option("--controls/--no-controls", help="Judge maps that explain nothing too.")
    ] = True,
    seed: Annotated[int, typer.Option("--seed", help="Of an image: of random draws.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the scores: .parquet or .csv.")
    ] = None,
) -> None:
    """Judge the maps of a run directory, or maps from elsewhere, beside controls.

    voxplain evaluate runs/vessels --study study.yaml -m deletion -m roc_auc

    voxplain evaluate scan.nii.gz --factory my_package:build --weights net.safetensors
    --map cam=gradcam.npy --map other.nii.gz -t pixelwise:1 --reference lesion.nii.gz
    """
    from voxplain.cli.metrics import show_scores
    from voxplain.metrics import parse_metric

    _require_table(output)
    chosen = [parse_metric(named(text, "--metric")) for text in metric or ()]
    if label is not None and reference is None:
        raise ConfigError("--reference-label says which label of a --reference is meant")
    truth = (reference, label)
    folder = request.images[0]
    if len(request.images) == 1 and (folder / "manifest.json").is_file():
        _refuse("a run", map=map, target=target)
        scores, failed = _of_run(request, chosen, truth, study, controls, debugging(context))
    else:
        _refuse("an image", study=study)
        scores, failed = _of_image(request, chosen, truth, map, target, controls, seed), False
    show_scores(scores)
    if output is not None:
        scores.export(output)
        fact("scores", shown(output))
    if failed:
        raise typer.Exit(FAILED)


def _of_run(
    request: Request,
    metrics: list[Metric],
    truth: tuple[Path | None, int | None],
    file: Path | None,
    controls: bool,
    debug: bool,
) -> tuple[Scores, bool]:
    from voxplain.cli.progress import Bar
    from voxplain.study import Run, Study
    from voxplain.study.reevaluate import evaluate_run, reevaluation_of, study_of_run

    folder = request.images[0].absolute()
    study = Study.load(file) if file else study_of_run(folder, request.network())
    if not metrics and not study.metrics and study.randomization is None:
        metrics = _usual(truth[0] is not None or any(case.reference for case in study.cases))
    study = reevaluation_of(study, metrics, *truth)
    execution = study.execution.model_copy(update={"controls": controls, "device": request.device})
    study = study.model_copy(update={"execution": execution})
    with Bar(debug) as bar:
        judged = evaluate_run(folder, study, trust=request.trust, listener=bar)
    for failure in judged.failures:
        complain(failure)
    with err.status("writing the report"):
        written = Run.load(folder).write_report()
    fact("scores", shown(folder / "metrics.parquet"))
    fact("report", shown(written), "bold")
    return judged.scores, bool(judged.failures)


def _of_image(
    request: Request,
    metrics: list[Metric],
    truth: tuple[Path | None, int | None],
    maps: list[str] | None,
    target: str | None,
    controls: bool,
    seed: int,
) -> Scores:
    from voxplain.metrics import evaluate as judged
    from voxplain.study.execution.evaluation_inputs import reference_mask
    from voxplain.study.planning.networks import open_first

    if not maps:
        raise ConfigError(
            f"{request.images[0]} is not a run directory (no manifest.json); to judge maps of an "
            "image, name them with --map"
        )
    if target is None:
        raise ConfigError("what do the maps explain? Say it with --target, such as --target 1")
    study = _study(request, target, seed)
    loaded, image = open_first(
        study.expanded_cases()[0], study.models[0], study, trust=request.trust
    )
    given = dict(_given(text, image) for text in maps)
    if len(given) < len(maps):
        raise ConfigError("two maps have the same name; write --map NAME=FILE")
    case = study.expanded_cases()[0].model_copy(
        update={"reference": truth[0], "reference_label": truth[1]}
    )
    mask = reference_mask(case, study.all_targets[0], image)
    return judged(
        loaded.model,
        image,
        given,
        metrics or _usual(mask is not None),
        study.all_targets[0],
        masks=None if mask is None else [mask],
        controls=controls,
        seed=seed,
        cases=[request.id],
    )


def _given(text: str, image: Any) -> tuple[str, ExternalMap]:
    """``NAME=FILE:sign=positive,kind=slope`` as a map with its name."""
    from voxplain.metrics import read_map

    head, colon, details = text.rpartition(":")
    if not colon or "=" not in details:
        head, details = text, ""
    name, equals, file = head.partition("=")
    path = Path(file if equals else head)
    facts = {"sign": "signed", "kind": "share", "resampling": "value", **parameters(details)}
    known = {
        "sign": ("signed", "absolute", "positive"),
        "kind": tuple(_KINDS),
        "resampling": ("value", "mass"),
    }
    for key, value in facts.items():
        if value not in known.get(key, ()):
            choices = ", ".join(known.get(key, tuple(known)))
            raise ConfigError(f"--map {path.name}: {key}={value}; one of: {choices}")
    given = read_map(
        path,
        image,
        sign=facts["sign"],
        share=_KINDS[facts["kind"]],
        resampling=facts["resampling"],
    )
    return name if equals else path.name.split(".")[0], given


def _study(request: Request, target: str, seed: int) -> Study:
    from voxplain.study import Study

    return Study.parse(
        {
            "cases": [request.case()],
            "models": [request.model()],
            "target": asked(target),
            "methods": ["saliency"],
            "run": {"seed": seed, "device": request.device},
        }
    )


def _usual(with_reference: bool) -> list[Metric]:
    from voxplain.metrics import parse_metric

    return [parse_metric(name) for name in (*USUAL, *(WITH_REFERENCE if with_reference else ()))]


def _refuse(what: str, **flags: Any) -> None:
    for name, value in flags.items():
        if value:
            raise ConfigError(f"--{name} does not go with {what}; voxplain evaluate --help")


def _require_table(output: Path | None) -> None:
    if output is not None and output.suffix.lower() not in (".parquet", ".csv"):
        raise ConfigError(f"--output {output.name}: write .parquet or .csv")

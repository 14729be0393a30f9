"""Commands on what is inside of a network: dissect, trails, errors, visualize, uncertainty."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voxplain.cli.app import app, debugging
from voxplain.cli.flag_values import parsed_declaration
from voxplain.cli.flags import SharedFlags, with_request
from voxplain.cli.studies import StudyFile, Trust, carry_out
from voxplain.errors import ConfigError

if TYPE_CHECKING:
    from voxplain.study import Study

Output = Annotated[Path | None, typer.Option("--output", "-o", help="Another run directory.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of all random draws.")]


def _command_on_study(name: str, families: tuple[str, ...], example: str, text: str) -> None:
    """Adds a command that does the analyses of some families of a study, and nothing else."""

    def command(
        context: typer.Context, study: StudyFile, output: Output = None, trust: Trust = False
    ) -> None:
        from voxplain.study import Study

        folder = output.absolute() if output else None
        _do(Study.load(study), families, example, folder, trust, debugging(context))

    command.__name__ = name
    app.command(name, help=text)(command)


_command_on_study(
    "dissect",
    ("dissection", "directions"),
    "dissection",
    "Ask which units of a network detect which concepts of a study.\n\n"
    "The study names its concepts: and, under analyses:, a dissection, directions, sensitivity or "
    "the like; the report has a page for every network.",
)
_command_on_study(
    "errors",
    ("errors",),
    "errors",
    "Ask what causes the errors of a network, and what corrects them.\n\n"
    "The study names references for its cases and, under analyses:, errors.",
)


@app.command()
def trails(
    context: typer.Context,
    study: StudyFile,
    skips: Annotated[
        list[str],
        typer.Option(
            "--skips",
            help="Instead of what the study says: auto, none, or layers as enc1:dec1. Repeat it.",
        ),
    ] = [],  # noqa: B006 - Typer copies it
    output: Output = None,
    trust: Trust = False,
) -> None:
    """Follow concepts through the layers of a network, by interventions.

    The study names its concepts: and, under analyses:, trails. Skip connections are found, unless
    they are named: voxplain trails study.yaml --skips enc1:dec1 --skips enc2:output
    """
    from voxplain.study import Study

    asked = Study.load(study).asking("trails", skips=_skips(skips))
    folder = output.absolute() if output else None
    _do(asked, ("trails",), "trails", folder, trust, debugging(context))


def _skips(texts: list[str]) -> str | list[list[str]] | None:
    """What ``--skips`` says; None without it.

    Raises:
        ConfigError: If it is neither a pair of layers nor the only one.
    """
    if not texts:
        return None
    if len(texts) == 1 and texts[0] in ("auto", "none"):
        return texts[0]
    pairs = [text.split(":") for text in texts]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise ConfigError(
            f"--skips takes auto, none, or two layers as enc1:dec1, not {' '.join(texts)}"
        )
    return pairs


@app.command()
@with_request
def visualize(
    request: SharedFlags,
    context: typer.Context,
    unit: Annotated[
        list[str],
        typer.Option("--unit", "-u", help="A class (1), a unit (dec1:3) or a layer. Repeat it."),
    ] = [],  # noqa: B006 - Typer copies it
    method: Annotated[
        list[str],
        typer.Option("--method", "-m", help="Of synthesis, such as deep_dream:octaves=3."),
    ] = ["feature_accentuation"],  # noqa: B006 - Typer copies it
    output: Annotated[Path, typer.Option("--output", "-o", help="Run directory.")] = Path(
        "voxplain-run"
    ),
    seed: Seed = 0,
) -> None:
    """Synthesize images that drive units of a network, with one image or a study.

    voxplain visualize scan.nii.gz --factory my_package:build --weights net.safetensors
    --unit dec1:3 -m feature_accentuation -m deep_dream:octaves=3
    """
    if not request.is_study and not unit:
        raise ConfigError("name what to drive: --unit 1 for a class, --unit dec1:3 for a unit")
    units = [int(each) if each.isdigit() else each for each in unit]
    methods = [parsed_declaration(text, "--method") for text in method]
    asked = {"name": "visualization", "methods": methods, "units": units, "reliability": False}
    _with_flags(context, request, [asked], output, seed, "synthesis")


@app.command()
@with_request
def uncertainty(
    request: SharedFlags,
    context: typer.Context,
    method: Annotated[
        str, typer.Option("--method", "-m", help="augmentation, dropout, or both joined by +.")
    ] = "augmentation",
    samples: Annotated[int, typer.Option("--samples", help="Predictions.")] = 16,
    output: Annotated[Path, typer.Option("--output", "-o", help="Run directory.")] = Path(
        "voxplain-run"
    ),
    seed: Seed = 0,
) -> None:
    """Map how sure a network is of its prediction, with one image or a study.

    voxplain uncertainty scan.nii.gz --factory my_package:build --weights net.safetensors
    --method dropout --samples 32
    """
    asked = {"name": "uncertainty", "method": method, "samples": samples}
    _with_flags(context, request, [asked], output, seed, "uncertainty")


def _with_flags(
    context: typer.Context,
    request: SharedFlags,
    asked: list[dict[str, Any]],
    output: Path,
    seed: int,
    family: str,
) -> None:
    """Does analyses of one image, or those of a family of a study."""
    from voxplain.study import Study

    debug = debugging(context)
    if request.is_study:
        study = Study.load(request.images[0])
        _do(study, (family,), asked[0]["name"], None, request.trust, debug)
        return
    study = Study.parse(request.study(None, (), seed, asked)).running(workers=0)
    _do(study, (family,), asked[0]["name"], output.absolute(), request.trust, debug)


def _do(
    study: Study,
    families: tuple[str, ...],
    example: str,
    output: Path | None,
    trust: bool,
    debug: bool,
) -> None:
    """Does the analyses of some families of a study.

    Raises:
        ConfigError: If the study has none.
    """
    from voxplain.study import Selection

    chosen = frozenset(each.key for each in study.analyses if each.family in families)
    if not chosen:
        raise ConfigError(f"the study has no such analysis; add one, as analyses: [{example}]")
    selection = Selection(analyses=chosen)
    carry_out(study, output, resume=True, trust=trust, debug=debug, selection=selection)

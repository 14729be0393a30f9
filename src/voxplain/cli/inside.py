"""Commands on what is inside of a network: dissect, trails, errors, visualize, uncertainty."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voxplain.cli.app import app, debugging
from voxplain.cli.flag_values import parsed_declaration
from voxplain.cli.flags import SharedFlags, with_request
from voxplain.cli.studies import StudyFile, Trust, carry_out
from voxplain.errors import ConfigError

if TYPE_CHECKING:
    from voxplain.study import Study

Output = Annotated[Path | None, typer.Option("--output", "-o", help="Another run directory.")]
Target = Annotated[
    str | None,
    typer.Option("--target", "-t", help="A class (1), kind:class (pixelwise:1), or JSON."),
]
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
    "trails",
    ("trails",),
    "trails",
    "Follow concepts through the layers of a network, by interventions.\n\n"
    "The study names its concepts: and, under analyses:, trails.",
)
_command_on_study(
    "errors",
    ("errors",),
    "errors",
    "Ask what causes the errors of a network, and what corrects them.\n\n"
    "The study names references for its cases and, under analyses:, errors.",
)


@app.command()
@with_request
def visualize(
    request: SharedFlags,
    context: typer.Context,
    method: Annotated[
        list[str],
        typer.Option("--method", "-m", help="Such as feature_accentuation:layer=dec1,channel=3."),
    ] = [],  # noqa: B006 - Typer copies it
    target: Target = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Run directory.")] = Path(
        "voxplain-run"
    ),
    seed: Seed = 0,
) -> None:
    """Synthesize images that drive units of a network, with one image or a study.

    voxplain visualize scan.nii.gz --factory my_package:build --weights net.safetensors
    -m feature_accentuation:layer=dec1,channel=3
    """
    _with_flags(context, request, method, target, output, seed, ("synthesis",), _ACCENTUATION)


@app.command()
@with_request
def uncertainty(
    request: SharedFlags,
    context: typer.Context,
    method: Annotated[
        list[str],
        typer.Option("--method", "-m", help="Such as uncertainty:source=dropout,samples=16."),
    ] = [],  # noqa: B006 - Typer copies it
    target: Target = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Run directory.")] = Path(
        "voxplain-run"
    ),
    seed: Seed = 0,
) -> None:
    """Map how sure a network is of its prediction, with one image or a study.

    voxplain uncertainty scan.nii.gz --factory my_package:build --weights net.safetensors
    """
    declared = method or ["uncertainty"]
    _with_flags(context, request, declared, target, output, seed, ("uncertainty",), "uncertainty")


_ACCENTUATION = "{name: feature_accentuation, layer: dec1, channel: 3}"


def _with_flags(
    context: typer.Context,
    request: SharedFlags,
    declared: list[str],
    target: str | None,
    output: Path,
    seed: int,
    families: tuple[str, ...],
    example: str,
) -> None:
    from voxplain.study import Study

    if request.is_study:
        study = Study.load(request.images[0])
        _do(study, families, example, None, request.trust, debugging(context))
        return
    if not declared:
        raise ConfigError(f"name a method, such as -m {_flag(example)}")
    analyses = [parsed_declaration(text, "--method") for text in declared]
    study = Study.parse(request.study(target, (), seed, analyses)).running(workers=0)
    _do(study, families, example, output.absolute(), request.trust, debugging(context))


def _flag(example: str) -> str:
    """The example as a flag states it."""
    name, _, rest = example.strip("{}").removeprefix("name: ").partition(", ")
    return ":".join(filter(None, (name, rest.replace(": ", "=").replace(", ", ","))))


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

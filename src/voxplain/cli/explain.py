"""``voxplain explain``: one image, one network, methods as flags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from voxplain.cli.app import app, debugging
from voxplain.cli.flag_values import parsed_declaration
from voxplain.cli.flags import MaxPasses, SharedFlags, with_request
from voxplain.cli.studies import carry_out
from voxplain.errors import ConfigError


@app.command()
@with_request
def explain(
    request: SharedFlags,
    context: typer.Context,
    target: Annotated[
        str,
        typer.Option(
            "--target", "-t", help="A class (1), kind:class (pixelwise:1, volume:2), or JSON."
        ),
    ],
    method: Annotated[
        list[str],
        typer.Option(
            "--method",
            "-m",
            help="A method, with parameters if need be: integrated_gradients:steps=16. Repeat it "
            "for several.",
        ),
    ] = ["saliency"],  # noqa: B006 - Typer copies it
    output: Annotated[Path, typer.Option("--output", "-o", help="Run directory.")] = Path(
        "voxplain-run"
    ),
    seed: Annotated[int, typer.Option("--seed", help="Seed of all random draws.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Keep maps that are still right.")
    ] = True,
    max_passes: MaxPasses = None,
) -> None:
    """Explain one image with one network, without a study file.

    voxplain explain scan.nii.gz --factory my_package:build --weights net.safetensors
    --normalize zscore --target pixelwise:1 -m saliency -m integrated_gradients:steps=16
    """
    import torch

    from voxplain.study import Study

    if request.is_study:
        raise ConfigError("explain takes an image; for a study file use: voxplain run STUDY")
    methods = [parsed_declaration(text, "--method") for text in method]
    study = Study.parse(request.study(target, methods, seed)).running(
        max_passes=max_passes, workers=0, threads=torch.get_num_threads()
    )
    carry_out(study, output.absolute(), resume, request.trust, debugging(context))

"""Commands that inspect and explain nothing: methods, metrics, layers, audit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from voxplain.cli.app import FAILED, app
from voxplain.cli.console import complain, fact, out, table
from voxplain.cli.flags import SharedFlags, with_request

if TYPE_CHECKING:
    from torch import Tensor

    from voxplain.attribution.audit_report import Audit
    from voxplain.image import Image
    from voxplain.study.planning.networks import LoadedModel


@app.command()
def methods(
    name: Annotated[
        str | None, typer.Argument(help="One method, with its formula and parameters.")
    ] = None,
) -> None:
    """List the methods with meaning and cost, or one with its formula, streams and parameters."""
    from voxplain.cli.methods import describe_method, list_methods

    if name is None:
        list_methods()
    else:
        describe_method(name)


@app.command()
def metrics(
    name: Annotated[
        str | None, typer.Argument(help="One metric, with its range and parameters.")
    ] = None,
) -> None:
    """List the metrics with meaning and cost, or one with range, chance level and parameters."""
    from voxplain.cli.metrics import describe_metric, list_metrics

    if name is None:
        list_metrics()
    else:
        describe_metric(name)


@app.command()
@with_request
def layers(
    request: SharedFlags,
    blocks: Annotated[
        bool, typer.Option("--all", help="Also the blocks that hold layers.")
    ] = False,
) -> None:
    """List the layers of a network in the order they run, with shapes and strides."""
    from voxplain.models.layers import list_layers

    loaded, image = _opened(request)
    with loaded.model.at_rest():
        listed = list_layers(loaded.model.network, _example(loaded, image))
    columns = ("layer", "type", "output", "stride", "parameters")
    rows = [
        (
            layer.path + (f"  (called {layer.calls} times)" if layer.calls > 1 else ""),
            layer.type,
            " ".join("x".join(map(str, shape[1:])) for shape in layer.shapes),
            "x".join(f"{step:g}" for step in layer.stride) if layer.spatial else "-",
            f"{layer.parameters:,}",
        )
        for layer in listed
        if layer.leaf or blocks
    ]
    out.print(table(columns, rows, right=("parameters",)))


@app.command()
@with_request
def audit(
    request: SharedFlags,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            "--rule",
            "-r",
            help="plain, guided, deconvnet, deep_lift, excitation or lrp. Repeat it for several.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
) -> None:
    """Check which functions of a network each backward rule covers.

    Exit code 1, if a requested rule is not covered.
    """
    from voxplain.attribution.audit import RULES
    from voxplain.attribution.audit import audit as audit_network

    loaded, image = _opened(request)
    rules = tuple(rule) if rule else tuple(RULES)
    result = audit_network(loaded.model, _example(loaded, image), rules)
    if as_json:
        typer.echo(result.to_json())
    else:
        _show_audit(result, rules)
    uncovered = [name for name in rules if not result.covered(name)]
    if uncovered:
        complain(f"not covered: {', '.join(uncovered)}")
        raise typer.Exit(FAILED)


def _opened(request: SharedFlags) -> tuple[LoadedModel, Image]:
    """The network and its prepared image, of flags or of the first entries of a study file."""
    from voxplain.study import Study
    from voxplain.study.planning.networks import open_first

    study = Study.load(request.images[0]) if request.is_study else Study.parse(request.study("0"))
    return open_first(study.expanded_cases()[0], study.models[0], study, request.trust)


def _example(loaded: LoadedModel, image: Image) -> Tensor:
    """The input of one call of the network: the image, or one window of it."""
    model, data = loaded.model, image.data
    layout = model.layout(data, image.grid.spacing)
    window = layout.cut(layout.pad(data), layout.positions[:1]) if layout else data[None]
    return model.admit(window)


def _show_audit(result: Audit, rules: tuple[str, ...]) -> None:
    rows = result.table()
    if rows:
        columns = tuple(rows[0])
        out.print(table(columns, [[str(row[column]) for column in columns] for row in rows]))
        out.print()
    for rule in rules:
        covered, reason = result.covered(rule), result.failures.get(rule, "")
        verdict = "covered" if covered else f"NOT covered {reason}".strip()
        fact(rule, verdict, "" if covered else "red")
        for text in result.remarks.get(rule, ()):
            fact("", text, "dim")
    for name, error in result.completeness.items():
        fact("complete", f"DeepLIFT from a {name} baseline, relative residual {error:.1e}")
    for name, error in result.conservation.items():
        fact("conserved", f"{name}, relative residual {error:.1e}")
    for text in result.invisible:
        fact("invisible", text)
    for text in result.unknown:
        fact("unknown", text)

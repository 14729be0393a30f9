"""Commands that look before anything runs: methods, layers, audit."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voxplain.cli.app import FAILED, app
from voxplain.cli.console import complain, fact, out, table
from voxplain.cli.flags import Request, with_request

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from voxplain.attribution import Method
    from voxplain.attribution.audit import Audit
    from voxplain.image import Image
    from voxplain.study.inputs import LoadedModel


@app.command()
def methods(
    name: Annotated[
        str | None, typer.Argument(help="One method, with its formula and parameters.")
    ] = None,
) -> None:
    """List the methods, or one with its meaning, formula and parameters."""
    from voxplain.attribution import methods as registry

    if name is not None:
        _describe(registry.get(name))
        return
    rows = [(title, registry.get(title).meaning()) for title in registry]
    out.print(table(("method", "what it shows"), rows))
    out.print()
    out.print("voxplain methods NAME shows formula and parameters", style="dim")


@app.command()
@with_request
def layers(
    request: Request,
    all: Annotated[bool, typer.Option("--all", help="Also the blocks that hold layers.")] = False,
) -> None:
    """List the layers of a network in the order they run, with shapes and strides."""
    from voxplain.layers import list_layers

    loaded, image = _opened(request)
    with loaded.model.at_rest():
        found = list_layers(loaded.model.network, _example(loaded, image))
    columns = ("layer", "type", "output", "stride", "parameters")
    rows = [
        (
            layer.path + (f"  (called {layer.calls} times)" if layer.calls > 1 else ""),
            layer.type,
            " ".join("x".join(map(str, shape[1:])) for shape in layer.shapes),
            "x".join(f"{step:g}" for step in layer.stride) if layer.spatial else "-",
            f"{layer.parameters:,}",
        )
        for layer in found
        if layer.leaf or all
    ]
    out.print(table(columns, rows, right=("parameters",)))


@app.command()
@with_request
def audit(
    request: Request,
    rule: Annotated[
        list[str] | None,
        typer.Option("--rule", "-r", help="plain, guided, deconvnet or deep_lift. Repeat it."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
) -> None:
    """Check which functions of a network each backward rule covers.

    Exit code 1, if a requested rule is not covered.
    """
    from voxplain.attribution.audit import audit as audited

    loaded, image = _opened(request)
    rules = tuple(rule) if rule else ("plain", "guided", "deconvnet", "deep_lift")
    found = audited(loaded.model, _example(loaded, image), rules)
    if as_json:
        typer.echo(found.to_json())
    else:
        _show_audit(found, rules)
    open_rules = [each for each in rules if not found.covered(each)]
    if open_rules:
        complain(f"not covered: {', '.join(open_rules)}")
        raise typer.Exit(FAILED)


def _opened(request: Request) -> tuple[LoadedModel, Image]:
    """The network and its prepared image, of flags or of the first entries of a study."""
    from voxplain.study.inputs import open_first

    if request.is_study:
        from voxplain.study import Study

        study = Study.load(request.images[0])
        return open_first(study.expanded_cases()[0], study.models[0], study, request.trust)
    return _from_flags(request)


def _from_flags(request: Request) -> tuple[LoadedModel, Image]:
    from voxplain.study import Study
    from voxplain.study.inputs import open_first

    study = Study.parse(
        {
            "cases": [request.case()],
            "models": [request.model()],
            "target": 0,
            "methods": ["saliency"],
            "run": {"device": request.device},
        }
    )
    return open_first(study.expanded_cases()[0], study.models[0], study, request.trust)


def _example(loaded: LoadedModel, image: Image) -> Any:
    """What one call of the network sees: the image, or one window of it."""
    model, data = loaded.model, image.data
    layout = model.layout(data.shape[1:], image.grid.spacing)
    piece = layout.cut(layout.pad(data), layout.positions[:1]) if layout else data[None]
    return model.admit(piece)


def _describe(method: type[Method]) -> None:
    out.print(method.title(), style="bold")
    out.print(method.meaning())
    body = textwrap.dedent((method.__doc__ or "").partition("\n")[2]).split("Attributes:")[0]
    if body.strip():
        out.print(body.strip(), style="dim", soft_wrap=True, markup=False)
    for name, value in (("formula", method.formula), ("paper", method.reference)):
        if value:
            fact(name, value)
    out.print()
    parameters = method.model_json_schema()["properties"]
    rows = [
        (alias, _in_words(parameters[alias]), _default(info), info.description or "")
        for alias, info in _by_alias(method).items()
        if alias != "name"
    ]
    out.print(table(("parameter", "type", "default", ""), rows))


def _by_alias(method: type[Method]) -> dict[str, FieldInfo]:
    return {info.alias or name: info for name, info in method.model_fields.items()}


def _in_words(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            parts = [_in_words(part) for part in schema[key] if part.get("type") != "null"]
            return " | ".join(dict.fromkeys(parts))
    if schema.get("type") == "array":
        inner = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        return f"list of {_in_words(inner)}" if inner else "list"
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1].lower()
    return str(schema.get("type", "any"))


def _default(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True) if not info.is_required() else "required"
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _show_audit(found: Audit, rules: tuple[str, ...]) -> None:
    rows = found.table()
    if rows:
        columns = tuple(rows[0])
        out.print(table(columns, [[str(row[column]) for column in columns] for row in rows]))
        out.print()
    for rule in rules:
        reason = found.failures.get(rule, "")
        verdict = "covered" if found.covered(rule) else f"NOT covered {reason}".strip()
        fact(rule, verdict, "" if found.covered(rule) else "red")
        for text in found.remarks.get(rule, ()):
            fact("", text, "dim")
    for name, error in found.completeness.items():
        fact("complete", f"DeepLIFT from a {name} baseline, relative residual {error:.1e}")
    for text in found.invisible:
        fact("invisible", text)
    for text in found.unknown:
        fact("unknown", text)

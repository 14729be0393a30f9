"""Methods, metrics and analyses in a study file: a name, or the parameters of any of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, GetJsonSchemaHandler, GetPydanticSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from voxplain.analyses import Analysis, analyses, parse_analysis
from voxplain.attribution.methods import methods
from voxplain.engine.method import Method, parse_method
from voxplain.errors import VoxplainError
from voxplain.metrics import BaseMetric, metrics, parse_metric
from voxplain.registry import Registry


def named(parse: Callable[[Any], Any]) -> BeforeValidator:
    """A validator from a parser, whose errors are given with the path of the entry."""

    def parsed(value: Any) -> Any:
        try:
            return parse(value)
        except VoxplainError as error:
            raise PydanticCustomError("voxplain", "{reason}", {"reason": str(error)}) from error

    return BeforeValidator(parsed)


def registered(base: type[BaseModel], registry: Registry[Any], title: str) -> GetPydanticSchema:
    """A schema of the entries of a registry: checks their class, and describes all of them.

    Args:
        base: The class of all entries.
        registry: Read when a JSON schema is made, so that plug-ins are in it.
        title: Of the list of names.
    """

    def describe(_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        names: JsonSchemaValue = {"type": "string", "enum": list(registry), "title": title}
        models = [handler(registry.get(name).__pydantic_core_schema__) for name in registry]
        return {"anyOf": [names, *models]}

    return GetPydanticSchema(
        lambda _source, _handler: core_schema.is_instance_schema(
            base, metadata={"pydantic_js_functions": [describe]}
        )
    )


StudyAnalysis = Annotated[
    Analysis, registered(Analysis, analyses, "Analysis name"), named(parse_analysis)
]
StudyMethod = Annotated[Method, registered(Method, methods, "Method name"), named(parse_method)]
StudyMetric = Annotated[
    BaseMetric, registered(BaseMetric, metrics, "Metric name"), named(parse_metric)
]

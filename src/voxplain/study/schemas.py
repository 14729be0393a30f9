"""The JSON schema of a list of methods or metrics: a name, or the parameters of any of them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, GetJsonSchemaHandler, GetPydanticSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from voxplain.attribution import Method, methods
from voxplain.metrics import Metric, metrics
from voxplain.registry import Registry


def registered(base: type[BaseModel], registry: Registry[Any], title: str) -> GetPydanticSchema:
    """Checks that a parsed value is of a registry, and describes everything that is in it.

    Args:
        base: What every entry of the registry is.
        registry: Read when a schema is asked for, so that plug-ins are in it.
        title: Of the list of names.
    """

    def describe(_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        names: JsonSchemaValue = {"type": "string", "enum": list(registry), "title": title}
        found = [handler(registry.get(name).__pydantic_core_schema__) for name in registry]
        return {"anyOf": [names, *found]}

    return GetPydanticSchema(
        lambda _source, _handler: core_schema.is_instance_schema(
            base, metadata={"pydantic_js_functions": [describe]}
        )
    )


MethodSchema = registered(Method, methods, "Method name")
MetricSchema = registered(Metric, metrics, "Metric name")

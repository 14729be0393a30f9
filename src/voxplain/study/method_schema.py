"""The JSON schema of a list of methods: a name, or the parameters of any registered method."""

from __future__ import annotations

from pydantic import GetJsonSchemaHandler, GetPydanticSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from voxplain.attribution import Method, methods


class _Union:
    """Stands for "any method" in a schema, so that editors complete names and parameters."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        names: JsonSchemaValue = {"type": "string", "enum": list(methods), "title": "Method name"}
        return {"anyOf": [names, *(_one(name, handler) for name in methods)]}


def _one(name: str, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
    return handler(methods.get(name).__pydantic_core_schema__)


MethodSchema = GetPydanticSchema(
    lambda _source, _handler: core_schema.is_instance_schema(
        Method,
        metadata={"pydantic_js_functions": [_Union.__get_pydantic_json_schema__]},
    )
)
"""Checks that a parsed value is a method, and describes every registered one."""

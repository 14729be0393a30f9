from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from voxplain.study.config.errors import dotted, explain_validation


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Spacing(Strict):
    kind: Literal["spacing"]
    size: float = 1.0


class Crop(Strict):
    kind: Literal["crop"]
    margin: int = 0


class Inner(Strict):
    overlap: float = 0.5
    steps: list[Annotated[Spacing | Crop, Field(discriminator="kind")]] = []


class Outer(Strict):
    window: Inner | None = None
    parts: tuple[Inner, ...] = ()
    execution: Inner = Field(default=Inner(), alias="run")
    named: str = ""

    @field_validator("named")
    @classmethod
    def _own(cls, value: str) -> str:
        if value == "ours":
            raise PydanticCustomError("voxplain", "{reason}", {"reason": "deep.steps: too few"})
        if value == "plain":
            raise ValueError("is too plain")
        return value


def sentence(mapping: dict[str, object]) -> str:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(mapping)
    return explain_validation(caught.value, Outer, "study.yaml")


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"windw": {}}, "study.yaml: windw: unknown parameter; did you mean window?"),
        ({"rum": {}}, "study.yaml: rum: unknown parameter; did you mean run?"),
        (
            {"run": {"overlp": 1}},
            "study.yaml: run.overlp: unknown parameter; did you mean overlap?",
        ),
        (
            {"window": {"overlp": 1}},
            "study.yaml: window.overlp: unknown parameter; did you mean overlap?",
        ),
        (
            {"parts": [{}, {"overlp": 1}]},
            "study.yaml: parts[1].overlp: unknown parameter; did you mean overlap?",
        ),
        (
            {"parts": [{"steps": [{"kind": "crop", "margn": 1}]}]},
            "study.yaml: parts[0].steps[0].crop.margn: unknown parameter; did you mean margin?",
        ),
        (
            {"window": {"steps": [{"kind": "spacng"}]}},
            "study.yaml: window.steps[0]: unknown kind 'spacng'; did you mean spacing?",
        ),
        (
            {"window": {"steps": [{"size": 1}]}},
            "study.yaml: window.steps[0]: needs a 'kind', which says what it is",
        ),
        ({"named": "ours"}, "study.yaml: named.deep.steps: too few"),
        ({"named": "plain"}, "study.yaml: named: is too plain"),
    ],
)
def test_each_mistake_is_one_sentence_with_its_path(mapping: dict[str, object], words: str) -> None:
    assert sentence(mapping) == words


def test_two_mistakes_are_two_lines() -> None:
    assert len(sentence({"windw": {}, "parts": [{"overlap": "x"}]}).splitlines()) == 2


def test_a_value_of_the_wrong_type_is_shown() -> None:
    assert sentence({"window": {"overlap": "much"}}).startswith(
        "study.yaml: window.overlap: 'much' should be a valid number"
    )


def test_a_path_is_written_as_people_write_it() -> None:
    assert dotted(("methods", 1, "steps")) == "methods[1].steps"
    assert dotted((0, "a")) == "[0].a"

"""The models that read a study file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from voxplain.analyses import parse_analysis
from voxplain.engine.method import Method
from voxplain.errors import ConfigError, nearest
from voxplain.metrics import metric_key
from voxplain.models.loading import Beside, ModelSpec
from voxplain.models.precision import Precision
from voxplain.models.windows import Window
from voxplain.preprocess import AnyStep
from voxplain.study.config.case_bids import CaseBids
from voxplain.study.config.case_nnunet import CaseNnunet
from voxplain.study.config.case_sources import CaseFolder, CaseSource
from voxplain.study.config.case_tables import CaseTable
from voxplain.study.config.cases import CaseConfig, expand_cases
from voxplain.study.config.concepts import StudyConcepts, bank_of
from voxplain.study.config.declarations import StudyAnalysis, StudyMethod, StudyMetric, named
from voxplain.study.config.errors import explain_validation
from voxplain.study.config.for_each import ForEach
from voxplain.study.config.prediction_parts import AnyForEach, parse_for_each
from voxplain.study.config.randomization import RandomizationConfig
from voxplain.study.config.run import RunConfig
from voxplain.targets import AnyTarget, Target, parse_target

_TARGETS: TypeAdapter[Any] = TypeAdapter(AnyTarget)


def _target(value: Any) -> Any:
    """A target: ``1``, ``"pixelwise:1"``, or a mapping, which with ``for_each`` stands for many."""
    if isinstance(value, ForEach):
        return value
    if not isinstance(value, Mapping):
        return parse_target(value)
    return parse_for_each(value) if "for_each" in value else _TARGETS.validate_python(value)


def _true_in_words(value: Any) -> Any:
    """``labels: true`` as the word, and not as the boolean that YAML reads."""
    return "true" if value is True else value


def _at_each_layer(methods: tuple[Method, ...]) -> tuple[Method, ...]:
    """A method with several layers whose maps lie on the image, as one method for each."""
    return tuple(each for method in methods for each in method.each_layer())


_SOURCES: dict[str, type[CaseFolder | CaseTable | CaseBids | CaseNnunet]] = {
    "folder": CaseFolder,
    "table": CaseTable,
    "bids": CaseBids,
    "nnunet": CaseNnunet,
}


_KEYS = "folder, table, bids or nnunet"


def _case_entry(value: Any) -> Any:
    """An entry of the cases, by the key that only its kind has."""
    if isinstance(value, CaseConfig | CaseSource):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"{value!r} is no case; write image: and a file, or {_KEYS}")
    kinds = [name for name in _SOURCES if name in value]
    return _SOURCES[kinds[0]].model_validate(value) if kinds else CaseConfig.model_validate(value)


def _entries(value: Any) -> Any:
    """One entry as a list."""
    return [value] if isinstance(value, Mapping | str) else value


_AnyCases = CaseConfig | CaseFolder | CaseTable | CaseBids | CaseNnunet
_SomeCases = Annotated[tuple[_AnyCases, ...], Field(min_length=1)]
StudyCases = Annotated[_AnyCases, BeforeValidator(_case_entry)]
StudyTarget = Annotated[AnyTarget | AnyForEach, named(_target)]
S = TypeVar("S", bound="StudyConfig")


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelConfig(ModelSpec):
    """A network of a study, with the preprocessing it was trained with.

    Attributes:
        window: Sliding windows.
        precision: Numeric type of the passes; that of the run if None.
        preprocess: Steps that every image goes through before the network sees it.
        architecture: Networks that name the same one differ by their training seed alone; where
            one of two names none, their parameters are compared.
        labels: What it was trained on. A network that was trained on permuted labels is not
            explained itself: the others of its architecture are compared with it.
        explained: False where it is loaded for the others to be compared with it, no more.
    """

    window: Window | None = None
    precision: Precision | None = None
    preprocess: tuple[AnyStep, ...] = ()
    architecture: str | None = Field(default=None, min_length=1)
    labels: Annotated[Literal["true", "permuted"], BeforeValidator(_true_in_words)] = "true"
    explained: bool = True

    def each_fold(self) -> tuple[ModelConfig, ...]:
        """A network for each fold that is named, unless they are one ensemble."""
        if self.ensemble or len(self.folds) < 2:
            return (self,)
        return tuple(
            self.model_copy(update={"name": f"{self.name}-fold{fold}", "folds": (fold,)})
            for fold in self.folds
        )

    def completed(self, beside: Beside) -> ModelConfig:
        """The same with what the folder of the network states, where the study states nothing."""
        open_fields = beside.fields.keys() - self.model_fields_set
        if not open_fields:
            return self
        stated = {name: beside.fields[name] for name in open_fields}
        return type(self).model_validate({**self.model_dump(exclude_unset=True), **stated})

    @property
    def only_compared(self) -> bool:
        """Whether others are compared with it, and it is not explained itself."""
        return self.labels == "permuted" or not self.explained


def _each_fold(models: tuple[ModelConfig, ...]) -> tuple[ModelConfig, ...]:
    """Networks of several folds as one for each."""
    return tuple(fold for model in models for fold in model.each_fold())


def _unique(field: str, names: list[str]) -> None:
    """Refuses names that are one, also where a file system does not tell A from a."""
    counts = Counter(name.casefold() for name in names)
    repeated = [name for name in names if counts[name.casefold()] > 1]
    if not repeated:
        return
    if len({*repeated}) == len(repeated):
        raise ValueError(
            f"{field}: {' and '.join(map(repr, repeated[:2]))} differ by case alone, and some "
            "systems take them for one; give each its own name"
        )
    raise ValueError(f"{field}: two of them are called {repeated[0]!r}; give each its own name")


class StudyConfig(_Config):
    """What a study file says; :class:`voxplain.study.Study` reads one and runs it."""

    cases: Annotated[
        tuple[StudyCases, ...],
        Field(min_length=1),
        BeforeValidator(_entries, json_schema_input_type=_AnyCases | _SomeCases),
    ]
    models: Annotated[tuple[ModelConfig, ...], Field(min_length=1), AfterValidator(_each_fold)]
    target: StudyTarget | None = None
    targets: tuple[StudyTarget, ...] = ()
    methods: Annotated[tuple[StudyMethod, ...], AfterValidator(_at_each_layer)] = ()
    metrics: tuple[StudyMetric, ...] = ()
    concepts: tuple[StudyConcepts, ...] = ()
    analyses: tuple[StudyAnalysis, ...] = ()
    randomization: RandomizationConfig | None = None
    references: tuple[str, ...] = ()
    execution: RunConfig = Field(default=RunConfig(), alias="run")
    output: Path | None = None

    _base: Path = PrivateAttr(default_factory=Path.cwd)
    _name: str = PrivateAttr(default="study")

    @classmethod
    def parse(
        cls: type[S], mapping: Mapping[str, Any], *, base: Path | None = None, origin: str = ""
    ) -> S:
        """A study from a mapping, with relative paths starting at ``base``.

        Raises:
            ConfigError: With a sentence per mistake, each with its path.
        """
        try:
            study = cls.model_validate(dict(mapping))
        except ValidationError as error:
            raise ConfigError(explain_validation(error, cls, origin)) from error
        study._base = (base or Path.cwd()).absolute()
        return study

    def running(self: S, **settings: Any) -> S:
        """The same study with other settings of ``run``; those that are None stay as they are.

        Raises:
            ConfigError: If a value does not fit, with its name.
        """
        given = {name: value for name, value in settings.items() if value is not None}
        if not given:
            return self
        try:
            execution = RunConfig.model_validate({**self.execution.model_dump(), **given})
        except ValidationError as error:
            raise ConfigError(explain_validation(error, RunConfig, "run")) from error
        return self.model_copy(update={"execution": execution})

    def asking(self: S, analysis: str, **settings: Any) -> S:
        """The same study with other settings of an analysis; those that are None stay as they are.

        Args:
            analysis: Its name; every analysis of this name is changed.
            settings: Their new values.

        Raises:
            ConfigError: If a value does not fit, with its name.
        """
        given = {name: value for name, value in settings.items() if value is not None}
        changed = tuple(
            parse_analysis({**each.model_dump(), **given}) if each.name == analysis else each
            for each in self.analyses
        )
        return self.model_copy(update={"analyses": changed}) if given else self

    @property
    def base(self) -> Path:
        """Folder that relative paths start from."""
        return self._base

    @property
    def name(self) -> str:
        """Name of the study file, without its ending."""
        return self._name

    @property
    def folder(self) -> Path:
        """The run directory: ``output``, or ``runs/<name of the study file>``."""
        return self._base / (self.output or Path("runs") / self._name)

    @property
    def all_targets(self) -> tuple[Target | ForEach, ...]:
        """The targets, from ``target`` or ``targets``, as they are written."""
        return self.targets or ((self.target,) if self.target is not None else ())

    def expanded_cases(self) -> tuple[CaseConfig, ...]:
        """Every case with an id and absolute paths, patterns filled in.

        Raises:
            ConfigError: If a pattern fits no file, or two cases have one id.
        """
        return expand_cases(self.cases, self._base)

    @model_validator(mode="after")
    def _check_names(self) -> StudyConfig:
        asks = self.methods or any(analysis.needs_target for analysis in self.analyses)
        if (self.target is not None and self.targets) or (asks and not self.all_targets):
            raise ValueError("give either target (one) or targets (a list of them)")
        _unique("models", [model.name for model in self.models])
        _unique("methods", [method.key for method in self.methods])
        _unique("targets", [target.slug for target in self.all_targets])
        _unique("metrics", [metric_key(metric) for metric in self.metrics])
        _unique("analyses", [analysis.key for analysis in self.analyses])
        if not self.methods and not self.analyses:
            raise ValueError("methods: give at least one, or analyses; there is nothing to do")
        if not self.methods and (self.metrics or self.randomization):
            raise ValueError("metrics and randomization need methods, whose maps they score")
        self._check_concepts()
        self._check_randomization()
        if all(model.only_compared for model in self.models):
            raise ValueError(
                "models: all of them were trained on permuted labels or have explained: false, "
                "and are only compared with; name the one that is to be explained"
            )
        return self

    def _check_concepts(self) -> None:
        bank_of(self.concepts, self._base)
        for analysis in self.analyses:
            if analysis.needs_concepts and not self.concepts:
                raise ValueError(f"analyses: {analysis.key} needs concepts; the study has none")

    def _check_randomization(self) -> None:
        if self.randomization is None:
            return
        metrics = [metric_key(metric) for metric in self.randomization.metrics]
        _unique("randomization.metrics", metrics)
        labels = [method.key for method in self.methods]
        for name in self.randomization.methods:
            if name not in labels:
                raise ValueError(
                    f"randomization.methods: no method is called {name!r}; {nearest(name, labels)}"
                )

"""Metrics: how far a map can be trusted, judged beside controls."""

from voxplain.metrics import catalogue
from voxplain.metrics.evaluation import evaluate
from voxplain.metrics.fellows import Fellow
from voxplain.metrics.field import MapField, Undefined
from voxplain.metrics.given import GivenMap, read_given
from voxplain.metrics.metric import Metric, Value, metric_key, metrics, parse_metric, register
from voxplain.metrics.observed import Observed
from voxplain.metrics.panel import Panel
from voxplain.metrics.question import Probe, Question
from voxplain.metrics.scores import Score, Scores

__all__ = [
    "Fellow",
    "GivenMap",
    "MapField",
    "Metric",
    "Observed",
    "Panel",
    "Probe",
    "Question",
    "Score",
    "Scores",
    "Undefined",
    "Value",
    "catalogue",
    "evaluate",
    "metric_key",
    "metrics",
    "parse_metric",
    "read_given",
    "register",
]

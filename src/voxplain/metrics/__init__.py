"""Metrics: how far a map can be trusted, judged beside controls."""

from __future__ import annotations

from voxplain.metrics import families
from voxplain.metrics.context import Probe, Question
from voxplain.metrics.evaluation import evaluate
from voxplain.metrics.map_field import MapField, Undefined
from voxplain.metrics.maps import GivenMap, read_given
from voxplain.metrics.metric import Metric, Value, metric_key, metrics, parse_metric, register
from voxplain.metrics.other_networks import Fellow
from voxplain.metrics.perturbed import Observed
from voxplain.metrics.scoring import Panel
from voxplain.records.scores import Score, Scores

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
    "evaluate",
    "families",
    "metric_key",
    "metrics",
    "parse_metric",
    "read_given",
    "register",
]

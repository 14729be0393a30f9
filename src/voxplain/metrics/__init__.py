"""Metrics: how far a map can be trusted, beside controls; and what authors of metrics need."""

from __future__ import annotations

from voxplain.engine.context import Context
from voxplain.metrics import families
from voxplain.metrics.case import Case
from voxplain.metrics.context import BaseQuery, MapQuery, MetricContext, Query
from voxplain.metrics.cross_case import CaseSummary, CrossCaseMetric, completed, to_compare
from voxplain.metrics.evaluation import evaluate
from voxplain.metrics.maps import ExternalMap, MapField, Undefined, read_map
from voxplain.metrics.metric import (
    BaseMetric,
    Direction,
    Metric,
    NetworkMetric,
    PendingScore,
    Value,
    metric_key,
    metrics,
    parse_metric,
    register,
)
from voxplain.metrics.other_networks import OtherNetwork
from voxplain.metrics.perturbed import PerturbedPrediction
from voxplain.metrics.re_explain import explain_again
from voxplain.metrics.scoring import MapScorer
from voxplain.records.scores import Score, Scores

__all__ = [
    "BaseMetric",
    "BaseQuery",
    "Case",
    "CaseSummary",
    "Context",
    "CrossCaseMetric",
    "Direction",
    "ExternalMap",
    "MapField",
    "MapQuery",
    "MapScorer",
    "Metric",
    "MetricContext",
    "NetworkMetric",
    "OtherNetwork",
    "PendingScore",
    "PerturbedPrediction",
    "Query",
    "Score",
    "Scores",
    "Undefined",
    "Value",
    "completed",
    "evaluate",
    "explain_again",
    "families",
    "metric_key",
    "metrics",
    "parse_metric",
    "read_map",
    "register",
    "to_compare",
]

"""Metrics: how far a map can be trusted, judged beside controls."""

from __future__ import annotations

from voxplain.metrics import families
from voxplain.metrics.context import MetricContext, Query
from voxplain.metrics.evaluation import evaluate
from voxplain.metrics.map_field import MapField, Undefined
from voxplain.metrics.maps import ExternalMap, read_map
from voxplain.metrics.metric import Metric, Value, metric_key, metrics, parse_metric, register
from voxplain.metrics.other_networks import OtherNetwork
from voxplain.metrics.perturbed import PerturbedPrediction
from voxplain.metrics.scoring import MapScorer
from voxplain.records.scores import Score, Scores

__all__ = [
    "ExternalMap",
    "MapField",
    "MapScorer",
    "Metric",
    "MetricContext",
    "OtherNetwork",
    "PerturbedPrediction",
    "Query",
    "Score",
    "Scores",
    "Undefined",
    "Value",
    "evaluate",
    "families",
    "metric_key",
    "metrics",
    "parse_metric",
    "read_map",
    "register",
]

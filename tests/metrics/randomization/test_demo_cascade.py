"""The trained network of the demo: what the docs state about randomization holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from metric_cases import metric_context

from voxplain.attribution import explain
from voxplain.demo import write_demo
from voxplain.metrics.randomization import Cascade, recorded
from voxplain.report.trust.score_index import score_indexes
from voxplain.report.trust.verdict import verdicts
from voxplain.study import Study
from voxplain.study.planning.images import read_case
from voxplain.study.planning.networks import NetworkSource

pytest.importorskip("nilearn", reason="nilearn carries the image of the demo")


@pytest.mark.slow
def test_saliency_changes_with_the_weights_and_guided_backprop_does_not(
    tmp_path: Path,
) -> None:
    study = Study.load(write_demo(tmp_path))
    loaded = NetworkSource.of(study.models[0], study, trust=False).load()
    image = loaded.prepare(read_case(study.expanded_cases()[0]))
    methods = ["saliency", "guided_backprop"]
    maps = explain(loaded.model, image, methods, study.all_targets[0])
    context = metric_context(loaded.model, image, maps, study.all_targets[0])
    cascade = context.run_query(Cascade(seeds=1, steps=4))
    saliency, guided = (cascade[name].curves[0] for name in methods)
    assert all(abs(step.spearman) < 0.5 for step in saliency[2:])
    assert all(step.spearman > 0.6 for step in guided[:-1])
    for of_saliency, of_guided in zip(saliency[1:], guided[1:], strict=True):
        assert of_guided.spearman > of_saliency.spearman + 0.3
        assert of_guided.ssim > of_saliency.ssim + 0.2
    assert saliency[-1].spearman_absolute > 0.8  # decided by where the target looks
    record, _ = recorded(context, cascade, "top_down", "mni152")
    assert all(step == 1 for step in record.maps[-1].similarity["spearman"][0])
    (index,) = score_indexes([], [record])
    assert [verdict.statements[0].status for verdict in verdicts(index)] == ["good", "bad"]

"""The reliability panel: verdicts on networks of which it is known what they must be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import pytest
import torch
from networks import untouched
from synthesis_cases import images, network
from torch import Tensor, nn

from voxplain.engine.cohort import Cohort, CohortCase
from voxplain.engine.context import Context
from voxplain.engine.observation import observe
from voxplain.engine.taps import Tap
from voxplain.errors import ConfigError
from voxplain.image import Image
from voxplain.models.model import Model
from voxplain.records.synthesis import ReliabilityItem, SynthesisRecord
from voxplain.synthesis import Synthesis, measure, reliability_panel, synthesize
from voxplain.synthesis.objectives.layers import ChannelActivation
from voxplain.synthesis.objectives.outputs import ClassLogit
from voxplain.synthesis.reliability.exemplars import answers_of
from voxplain.synthesis.reliability.panel import NOT_INTERPRETABLE, caption_of


class Bright(nn.Module):
    """A unit that answers to bright voxels, and one for dark ones; a head of both."""

    def __init__(self) -> None:
        super().__init__()
        self.unit, self.relu = nn.Conv2d(1, 2, 3, padding=1), nn.ReLU()
        self.head = nn.Conv2d(2, 2, 1)
        with torch.no_grad():
            self.unit.weight[0], self.unit.weight[1] = 1 / 9, -1 / 9
            self.unit.bias.zero_()

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.relu(self.unit(image)))


def spots(levels: tuple[float, ...] = (1, 2, 3, 4, 5, 6)) -> Cohort:
    """Cases with a bright spot each, of known height and place."""
    cases = []
    for number, level in enumerate(levels):
        data = torch.zeros(1, 16, 14)
        data[0, 3 + number : 6 + number, 4:7] = level
        data[0, 12:15, 9:12] = -1.0
        cases.append(CohortCase(f"case {number}", f"p{number}", Image.from_array(data, 1.0)))
    return Cohort.of(cases)


def panel_of(
    net: nn.Module, cohort: Cohort, found: Synthesis, **more: Any
) -> dict[str, ReliabilityItem]:
    panel = reliability_panel(Model.of(net), found, cohort, top=3, **more)
    return {item.item: item for item in panel.record.items}


def test_exemplars_are_the_cases_with_the_largest_peaks_and_their_maps_lie_on_them() -> None:
    net, cohort = Bright().eval(), spots()
    answers = answers_of(Model(net), cohort, ChannelActivation(layer="relu", channel=0))
    assert [answer.peak for answer in answers.ranked] == pytest.approx([6, 5, 4, 3, 2, 1])
    assert answers.ranked[0].voxel == (9, 5)
    best, worst = answers.exemplars(2), answers.bottom_exemplars(2)
    assert [each.case for each in best] == ["case 5", "case 4"]
    assert [each.case for each in worst] == ["case 0", "case 1"]
    assert best[0].map is not None
    expected = net.relu(net.unit(best[0].image.data[None])).detach()[0, 0]
    assert torch.allclose(best[0].map, expected, atol=1e-6)


def test_windows_find_the_same_peaks_at_the_same_places() -> None:
    net, cohort = Bright().eval(), spots()
    unit = ChannelActivation(layer="relu", channel=0)
    whole = answers_of(Model(net), cohort, unit, (Tap("unit"),))
    model = Model(net, window={"size": 10, "overlap": 0.5})
    windowed = answers_of(model, cohort, unit, (Tap("unit"),))
    for one, other in zip(whole.answers, windowed.answers, strict=True):
        assert one.peak == pytest.approx(other.peak)
        assert one.voxel == other.voxel
        assert torch.allclose(one.at_peak[Tap("unit")], other.at_peak[Tap("unit")], atol=1e-6)
    for each in (ClassLogit(label=1),):
        pair = [answers_of(m, cohort, each, (Tap("unit"),)) for m in (Model(net), model)]
        assert pair[0].answers[2].voxel == pair[1].answers[2].voxel


def test_vectors_are_those_of_the_layer_at_the_peak() -> None:
    net, cohort = Bright().eval(), spots()
    answers = answers_of(
        Model(net), cohort, ChannelActivation(layer="relu", channel=0), (Tap("unit"),)
    )
    seen = observe(Context.open(net, cohort["case 3"].image), (Tap("unit"),))[Tap("unit")]
    row, column = answers.answers[3].voxel or (0, 0)
    assert torch.allclose(answers.answers[3].at_peak[Tap("unit")].float(), seen[:, row, column])


def test_a_unit_that_is_what_it_seems_passes() -> None:
    net, cohort = Bright().eval(), spots()
    statistics = measure(cohort)
    method = {"name": "activation_maximization", "steps": 60, "regularization": {"l2": 0.0}}
    (found,) = synthesize(net, statistics, method, "relu:0").values()
    with untouched(net):
        items = panel_of(net, cohort, found, dissection=(0.6, 0.5, 0.7))
    assert items["exemplars"].verdict == "pass"
    assert items["strength"].values["percentile"] >= 80
    assert items["likeness"].verdict == "pass"
    assert items["seeds"].verdict == "pass"
    assert items["nearness"].verdict == "not measured"
    assert items["dissection"].verdict == "pass"
    assert all(item.threshold and item.in_words for item in items.values())


def test_a_picture_without_what_drives_the_unit_fails_where_it_should() -> None:
    net, cohort = Bright().eval(), spots()
    method = {"name": "activation_maximization", "steps": 60, "regularization": {"l2": 0.0}}
    statistics = measure(cohort)
    (bright,) = synthesize(net, statistics, method, "relu:0").values()

    wrong = replace(bright, images=torch.full_like(bright.images, -1.0), peaks=(0.0,))
    items = panel_of(net, cohort, wrong, dissection=(0.1, 0.01, 0.2), seeds=2)
    assert items["strength"].verdict == "fail"
    assert items["likeness"].verdict == "fail"
    assert items["dissection"].verdict == "fail"
    assert items["seeds"].verdict == "not measured"


def test_the_trained_network_of_random_weights_fails_against_another_one() -> None:
    net, cohort = Bright().eval(), spots()
    method = {"name": "activation_maximization", "steps": 60, "regularization": {"l2": 0.0}}
    (found,) = synthesize(net, measure(cohort), method, "relu:0").values()

    panel = reliability_panel(Model(net), found, cohort, top=3)
    assert panel.on_random_network is not None
    share = {item.item: item for item in panel.record.items}["random network"].values["share"]
    # Had the trained network gained nothing beyond it, the same picture would gain all of it.
    weak = replace(found, scores=(found.start_scores[0] + 1e-9,))
    items = panel_of(net, cohort, weak)
    if share > 0:
        assert items["random network"].verdict == "fail"
    assert caption_of([]) == ""
    failing = [
        ReliabilityItem(item=name, verdict="fail", in_words="", threshold="")
        for name in ("likeness", "random network")
    ]
    assert caption_of(failing) == NOT_INTERPRETABLE
    assert caption_of(failing[:1]) == ""


def test_an_accentuation_says_how_far_it_went() -> None:
    net, cases = network(2), images(2)
    cohort = Cohort.of([CohortCase(f"{n}", f"{n}", image) for n, image in enumerate(cases)])
    method = {"name": "feature_accentuation", "steps": 10, "penalty": 0.0}
    (found,) = synthesize(net, cases[0], method, "second:1", statistics=measure(cases)).values()
    items = panel_of(net, cohort, found, image=cases[0], seeds=3)
    values = items["nearness"].values
    spans = found.statistics.range.view(-1, 1, 1)
    expected = ((found.image - cases[0].data) / spans).square().mean().sqrt()
    assert values["change"] == pytest.approx(float(expected))
    assert values["layer distance"] > 0
    assert items["nearness"].verdict == "pass"
    with pytest.raises(ConfigError, match="give it to the panel as well"):
        reliability_panel(Model(net), found, cohort)


def test_methods_without_pictures_of_one_unit_have_no_panel() -> None:
    net, cases = network(2), images(2)
    cohort = Cohort.of([CohortCase(f"{n}", f"{n}", image) for n, image in enumerate(cases)])
    method = {"name": "inverted_representation", "steps": 2}
    (found,) = synthesize(net, cases[0], method, "second").values()
    with pytest.raises(ConfigError, match="not about inverted_representation"):
        reliability_panel(Model(net), found, cohort, image=cases[0])
    (found,) = synthesize(net, cases, {"name": "feature_visualization", "steps": 2}, 1).values()
    with pytest.raises(ConfigError, match="the cohort is empty"):
        reliability_panel(Model(net), found, Cohort.of([]))


@pytest.mark.parametrize("rank", [2, 3])
def test_results_are_written_with_their_panel_and_read_again(rank: int, tmp_path: Path) -> None:

    net, cases = network(rank), images(rank)
    cohort = Cohort.of([CohortCase(f"{n}", f"{n}", image) for n, image in enumerate(cases)])
    method = {"name": "feature_visualization", "steps": 3, "images": 2}
    (found,) = synthesize(net, cohort, method, "second:1").values()
    panel = reliability_panel(Model(net), found, cohort, top=2)
    path = found.with_reliability(panel.record).save(tmp_path, "phantom")
    record = SynthesisRecord.model_validate_json(path.read_text())
    assert record.reliability == panel.record
    assert record.unit == "second:1"
    assert len(record.history) == 3
    assert (tmp_path / record.figure).read_bytes().startswith(b"\x89PNG")
    for number, entry in enumerate(record.images):
        file: Any = nibabel.load(tmp_path / entry.file)
        values = torch.from_numpy(file.get_fdata()).squeeze()
        expected = found.images[number].movedim(0, -1).squeeze().double()
        assert torch.allclose(values, expected, atol=5e-3)
        assert file.header.get_zooms()[:rank] == pytest.approx(cases[0].grid.spacing)
    shown = found.with_reliability(panel.record)._repr_html_()
    assert "random network" in shown
    assert "<script" not in shown


def test_a_figure_shows_start_images_change_and_mosaic() -> None:
    net, image = network(3), images(3)[0]
    (found,) = synthesize(
        net, image, {"name": "deep_dream", "steps": 2, "octaves": 1}, "second"
    ).values()
    rows = found.figure.rows
    assert [len(row) for row in rows] == [4, 4, 4, 4, 3, 3]
    assert found.figure.bar is not None
    net, image = network(2), images(2)[0]
    method = {"name": "activation_grid", "steps": 2, "pictures_at_most": 6, "extent": (5, 4)}
    (grid,) = synthesize(net, image, method, "second").values()
    (name, volume), *_ = grid._shown
    assert name == "4 pictures"
    assert volume.data.shape == (2, 10, 8, 1)
    assert torch.allclose(torch.from_numpy(volume.data[:, :5, :4, 0]), grid.images[0])

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic_runs import RunWriter, evidence
from synthetic_scores import cascade

from voxplain.errors import InputError
from voxplain.report import kept_figures, render
from voxplain.report.trust.cascade_strip import strip_key

AFFINE = np.diag([2.0, 1.5, 3.0, 1])


class Pens:
    """Counts what is drawn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.drawn = 0
        monkeypatch.setattr(kept_figures, "png", self._png)

    def _png(self, picture: Image.Image) -> bytes:
        self.drawn += 1
        return f"{self.drawn} {picture.size}".encode()

    def render(self, folder: Path) -> tuple[int, str]:
        """How many figures are drawn, and the page."""
        before = self.drawn
        page = render(folder).read_text(encoding="utf-8")
        return self.drawn - before, page


@pytest.fixture
def pens(monkeypatch: pytest.MonkeyPatch) -> Pens:
    return Pens(monkeypatch)


def small_run(folder: Path, strength: float = 1.0, reference: bool = False) -> Path:
    """Two maps of a small volume."""
    run = RunWriter(folder)
    run.model("net")
    mask = np.zeros((8, 9, 7), bool)
    mask[2:6, 3:7, 2:5] = True
    run.case("c", 100.0 * mask[None], AFFINE, reference=mask if reference else None)
    run.prediction("c", "net", mask, AFFINE)
    run.map("c", "net", "saliency", evidence(mask, 0)[None], AFFINE)
    run.map("c", "net", "smoothgrad", strength * evidence(mask, 1)[None], AFFINE)
    return run.finish()


def test_an_unchanged_run_draws_nothing_and_gives_the_same_page(tmp_path: Path, pens: Pens) -> None:
    cascade(small_run(tmp_path))
    drawn, page = pens.render(tmp_path)
    assert drawn == 3
    small_run(tmp_path)
    assert pens.render(tmp_path) == (0, page)


def test_only_what_changed_is_drawn(tmp_path: Path, pens: Pens) -> None:
    _, first = pens.render(small_run(tmp_path))
    stronger, page = pens.render(small_run(tmp_path, strength=2.0))
    assert stronger == 1
    assert page != first
    both, _ = pens.render(small_run(tmp_path, strength=2.0, reference=True))
    assert both == 2
    assert pens.render(small_run(tmp_path, strength=2.0, reference=True))[0] == 0


def test_figures_that_are_gone_or_interrupted_are_drawn_again(tmp_path: Path, pens: Pens) -> None:
    _, page = pens.render(small_run(tmp_path))
    next(tmp_path.glob("figures/*saliency*.png")).unlink()
    assert pens.render(tmp_path) == (1, page)
    next(tmp_path.glob("figures/*smoothgrad*.webp")).unlink()
    assert pens.render(tmp_path) == (1, page)
    (tmp_path / "figures/figures.json").write_text('["not", "keys"]')
    assert pens.render(tmp_path) == (2, page)
    (tmp_path / "figures/figures.json").write_text('{"figures/')
    assert pens.render(tmp_path) == (2, page)


def test_a_run_that_dies_while_drawing_keeps_no_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render(small_run(tmp_path))
    small_run(tmp_path, strength=2.0)
    with monkeypatch.context() as patch:
        patch.setattr(kept_figures, "figure_bytes", lambda picture: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            render(tmp_path)
    assert not (tmp_path / "figures/figures.json").exists()


def test_nothing_is_written_through_links(tmp_path: Path) -> None:
    run, outside = small_run(tmp_path / "run"), tmp_path / "outside"
    outside.mkdir()
    precious = outside / "precious.txt"
    precious.write_text("precious")
    render(run)
    figure = next(run.glob("figures/*saliency*.png"))
    for file in (figure, figure.with_suffix(".webp"), run / "figures/figures.json"):
        file.unlink()
        file.symlink_to(precious)
        render(run)
        assert precious.read_text() == "precious"
        assert not file.is_symlink()
    shutil.rmtree(run / "figures")
    (run / "figures").symlink_to(outside)
    with pytest.raises(InputError, match="figures is a link"):
        render(run)
    assert [file.name for file in outside.iterdir()] == ["precious.txt"]


def test_shared_pages_have_no_figures(tmp_path: Path, pens: Pens) -> None:
    render(small_run(tmp_path), share=True)
    assert pens.drawn == 0
    assert not (tmp_path / "figures").exists()


def test_the_key_of_a_strip_is_that_of_what_it_shows(tmp_path: Path) -> None:
    record = cascade(tmp_path)
    pictures = {"saliency": np.ones((3, 4, 5)), "edges": np.ones((3, 4, 5))}
    brighter = {**pictures, "edges": pictures["edges"].copy()}
    brighter["edges"][2, 3, 4] += 1e-3
    turned = {**pictures, "edges": np.ones((3, 5, 4))}
    renamed = {"saliency": pictures["saliency"], "center": pictures["edges"]}
    keys = [strip_key(record, shown) for shown in (pictures, brighter, turned, renamed)]
    keys.append(strip_key(record.model_copy(update={"case": "other"}), pictures))
    assert len(set(keys)) == len(keys)
    assert strip_key(record, dict(reversed(pictures.items()))) == keys[0]

"""The page of a network: analyses with cards, tables and a graph, from files alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from html_page import Page
from PIL import Image
from synthetic_runs import head_run

from voxplain.records.analysis_page import (
    AnalysisPage,
    GraphEdge,
    GraphNode,
    PageCard,
    PageFigure,
    PageGraph,
    PageTable,
    PageVerdict,
)
from voxplain.records.manifest import AnalysisRecord, Manifest
from voxplain.report import render
from voxplain.report.network.graph import draw

GRAPH = PageGraph(
    nodes=[
        GraphNode(id="image", label="image", column=0),
        GraphNode(id="a", label="edge", column=1, note="IoU 0.31"),
        GraphNode(id="b", label="edema", column=1),
        GraphNode(id="c", label="whole tumor with a long name", column=2),
    ],
    edges=[
        GraphEdge(source="image", target="a", weight=0.9),
        GraphEdge(source="a", target="c", weight=0.5, sign=-1),
        GraphEdge(source="b", target="c", weight=0.1, significant=False),
    ],
    trails=[("image → edge → whole tumor", ["image", "a", "c"])],
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with one analysis that has everything, and one whose page is damaged."""
    folder = head_run(tmp_path / "run")
    names = ("dissection", "broken")
    for name in names:
        (folder / "analyses/unet" / name).mkdir(parents=True)
    picture = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    Image.fromarray(picture).save(folder / "analyses/unet/dissection/unit.png")
    AnalysisPage(
        title="What units detect",
        lead=["3 of 24 units detect a concept better than any input modality."],
        remarks=["5 held-out patients: no intervals, which need 8."],
        verdicts=[PageVerdict(topic="random network", status="pass", text="no detector")],
        tables=[PageTable(title="Best units", columns=["unit", "IoU"], rows=[["dec1 3", 0.5]])],
        cards=[
            PageCard(
                title="dec1, unit 3 <b>",
                facts=[("IoU", "0.50 (0.41 to 0.58)")],
                verdicts=[PageVerdict(topic="seeds", status="not measured")],
                figures=[PageFigure(file="unit.png", caption="strongest case", alt="a gradient")],
            )
        ],
        graph=GRAPH,
    ).write(folder / "analyses/unet/dissection")
    (folder / "analyses/unet/broken/page.json").write_text("{")
    manifest = Manifest.read(folder)
    manifest.analyses = [
        AnalysisRecord(
            model="unet",
            name=name,
            label=name,
            folder=f"analyses/unet/{name}",
            cases=["p01"],
            key="0" * 64,
        )
        for name in names
    ]
    (folder / "manifest.json").write_text(json.dumps(manifest.model_dump(mode="json")))
    return folder


def test_the_page_of_the_run_leads_to_that_of_the_network(run: Path) -> None:
    page = Page(render(run))
    assert "Inside unet" in page.words
    assert 'href="report-network-unet.html"' in (run / "report.html").read_text()
    text = (run / "report-network-unet.html").read_text()
    assert 'href="report.html"' in text
    for words in (
        "What units detect",
        "3 of 24 units",
        "no intervals",
        "0.50 (0.41 to 0.58)",
        "strongest case",
        "dec1, unit 3 &lt;b&gt;",
        "image → edge → whole tumor",
        "the analysis broken",
    ):
        assert words in text
    assert "data:image/" in text
    assert "http" not in text.replace("http-equiv", "")


def test_a_report_to_share_has_no_pictures(run: Path) -> None:
    render(run, share=True)
    text = (run / "report-share-network-unet.html").read_text()
    assert "data:image/" not in text
    assert "0.50 (0.41 to 0.58)" in text


def test_a_figure_outside_of_its_folder_is_not_read(run: Path) -> None:
    file = run / "analyses/unet/dissection/unit.png"
    secret = run.parent / "secret.png"
    file.rename(secret)
    file.symlink_to(secret)
    render(run)
    text = (run / "report-network-unet.html").read_text()
    assert "data:image/" not in text
    assert "the figure unit.png" in text


def test_nodes_stand_in_their_columns_without_overlap() -> None:
    drawing = draw(GRAPH)
    at = {each.node.id: (each.x, each.y) for each in drawing.nodes}
    assert at["image"][0] < at["a"][0] == at["b"][0] < at["c"][0]
    assert abs(at["a"][1] - at["b"][1]) >= drawing.box[1]
    assert all(0 < x < drawing.width and 0 < y < drawing.height for x, y in at.values())
    assert [edge.edge.weight for edge in drawing.edges] == [0.1, 0.5, 0.9]
    assert drawing.nodes[-1].text.endswith("…")


def test_strong_links_do_not_cross() -> None:
    """Two columns whose links join the first with the last: one of them is turned around."""
    nodes = [GraphNode(id=f"{c}{n}", label="", column=c) for c in (0, 1) for n in range(4)]
    edges = [GraphEdge(source=f"0{n}", target=f"1{3 - n}", weight=1) for n in range(4)]
    at = {each.node.id: each.y for each in draw(PageGraph(nodes=nodes, edges=edges)).nodes}
    assert all(at[f"0{n}"] == at[f"1{3 - n}"] for n in range(4))


def test_a_link_that_passes_columns_leads_below_their_boxes() -> None:
    nodes = [GraphNode(id=f"{c}{n}", label="", column=c) for c in range(4) for n in range(2)]
    ends = [("00", "30"), ("00", "20"), ("10", "30"), ("10", "20")]
    drawing = draw(
        PageGraph(nodes=nodes, edges=[GraphEdge(source=a, target=b, weight=1) for a, b in ends])
    )
    lowest = max(each.y for each in drawing.nodes) + drawing.box[1] / 2
    lanes = {}
    for each in drawing.edges:
        points = [float(text.strip("MCL")) for text in each.path.split()]
        heights = points[1::2]
        if (each.edge.source, each.edge.target) == ("10", "20"):
            assert max(heights) < lowest
        else:
            lanes[each.edge.source, each.edge.target] = max(heights)
    assert all(lowest < lane < drawing.height for lane in lanes.values())
    assert len({*lanes.values()}) == 3
    assert lanes["00", "30"] == max(lanes.values())

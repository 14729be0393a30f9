"""Millimeters, voxels, fractions and pixels in the viewers, run by node without a browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from html_page import Page
from synthetic_runs import UPRIGHT, RunWriter

import voxplain
from voxplain.report import render
from voxplain.report.viewer.picture import block_means

STATIC = Path(voxplain.__file__).parent / "report/static"
NODE = shutil.which("node")

needs_node = pytest.mark.skipif(NODE is None, reason="there is no node")

PRELUDE = """
const nothing = { style: {}, getContext: () => null, addEventListener() {}, setAttribute() {} };
const element = () => nothing;
globalThis.window = globalThis.self = globalThis;
globalThis.document = {
  ...nothing, createElement: element, body: { appendChild() {} }, baseURI: "file:///",
};
const names = ["HTMLElement", "HTMLCanvasElement", "Image", "Worker"];
for (const name of names) globalThis[name] = class {};
const fs = require("fs");
const [folder, asked] = [process.argv[1], JSON.parse(fs.readFileSync(process.argv[2], "utf8"))];
const print = console.log;
console.log = console.info = console.warn = console.debug = () => {};
globalThis.niivue = require(`${folder}/niivue.umd.js`);
globalThis.voxplain = { kinds: {}, Viewer: class {}, text: (id) => asked.blobs[id] };
for (const name of ["volumes.js", "pictures.js"]) {
  require("vm").runInThisContext(fs.readFileSync(`${folder}/${name}`, "utf8"));
}
"""

VOLUMES = """
(async () => {
  const nv = Object.create(niivue.Niivue.prototype);
  const set = (name, value) => Object.defineProperty(nv, name, { value, writable: true });
  const view = Object.create(voxplain.kinds["3d"].prototype);
  Object.assign(view, { nv, cache: new Map(), data: asked, map: asked.maps[0], image: 0 });
  view.background = await view.volume(asked.images[0].blob, {});
  view.overlay = await view.volume(asked.maps[0].channels[0].blob, {});
  set("volumes", [view.background, view.overlay]);
  set("meshes", []);
  set("opts", { isSliceMM: false });
  set("scene", { crosshairPos: [0.5, 0.5, 0.5] });
  view.sizes = view.background.dimsRAS.slice(1, 4);
  const frac = () => Array.from(nv.scene.crosshairPos);
  const place = () => Array.from(nv.frac2mm(frac(), 0, true)).slice(0, 3);
  view.jump = (fraction) => { nv.scene.crosshairPos = fraction; };
  view.goTo(view.map.start);
  const found = { opened: place(), value: view.valueAt(view.overlay, place()), start: frac() };
  const press = (key, times) => {
    const event = { key, preventDefault() {}, stopImmediatePropagation() {} };
    for (let i = 0; i < times; i += 1) view.key(event);
    return frac()[0] * view.sizes[0];
  };
  found.edge = press("ArrowRight", 100);
  found.back = press("ArrowLeft", 1);
  found.other = press("ArrowLeft", 100);
  print(JSON.stringify(found));
})();
"""

PICTURES = """
const view = Object.create(voxplain.kinds["2d"].prototype);
Object.assign(view, { data: asked, canvas: { height: asked.map_rows, width: asked.map_columns } });
view.steps = Array.from({ length: asked.map_rows * asked.map_columns }, (_, i) => i);
view.map = { limit: 127 };
view.valueWords = (value) => Math.round(value);
const found = [];
view.showFacts = (facts) => found.push(facts.map(([, value]) => value));
for (let row = 0; row < asked.rows; row += 1) view.located(row, row % asked.columns);
print(JSON.stringify({ found, convention: view.convention() }));
"""


def ask(script: str, facts: dict[str, Any], folder: Path) -> Any:
    """What a script prints, as JSON."""
    file = folder / "asked.json"
    file.write_text(json.dumps(facts))
    command = [str(NODE), "-e", PRELUDE + script, str(STATIC), str(file)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def viewer_data(folder: Path) -> dict[str, Any]:
    """The data of the only viewer of a page, with its blobs."""
    page = Page(render(folder))
    (facts,) = page.data
    return {**facts, "blobs": page.scripts}


def turned(degrees: float, one: int, other: int) -> np.ndarray:
    """An affine with axes toward the left, front and feet, turned."""
    turn, angle = np.eye(4), np.deg2rad(degrees)
    turn[[one, one, other, other], [one, other, one, other]] = (
        np.cos(angle),
        -np.sin(angle),
        np.sin(angle),
        np.cos(angle),
    )
    return turn @ np.array([[-2.0, 0, 0, 40], [0, 2, 0, -50], [0, 0, -3, 60], [0, 0, 0, 1]])


@needs_node
@pytest.mark.parametrize(
    ("degrees", "one", "other"), [(0, 0, 1), (8, 1, 2), (20, 1, 2), (-25, 0, 2), (30, 0, 1)]
)
def test_the_viewer_opens_at_the_strongest_voxel_of_oblique_scans(
    tmp_path: Path, degrees: float, one: int, other: int
) -> None:
    affine, shape = turned(degrees, one, other), (20, 26, 31)
    values = np.zeros(shape)
    values[3, 21, 7], values[15, 4, 25] = -3.0, 1.0
    run = RunWriter(tmp_path)
    run.model("net")
    run.case("c", np.random.default_rng(0).uniform(1, 2, (1, *shape)), affine)
    run.map("c", "net", "saliency", values[None], affine)
    facts = viewer_data(run.finish())
    found = ask(VOLUMES, facts, tmp_path)
    world = nibabel.affines.apply_affine(affine, [3, 21, 7])
    np.testing.assert_allclose(found["opened"], world, atol=0.01)
    assert found["value"] == pytest.approx(-facts["maps"][0]["limit"], rel=0.01)
    # Keys go from the center of a voxel to the next one and stop at the center of the last.
    assert found["edge"] == pytest.approx(0.5, abs=1e-3)
    assert found["back"] == pytest.approx(1.5, abs=1e-3)
    assert found["other"] == pytest.approx(shape[0] - 0.5, abs=1e-3)


@needs_node
@pytest.mark.parametrize(("rows", "columns", "block"), [(49, 10, 1), (98, 103, 1), (97, 41, 4)])
def test_pictures_read_the_pixel_under_the_pointer(
    tmp_path: Path, rows: int, columns: int, block: int
) -> None:
    facts = {"rows": rows, "columns": columns, "letters": [], "pixels": [block, block]}
    facts |= {"map_rows": -(-rows // block), "map_columns": -(-columns // block)}
    found = ask(PICTURES, facts, tmp_path)
    wanted = [
        [row, row % columns, row // block * facts["map_columns"] + row % columns // block]
        for row in range(rows)
    ]
    assert found["found"] == wanted
    assert found["convention"] == ""


@needs_node
@pytest.mark.parametrize(
    ("shape", "words"),
    [((1, 9, 8), "front"), ((9, 1, 8), "right"), ((9, 8, 1), "right")],
)
def test_the_caption_of_a_slice_names_its_left_side(
    tmp_path: Path, shape: tuple[int, int, int], words: str
) -> None:
    run = RunWriter(tmp_path)
    run.model("net")
    draws = np.random.default_rng(0).uniform(1, 2, (1, *shape))
    run.case("c", draws, np.diag([2.0, 2, 2, 1]))
    run.map("c", "net", "saliency", draws, np.diag([2.0, 2, 2, 1]))
    facts = viewer_data(run.finish())
    assert ask(PICTURES, facts, tmp_path)["convention"] == f"Patient's {words} at the left. "


def test_blocks_count_from_the_corner_and_the_last_ones_may_be_incomplete() -> None:
    values = np.arange(35.0).reshape(5, 7)
    small = block_means(values, (2, 3))
    assert small.shape == (3, 3)
    assert small[0, 0] == values[:2, :3].mean()
    assert small[2, 2] == values[4, 6]
    assert small[2, 1] == values[4, 3:6].mean()
    np.testing.assert_array_equal(block_means(values, (1, 1)), values)


def test_the_report_gives_pictures_no_sides(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    run.model("net")
    draws = np.random.default_rng(0).uniform(1, 2, (1, 9, 8))
    run.case("png", draws, UPRIGHT, unit="pixel", code=0)
    run.case("radiograph", draws, UPRIGHT @ np.diag([0.2, 0.2, 1, 1]), code=0)
    for case in ("png", "radiograph"):
        affine = UPRIGHT if case == "png" else UPRIGHT @ np.diag([0.2, 0.2, 1, 1])
        unit = "pixel" if case == "png" else "mm"
        run.map(case, "net", "saliency", draws, affine, unit=unit, code=0)
    page = Page(render(run.finish()))
    assert page.text.count("not known: the picture does not say") == 2
    assert "PL" not in page.text
    assert "atient's right" not in page.text


@pytest.mark.parametrize("shape", [(9, 8, 1), (9, 1, 8), (1, 9, 8), (9, 8)])
def test_pixels_of_the_viewer_are_as_wide_as_those_of_the_image(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    """And it opens at the strongest of them, counted from the upper left."""
    sizes = (0.5, 1.25, 4.0)
    affine = np.diag([*sizes, 1.0])
    if len(shape) == 2:
        affine = UPRIGHT @ np.diag([0.5, 1.25, 1.0, 1.0])
    run = RunWriter(tmp_path)
    run.model("net")
    draws = np.random.default_rng(0).uniform(1, 2, (1, *shape))
    values = np.zeros((1, *shape))
    peak = (*(min(2, side - 1) for side in shape[:-1]), min(1, shape[-1] - 1))
    values[(0, *peak)] = 3
    code = 0 if len(shape) == 2 else 1
    run.case("c", draws, affine, code=code)
    run.map("c", "net", "saliency", values, affine, code=code)
    facts = viewer_data(run.finish())
    if len(shape) == 2:
        assert facts["aspect"] == pytest.approx(1.25 / 0.5)
        assert facts["maps"][0]["start"] == list(peak)
        assert (facts["rows"], facts["columns"]) == shape
        return
    across, up = (axis for axis in range(3) if shape[axis] > 1)
    assert facts["aspect"] == pytest.approx(sizes[across] / sizes[up])
    assert (facts["rows"], facts["columns"]) == (shape[up], shape[across])
    assert facts["maps"][0]["start"] == [shape[up] - 1 - peak[up], shape[across] - 1 - peak[across]]

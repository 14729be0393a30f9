"""The page in a headless browser without a network; skipped where there is no Chromium."""

from __future__ import annotations

import base64
import gzip
import io
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image as Pillow
from synthetic_runs import RunWriter
from synthetic_scores import cascade, score_table

from voxplain.report import render

CHROMIUM = Path("/usr/bin/chromium")
SOFTWARE = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}")


@dataclass
class Tab:
    """A page in the browser, with its messages and the URLs of its requests."""

    page: Any
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def add_message(self, message: str) -> None:
        # The warning is about the tests, which read canvases back.
        if "Multiple readback" not in message:
            self.messages.append(message)

    def __call__(self, expression: str) -> Any:
        return self.page.evaluate(expression)

    def until(self, expression: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not self(expression):
            assert time.monotonic() < end, f"never: {expression}; {self.messages}"
            self.page.wait_for_timeout(50)

    def settled(self) -> None:
        """Waits until changes are drawn."""
        self("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        self("Promise.all(Object.values(voxplain.viewers).map((viewer) => viewer.busy))")

    def viewer(self, expression: str) -> Any:
        first = "const v = Object.values(voxplain.viewers)[0];"
        return self(f"(() => {{ {first} return {expression}; }})()")

    def picture(self, selector: str) -> np.ndarray:
        data = self.page.locator(selector).first.screenshot()
        return np.asarray(Pillow.open(io.BytesIO(data)).convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as engine:
        yield engine


@pytest.fixture(scope="module")
def browser(engine: Any) -> Iterator[Any]:
    with engine.chromium.launch(executable_path=str(CHROMIUM), args=SOFTWARE) as browser:
        yield browser


def open_tab(browser: Any, file: Path, width: int = 1400, **facts: Any) -> Tab:
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **facts)
    tab = Tab(context.new_page())
    tab.page.on("console", lambda message: tab.add_message(f"{message.type}: {message.text}"))
    tab.page.on("pageerror", lambda error: tab.messages.append(f"error: {error}"))
    tab.page.on("request", lambda request: tab.requests.append(request.url))
    tab.page.goto(file.as_uri())
    return tab


def started(browser: Any, folder: Path, **facts: Any) -> Tab:
    tab = open_tab(browser, folder / "report.html", **facts)
    tab("document.querySelector('[data-viewer]').scrollIntoView()")
    tab.until("document.querySelector('.first').hidden")
    tab.settled()
    return tab


@pytest.fixture(scope="module")
def head_tab(browser: Any, head_folder: Path) -> Tab:
    return started(browser, head_folder)


@pytest.fixture(scope="module")
def picture_tab(browser: Any, picture_folder: Path) -> Tab:
    return started(browser, picture_folder)


def assert_quiet(tab: Tab) -> None:
    """No messages, and no request but that of the page itself."""
    assert tab.messages == []
    outside = [url for url in tab.requests if not url.startswith(("data:", "blob:"))]
    assert outside == tab.requests[:1]


def map_facts(tab: Tab) -> list[dict[str, Any]]:
    return tab.viewer("v.data.maps")


def test_volumes_start_signed_radiological_and_at_the_strongest_voxel(head_tab: Tab) -> None:
    first = map_facts(head_tab)[0]
    layer = head_tab.viewer(
        "(({cal_min, cal_max, colormapNegative, colormapType, opacity}) =>"
        " ({cal_min, cal_max, colormapNegative, colormapType, opacity}))(v.nv.volumes.at(-1))"
    )
    assert layer["cal_max"] == pytest.approx(first["limit"])
    assert layer["cal_min"] == pytest.approx(0.05 * first["limit"])
    assert layer["colormapNegative"] == "vox-negative"
    assert head_tab.viewer("v.nv.opts.isRadiologicalConvention") is True
    place = head_tab.viewer("Array.from(v.nv.frac2mm(v.nv.scene.crosshairPos)).slice(0, 3)")
    np.testing.assert_allclose(place, first["start"], atol=2.6)
    text = head_tab("document.querySelector('.caption').textContent")
    assert "Patient's right at the left" in text
    assert_quiet(head_tab)


def test_the_viewer_holds_the_values_of_the_file(head_tab: Tab) -> None:
    head_tab.page.get_by_role("radio", name="Saliency").first.check()
    head_tab.settled()
    facts = map_facts(head_tab)[1]
    text = head_tab(f"voxplain.text({json.dumps(facts['channels'][0]['blob'])})")
    small = nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))
    values = small.get_fdata()
    for index in np.argwhere(np.abs(values) > 0.5 * facts["limit"])[::40]:
        world = nibabel.affines.apply_affine(small.affine, index).tolist()
        value = head_tab.viewer(f"v.valueAt(v.overlay, {world})")
        assert value == pytest.approx(values[tuple(index)], rel=1e-4)
    assert_quiet(head_tab)


def test_volumes_work_by_keyboard(head_tab: Tab) -> None:
    page = head_tab.page
    page.get_by_role("radio", name="Integrated gradients").first.focus()
    page.keyboard.press("Space")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    head_tab.settled()
    assert head_tab.viewer("v.map.title") == "SmoothGrad"
    assert head_tab.viewer("v.nv.volumes.at(-1).colormapNegative") == ""
    page.get_by_label("Opacity").first.focus()
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    head_tab.settled()
    assert head_tab.viewer("v.nv.volumes.at(-1).opacity") == pytest.approx(0.7)
    page.get_by_label("Hide below").first.focus()
    page.keyboard.press("End")
    head_tab.settled()
    assert head_tab.viewer("v.nv.volumes.at(-1).cal_min / v.map.limit") == pytest.approx(1)
    page.keyboard.press("Home")
    place = "Array.from(v.nv.frac2mm(v.nv.scene.crosshairPos)).slice(0, 3)"
    before = head_tab.viewer(place)
    page.get_by_label("Bottom to top").first.focus()
    page.keyboard.press("ArrowRight")
    head_tab.settled()
    page.locator("canvas").first.focus()
    page.keyboard.press("ArrowLeft")
    head_tab.settled()
    np.testing.assert_allclose(np.subtract(head_tab.viewer(place), before), [5, 0, 5], atol=0.2)
    page.get_by_role("button", name="Go to the strongest voxel").first.press("Enter")
    page.get_by_role("radio", name="Integrated gradients").first.check()
    page.get_by_label("Opacity").first.fill("80")
    page.get_by_label("Hide below").first.fill("5")
    head_tab.settled()
    assert_quiet(head_tab)


def test_outlines_can_be_switched(head_tab: Tab) -> None:
    size = "v.canvas.width, v.canvas.height"
    painted = f"v.outlines.canvas.getContext('2d').getImageData(0, 0, {size})"
    count = f"{painted}.data.filter((value, i) => i % 4 === 3 && value > 0).length"
    with_prediction = head_tab.viewer(count)
    assert with_prediction > 500
    head_tab.page.get_by_label("reference").first.check()
    head_tab.settled()
    assert head_tab.viewer(count) > with_prediction
    head_tab.page.get_by_label("reference").first.uncheck()
    head_tab.page.get_by_label("prediction").first.uncheck()
    head_tab.settled()
    assert head_tab.viewer(count) == 0
    head_tab.page.get_by_label("prediction").first.check()
    head_tab.settled()


def spots_run(folder: Path) -> Path:
    """A run with evidence for at the right front and against at the left back, on permuted axes."""
    run = RunWriter(folder)
    run.model("net")
    shape = (40, 30, 36)
    affine = np.array([[0, 0, -2.0, 36], [2.0, 0, 0, -40], [0, -2, 0, 30], [0, 0, 0, 1]])
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    values = np.zeros(shape)
    values[np.linalg.norm(world - [20, 20, 0], axis=-1) < 8] = 1
    values[np.linalg.norm(world - [-20, -20, 0], axis=-1) < 8] = -1
    inside = np.linalg.norm(world / [30, 36, 26], axis=-1) < 1
    run.case("c", 100.0 * inside[None], affine)
    run.prediction("c", "net", values > 0, affine)
    run.map("c", "net", "saliency", values[None], affine)
    return run.finish()


def test_right_is_at_the_left_and_outlines_enclose_their_masks(
    browser: Any, tmp_path: Path
) -> None:
    folder = spots_run(tmp_path)
    render(folder)
    tab = started(browser, folder)
    tab.page.get_by_role("button", name="Axial").click()
    tab.settled()
    picture = tab.picture(".stage")
    warm = np.argwhere(picture[..., 0] > picture[..., 2] + 60)
    cold = np.argwhere(picture[..., 2] > picture[..., 0] + 60)
    height, width = picture.shape[:2]
    assert warm[:, 1].max() < width / 2 < cold[:, 1].min()
    assert warm[:, 0].max() < height / 2 < cold[:, 0].min()
    line = tab.viewer(
        "(() => { const c = v.outlines.canvas; const d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; const at = [];"
        " for (let i = 3; i < d.length; i += 4) if (d[i] > 90) at.push((i - 3) / 4); "
        " return [at, c.width]; })()"
    )
    rows, columns = np.divmod(np.array(line[0]), line[1])
    edges = [rows.min(), rows.max(), columns.min(), columns.max()]
    expected = [*warm[:, 0][[0, -1]], warm[:, 1].min(), warm[:, 1].max()]
    np.testing.assert_allclose(edges, expected, atol=16)
    assert_quiet(tab)


def test_pictures_are_native_and_colored_where_the_map_is(picture_tab: Tab) -> None:
    data = picture_tab.viewer("v.data")
    assert picture_tab.viewer("[v.picture.naturalHeight, v.picture.naturalWidth]") == [96, 106]
    assert picture_tab.viewer("[v.canvas.height, v.canvas.width]") == [96, 106]
    row, column = (int(value) for value in data["maps"][0]["start"])
    read = f"Array.from(v.canvas.getContext('2d').getImageData({column}, {row}, 1, 1).data)"
    assert picture_tab.viewer(read)[3] == 255
    box = picture_tab.viewer(
        "(({width, height}) => [width, height])(v.sheet.getBoundingClientRect())"
    )
    assert box[0] / box[1] == pytest.approx(106 / 96, rel=0.01)
    assert_quiet(picture_tab)


def test_pictures_work_by_keyboard(picture_tab: Tab) -> None:
    page = picture_tab.page
    page.locator(".scroll").focus()
    before = picture_tab.viewer("v.scale")
    page.keyboard.press("+")
    assert picture_tab.viewer("v.scale") == pytest.approx(1.4 * before)
    page.get_by_role("button", name="Fit").press("Enter")
    assert picture_tab.viewer("v.scale") == pytest.approx(before)
    page.get_by_label("Hide below").focus()
    page.keyboard.press("End")
    picture_tab.settled()
    pixels = "v.canvas.getContext('2d').getImageData(0, 0, 106, 96).data"
    alpha = f"{pixels}.filter((x, i) => i % 4 === 3 && x)"
    assert picture_tab.viewer(f"{alpha}.length") == 0
    page.get_by_label("Hide below").fill("5")
    picture_tab.settled()
    whole = picture_tab.viewer(f"{alpha}.length")
    page.get_by_label("Map channel").select_option("red")
    picture_tab.settled()
    assert 0 < picture_tab.viewer(f"{alpha}.length") < whole
    page.get_by_label("prediction").check()
    picture_tab.settled()
    assert picture_tab.viewer("v.lines.children.length") == 1
    page.get_by_label("prediction").uncheck()
    page.get_by_label("Map channel").select_option("all channels")
    assert_quiet(picture_tab)


CONTRAST = """() => {
  const curve = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => curve(c / 255);
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = numbers(getComputedStyle(at).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((part) => part.nodeType === 3 && part.data.trim());
    if (!own || !node.checkVisibility()) continue;
    if (["SCRIPT", "STYLE", "NOSCRIPT"].includes(node.tagName)) continue;
    const pair = [numbers(getComputedStyle(node).color), behind(node)].map(luminance);
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (ratio < 4.5) bad.push(`${ratio} ${node.className} ${node.textContent.slice(0, 40)}`);
  }
  return bad;
}"""


def test_text_has_contrast(head_tab: Tab, picture_tab: Tab) -> None:
    for tab in (head_tab, picture_tab):
        assert tab.page.evaluate(CONTRAST) == []


@pytest.mark.parametrize("width", [400, 800, 1400])
def test_no_width_needs_sideways_scrolling(browser: Any, head_folder: Path, width: int) -> None:
    tab = open_tab(browser, head_folder / "report.html", width=width)
    assert tab("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [400, 1400])
def test_scores_are_legible_at_any_width(browser: Any, tmp_path: Path, width: int) -> None:
    RunWriter(tmp_path).finish()
    score_table().write(tmp_path / "metrics.parquet")
    cascade(tmp_path)
    tab = open_tab(browser, render(tmp_path), width=width)
    assert tab("document.documentElement.scrollWidth") <= width
    assert tab.page.evaluate(CONTRAST) == []
    inside = """[...document.querySelectorAll("#trust svg text")].every((text) => {
      const [own, all] = [text, text.ownerSVGElement].map((part) => part.getBoundingClientRect());
      return own.left >= all.left - 1 && own.right <= all.right + 1 && own.bottom <= all.bottom + 1;
    })"""
    assert tab(inside)
    assert_quiet(tab)


def test_focus_can_be_seen(picture_tab: Tab) -> None:
    picture_tab.page.locator("[data-opacity]").focus()
    picture_tab.page.keyboard.press("Tab")
    style = "(({outlineStyle, outlineWidth}) => [outlineStyle, outlineWidth])"
    assert picture_tab(f"{style}(getComputedStyle(document.activeElement))") == ["solid", "3px"]


def test_without_scripts_the_figures_stay(browser: Any, head_folder: Path) -> None:
    tab = open_tab(browser, head_folder / "report.html", java_script_enabled=False)
    assert tab.page.locator("article.map img").first.is_visible()
    assert tab.page.locator("noscript").first.inner_text().startswith("Without JavaScript")


def test_without_webgl_the_page_says_so(engine: Any, head_folder: Path) -> None:
    plain = ["--no-sandbox", "--disable-3d-apis"]
    with engine.chromium.launch(executable_path=str(CHROMIUM), args=plain) as browser:
        tab = open_tab(browser, head_folder / "report.html")
        tab("document.querySelector('[data-viewer]').scrollIntoView()")
        tab.until("document.querySelector('.state').textContent.includes('WebGL 2 is missing')")
        assert tab.page.locator(".first").first.is_visible()
        assert tab.messages == []

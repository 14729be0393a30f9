from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from html_page import Page
from synthetic_runs import RunWriter, evidence, head, head_run

from voxplain.errors import InputError
from voxplain.records.manifest import Manifest
from voxplain.report import render


@pytest.fixture(scope="module")
def page(head_folder: Path) -> Page:
    return Page(head_folder / "report.html")


def test_nothing_points_outside_of_the_page(head_folder: Path, picture_folder: Path) -> None:
    for folder in (head_folder, picture_folder):
        page = Page(folder / "report.html")
        for tag, attributes in page.elements:
            for name in ("src", "href", "action", "srcset", "poster"):
                value = attributes.get(name) or ""
                assert value.startswith(("data:", "#")) or not value, (tag, name, value[:60])
        style = (folder / "report.html").read_text().split("<style>")[1].split("</style>")[0]
        assert "url(" not in style
        assert "@import" not in style
        policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
        assert policy is not None
        assert policy.startswith("default-src 'none'")


def test_the_page_says_what_was_explained_and_how(page: Page) -> None:
    text = page.text
    assert "A map shows what the model used, not what is true" in text
    assert "Research use" in text
    assert "Evidence for white matter, wherever the model predicts it" in text
    assert "41,200 score S(x)" in text
    assert "Adds up the gradient on the straight way from a baseline image." in text
    assert "0.12 % of S(x) − S(baseline)" in text
    assert "bottleneck, 64 channels" in text
    assert "one per 4 × 4 × 4 voxels" in text
    assert "Out of memory with one window in a batch" in text
    assert "float16 disagreed with float32" in text
    assert "voxplain run study.yaml" in text
    assert "2.13.0" in text
    assert "evidence for, " in text
    assert "Copyright (c) 2021, Niivue" in text


def test_sections_follow_the_agreed_order(page: Page) -> None:
    ids = ["case-p01", "viewer-p01", "case-p02", "viewer-p02"]
    ids += ["methods", "warnings", "reproduce"]
    assert [section["id"] for section in page.all("section")] == ids


def test_every_figure_has_words_and_numbers(page: Page) -> None:
    pictures = page.all("img")
    assert len(pictures) == 5 + 2
    assert all("trongest" in (picture["alt"] or "") for picture in pictures)
    assert len([table for table in page.all("table") if table.get("class") == "facts"]) == 5


def test_every_control_has_a_name(page: Page) -> None:
    """A label names the first control inside it, and an output is one, too."""
    assert page.all("html")[0]["lang"] == "en"
    named = {attributes.get("for") for attributes in page.all("label")}
    free = False
    for tag, attributes in page.elements:
        if tag == "label":
            free = "for" not in attributes
        if tag in {"input", "select", "output"}:
            assert free or tag == "output" or attributes.get("id") in named
            free = False
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_figures_are_written_and_one_page_is_enough(head_folder: Path) -> None:
    manifest = Manifest.read(head_folder)
    assert len(list((head_folder / "figures").glob("*.png"))) == len(manifest.maps)
    assert (head_folder / "report.html").stat().st_size < 25_000_000
    assert not list(head_folder.glob("report-*.html"))
    assert not list(head_folder.rglob(".tmp*"))


def test_embedded_volumes_lie_where_the_files_lie(page: Page, head_folder: Path) -> None:
    facts = next(facts for facts in page.data[0]["maps"] if facts["title"] == "Saliency")
    text = page.scripts[facts["channels"][0]["blob"]]
    small = nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))
    record = next(m for m in Manifest.read(head_folder).maps if m.label == "saliency")
    full = nibabel.load(head_folder / record.file)
    values, source = small.get_fdata(), full.get_fdata()
    index = np.argwhere(np.abs(values) > 0.2 * facts["limit"])[::25]
    world = nibabel.affines.apply_affine(small.affine, index)
    at = np.round(nibabel.affines.apply_affine(np.linalg.inv(full.affine), world)).astype(int)
    expected = np.clip(source[tuple(at.T)], -facts["limit"], facts["limit"])
    np.testing.assert_allclose(values[tuple(index.T)], expected, atol=facts["limit"] / 127)
    peak = np.unravel_index(np.abs(source).argmax(), source.shape)
    np.testing.assert_allclose(facts["start"], nibabel.affines.apply_affine(full.affine, peak))


def test_a_layer_map_is_resampled_onto_the_image(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    run.model("net")
    image = np.random.default_rng(0).uniform(50, 99, (1, 32, 32, 32)).astype(np.float32)
    affine = np.diag([-2.0, 2, 2, 1])
    run.case("c", image, affine)
    coarse = np.zeros((1, 8, 8, 8), np.float32)
    coarse[0, 2, 5, 3] = 1
    inner = np.diag([4.0, 4, 4, 1])
    inner[:3, 3] = 1.5
    run.map("c", "net", "layer_conductance", coarse, affine @ inner)
    page = Page(render(run.finish()))
    facts = page.data[0]["maps"][0]
    np.testing.assert_allclose(facts["start"], affine[:3, :3] @ [9.5, 21.5, 13.5], atol=1.01)


def test_input_channels_can_be_chosen_one_by_one(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    run.model("net")
    image, white, affine = head(8.0)
    names = ("flair", "t1", "t1ce", "t2")
    run.case("c", np.stack([image * scale for scale in (1, 2, 3, 4)]), affine, channels=names)
    values = np.stack([evidence(white, seed) for seed in range(4)])
    run.map("c", "net", "saliency", values, affine, channels=names)
    data = Page(render(run.finish())).data[0]
    assert [image["name"] for image in data["images"]] == list(names)
    assert [channel["name"] for channel in data["maps"][0]["channels"]] == ["all channels", *names]


def test_markup_in_names_is_text(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    run.model(evil.replace("/", ""))
    image, white, affine = head(10.0)
    run.case("c", image[None], affine, channels=(evil,))
    run.prediction("c", "m", white, affine, words=evil, volumes={evil: 3.0})
    run.map("c", "m", "saliency", evidence(white, 0)[None], affine, words=evil, warnings=[evil])
    run.task("c", "m", [evil], status="failed", reason=evil)
    page = Page(render(run.finish(warnings=[evil])))
    assert not [image for image in page.all("img") if image.get("src") == "x"]
    assert not any("onerror" in attributes for _, attributes in page.elements)
    assert evil in page.words


def test_case_ids_that_differ_never_share_a_page_or_an_element(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    run.model("m")
    image, white, affine = head(12.0)
    for name in ("a b", "a-b"):
        run.case(name, image[None], affine)
        run.map(name, "m", "saliency", evidence(white, 0)[None], affine)
    page = Page(render(run.finish()))
    assert len({section["id"] for section in page.all("section")}) == len(page.all("section"))
    assert len(page.scripts) == 4


def test_sharing_leaves_every_image_out(tmp_path: Path) -> None:
    folder = head_run(tmp_path, lambda: head(10.0))
    path = render(folder, share=True)
    assert path.name == "report-share.html"
    page = Page(path)
    assert not page.all("img")
    assert not page.all("canvas")
    assert not page.scripts
    assert not (folder / "figures").exists()
    assert path.stat().st_size < 150_000
    assert "Integrated gradients" in page.words


def test_beyond_the_budget_each_case_has_a_page_of_its_own(tmp_path: Path) -> None:
    folder = head_run(tmp_path, lambda: head(10.0))
    path = render(folder, budget=2_700_000 + 150_000)
    index = Page(path)
    pages = sorted(file.name for file in folder.glob("report-*.html"))
    assert pages == ["report-p01.html", "report-p02.html"]
    links = {link["href"] for link in index.all("a")}
    assert set(pages) <= links
    assert not index.scripts
    for name in pages:
        assert len(Page(folder / name).data) == 1
        assert (folder / name).stat().st_size < 4_000_000


def test_files_that_cannot_be_read_are_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    folder = head_run(tmp_path, lambda: head(10.0))
    manifest = Manifest.read(folder)
    (folder / manifest.maps[0].file).unlink()
    truncated = folder / manifest.maps[1].file
    truncated.write_bytes(truncated.read_bytes()[:200])
    (folder / "images/p01_unet_pred.nii.gz").write_bytes(b"no image")
    (folder / manifest.maps[2].sidecar).write_text("{}")
    (folder / "images/p02_image.nii.gz").unlink()
    page = Page(render(folder))
    text = page.text
    assert "the map integrated_gradients, because its file is missing" in text
    assert "the map saliency, because its file cannot be read" in text
    assert "the map smoothgrad, because its file cannot be read" in text
    assert "the prediction of unet, because its file cannot be read" in text
    assert "the image, because its file is missing" in text
    assert len(page.data) == 1
    titles = [facts["title"] for facts in page.data[0]["maps"]]
    assert titles == ["Layer conductance, bottleneck"]
    assert str(tmp_path) not in page.words


def test_a_map_of_nan_or_zeros_is_shown_as_such(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    run.model("m")
    image, white, affine = head(10.0)
    run.case("c", image[None], affine)
    run.map("c", "m", "saliency", np.zeros((1, *white.shape)), affine)
    broken = np.where(white, np.nan, 0.5)[None]
    run.map("c", "m", "integrated_gradients", broken, affine)
    page = Page(render(run.finish()))
    assert len(page.data[0]["maps"]) == 2
    assert "the map is zero everywhere" in (page.all("img")[0]["alt"] or "")


def test_a_run_without_maps_or_predictions_is_a_page(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    image, _, affine = head(10.0)
    run.case("c", image[None], affine)
    text = Page(render(run.finish())).words
    assert "There are no maps of this case." in text
    assert "No task failed." in text


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no manifest\.json"):
        render(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="damaged"):
        render(tmp_path)


def test_the_viewer_is_the_pinned_one() -> None:
    from hashlib import sha256

    import voxplain.report as report

    static = Path(report.__file__).parent / "static"
    pin = json.loads((static / "vendored.json").read_text())
    bundle = (static / pin["file"]).read_bytes()
    assert (len(bundle), sha256(bundle).hexdigest()) == (pin["bytes"], pin["sha256"])
    assert not re.search(rb"</script", bundle, re.IGNORECASE)
    notices = (static / "NOTICES-niivue.txt").read_text()
    for name in ("fflate", "gl-matrix", "nifti-reader-js", "zarrita", "Roboto"):
        assert name in notices

"""The examples of README and docstrings run as they stand."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest
import yaml

from voxplain.study import Study

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path.relative_to(ROOT / "src").with_suffix("")
    for path in (ROOT / "src/voxplain").rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


def test_python_examples_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("monai")
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for example in examples:  # the later ones go on where the earlier ones ended
        exec(compile(example, "README.md", "exec"), names)
    assert len(names["scores"]) == 2 * (2 + 4)  # type: ignore[arg-type]
    assert list(tmp_path.glob("out/*.nii.gz")), "the example should have written a map"


def test_studies_of_the_readme_are_studies() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    parts = [yaml.safe_load(block) for block in blocks]
    (whole,) = (part for part in parts if "cases" in part)
    for part in parts:
        assert Study.parse({**whole, **part}).methods


def test_links_of_the_documentation_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    for page in pages:
        for link in re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}, which is not there"


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_examples_of_docstrings_run(source: Path) -> None:
    name = ".".join(source.parts).removesuffix(".__init__")
    module = importlib.import_module(name)
    names = {"nn": importlib.import_module("torch.nn"), "torch": importlib.import_module("torch")}
    found = doctest.testmod(module, extraglobs=names)
    assert found.attempted > 0
    assert found.failed == 0

"""The example of a plug-in, installed as a user would, without a network."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import write_tiny

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin"
NAME = "gradient_sign_agreement"
LOOK = """\
import json
from typer.testing import CliRunner
from voxplain.cli import app

def said(*arguments):
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return done

listed = said("methods")
schema = json.loads(said("schema").stdout)
said("run", "study.yaml")
import test_sign_agreement
test_sign_agreement.test_the_sign_changes_where_the_gradient_does()
print(json.dumps({
    "listed": listed.stdout,
    "said": listed.stderr,
    "described": said("methods", "gradient_sign_agreement").stdout,
    "schema": json.dumps(schema["properties"]["methods"]),
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with the example, and with one that cannot be loaded."""
    for tool in ("pip", "setuptools"):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f"{tool} is not installed in this environment")
    source = tmp_path_factory.mktemp("source") / "plugin"
    target = tmp_path_factory.mktemp("target")
    shutil.copytree(EXAMPLE, source)
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", *offline]
    done = subprocess.run(
        [*command, "--target", str(target), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    facts = target / "broken_plugin-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[voxplain.methods]\nlost = lost_module\n")
    return target


def test_a_plug_in_passes_its_test_and_is_listed_described_run_and_in_the_schema(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_tiny(tmp_path / "work", monkeypatch)
    study.write(methods=[{"name": NAME, "steps": 3}], cases=study.config["cases"][:1])
    paths = [
        str(installed),
        str(EXAMPLE / "tests"),
        str(study.packages),
        os.environ.get("PYTHONPATH", ""),
    ]
    environment = {
        **os.environ,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    done = subprocess.run(
        [sys.executable, "-c", LOOK],
        capture_output=True,
        text=True,
        check=False,
        cwd=study.folder,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert NAME in found["listed"]
    assert "sign(g(b + a_i (x - b)))" in found["described"]
    assert "32 passes" in found["described"]
    assert NAME in found["schema"]
    (sidecar,) = study.run.glob("maps/**/*.json")
    assert json.loads(sidecar.read_text("utf-8"))["Method"] == NAME
    # The broken one is named once, and does not stand in the way.
    assert found["said"].count("broken-plugin") == 1
    assert "No module named 'lost_module'" in found["said"]
    assert "saliency" in found["listed"]

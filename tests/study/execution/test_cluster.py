"""A study on a cluster gives the same maps to the last bit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from faults import faulty, install, said
from tiny import TinyStudy

from voxplain.errors import ConfigError
from voxplain.records.outcome import read_manifest
from voxplain.study import Study, run_study


def maps(run: Path) -> dict[str, bytes]:
    return {str(file.relative_to(run)): file.read_bytes() for file in run.rglob("*.nii.gz")}


@pytest.mark.slow
def test_a_cluster_gives_the_same_maps_and_keeps_the_limits(tiny: TinyStudy) -> None:
    distributed = pytest.importorskip("distributed")
    install(tiny)
    methods = ["saliency", {"name": "smoothgrad", "of": "saliency", "samples": 3}]
    tiny.write(methods=methods, metrics=["sparseness"])
    run_study(Study.load(tiny.file), output=tiny.folder / "here")
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=None,
            env={"PYTHONPATH": tiny.environment["PYTHONPATH"]},
        ) as cluster,
    ):
        limits = {"executor": {"dask": cluster.scheduler_address}, "timeout": 3}
        tiny.write(methods=[*methods, faulty("holds", 3), faulty("crashes", 5)], run=limits)
        code, text = said(tiny, "run", "study.yaml")
    assert code == 1, text
    manifest = read_manifest(tiny.run)
    reasons = {task.methods[0]: str(task.reason) for task in manifest.failed}
    assert set(reasons) == {"holds", "crashes"}
    assert "not done after its time limit of 3.0 s" in reasons["holds"]
    assert "crashed (SIGSEGV)" in reasons["crashes"]
    assert maps(tiny.run) == maps(tiny.folder / "here")


def test_a_cluster_that_does_not_answer_is_one_sentence(tiny: TinyStudy) -> None:
    pytest.importorskip("distributed")
    tiny.write(run={"executor": {"dask": "tcp://127.0.0.1:1"}})
    with pytest.raises(ConfigError, match=r"run\.executor: no cluster answers at tcp://127"):
        run_study(Study.load(tiny.file))


@pytest.mark.parametrize(
    ("executor", "words"),
    [
        ({"dask": "localhost"}, "run.executor"),
        ({"slurm": {"jobs": 0}}, "run.executor"),
        ({"slurm": {"quue": "gpu"}}, "run.executor"),
        ("cloud", "run.executor"),
    ],
)
def test_an_executor_that_is_none_names_its_place(
    tiny: TinyStudy, executor: object, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        Study.load(tiny.write(run={"executor": executor}))


def has_slurm() -> bool:
    """Whether there is a SLURM to which jobs can be submitted."""
    try:
        done = subprocess.run(["sinfo", "-h"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and b"up" in done.stdout


@pytest.mark.slow
def test_jobs_of_slurm_give_the_same_maps(tiny: TinyStudy) -> None:
    pytest.importorskip("dask_jobqueue")
    if not has_slurm():
        pytest.skip("there is no SLURM here")
    tiny.write(methods=["saliency", {"name": "smoothgrad", "of": "saliency", "samples": 3}])
    run_study(Study.load(tiny.file), output=tiny.folder / "here")
    jobs = {"jobs": 2, "time": "20min", "memory": "2GB"}
    tiny.write(run={"executor": {"slurm": jobs}, "timeout": "5min"})
    code, text = said(tiny, "run", "study.yaml")
    assert code == 0, text
    assert len(read_manifest(tiny.run).maps) == 4
    assert maps(tiny.run) == maps(tiny.folder / "here")

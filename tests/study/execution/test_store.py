"""The folder of a run."""

from __future__ import annotations

from pathlib import Path

from voxplain.study.execution.store import Store


def test_with_the_scores_go_the_files_of_cascades_and_nothing_else(tmp_path: Path) -> None:
    """They are all of maps that are no more."""
    names = ("manifest.json", "maps/a.nii.gz", "randomization/notes/mine.txt", "metrics.parquet")
    cascades = [f"randomization/a_net_1_top_down.{end}" for end in ("json", "npz")]
    for name in (*names, *cascades, "randomization/steps.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    Store(tmp_path).remove_scores()
    left = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()}
    assert left == set(names[:3])
    Store(tmp_path).remove_scores()

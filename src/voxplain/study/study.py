"""A study that is read from a file and run."""

from __future__ import annotations

from pathlib import Path

from voxplain.study.config.study import StudyConfig
from voxplain.study.config.yaml_files import read_mapping
from voxplain.study.execution.progress import Listener
from voxplain.study.run import Run, run_study


class Study(StudyConfig):
    """One file that says what to explain, of which networks, on which images.

    Relative paths start at the study file. Either ``target`` or ``targets`` is given;
    ``references`` (case ids or image files) serve the methods that compare with other images.
    ``metrics`` and ``randomization`` tell how far the maps can be trusted.
    """

    @classmethod
    def load(cls, path: str | Path) -> Study:
        """Reads a YAML or JSON study file.

        Raises:
            ConfigError: With a sentence per mistake, each with its path in the file.
        """
        file = Path(path)
        study = cls.parse(read_mapping(file), base=file.resolve().parent, origin=file.name)
        study._name = file.stem
        return study

    def run(
        self,
        *,
        resume: bool = True,
        trust: bool = False,
        output: Path | None = None,
        listener: Listener | None = None,
    ) -> Run:
        """Runs the study and writes its report; see :func:`voxplain.study.run.run_study`."""
        run = run_study(self, resume=resume, trust=trust, output=output, listener=listener)
        run.write_report()
        return run

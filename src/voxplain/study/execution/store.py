"""The run directory; every file is written under a temporary name and renamed."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import socket
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

from torch import Tensor

from voxplain.attribution import Attribution
from voxplain.errors import ConfigError
from voxplain.image import Grid, Image
from voxplain.io import write_image, write_labels
from voxplain.records.atomic import atomic_write
from voxplain.records.cascades import FOLDER as RANDOMIZATION
from voxplain.records.cascades import write_steps
from voxplain.records.folder import is_left_by_system, refuse_links
from voxplain.records.manifest import FamilyPrecision, Manifest, MapRecord
from voxplain.records.names import dataset_description, safe
from voxplain.records.outcome import read_manifest, seal
from voxplain.records.scores import Scores
from voxplain.study.config.yaml_files import read_mapping
from voxplain.study.planning.tasks import Combination
from voxplain.version import __version__

MANIFEST, STUDY, EVENTS = "manifest.json", "study.yaml", "events.jsonl"
SCORES = "metrics.parquet"
LOCK = ".lock"
_CHUNK = 1 << 20


class Store:
    """Reads and writes one run directory.

    Args:
        folder: The run directory; it is made when the first file is written.

    Attributes:
        seals: Of the images and maps that were written through it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seals: dict[str, str] = {}

    def check(self) -> None:
        """Refuses a folder that holds something else than a run.

        Raises:
            ConfigError: If the output is a file, a link to nothing, or a folder with other contents
                than a run.
            InputError: If a link leads out of it.
        """
        if self.folder.is_symlink() and not self.folder.exists():
            raise ConfigError(f"output {self.folder} is a link to a place that does not exist")
        if self.folder.is_file():
            raise ConfigError(f"output {self.folder} is a file; a run needs a folder of its own")
        if self._holds_something_else():
            raise ConfigError(
                f"output {self.folder} holds files that are not a run of voxplain; choose a folder "
                "that is new, empty or an earlier run"
            )
        refuse_links(self.folder)

    def manifest(self) -> Manifest:
        """The manifest of the run in this folder.

        Raises:
            ConfigError: If there is no run here, or one of another version.
        """
        try:
            return read_manifest(self.folder)
        except FileNotFoundError as error:
            raise ConfigError(f"{self.folder} is not a run directory: no {MANIFEST}") from error
        except ValueError as error:
            raise ConfigError(
                f"{self.folder / MANIFEST} is damaged or of another version"
            ) from error

    def earlier(self) -> Manifest | None:
        """The manifest of an earlier run in this folder; None if there is none that can be read."""
        with contextlib.suppress(ConfigError):
            return self.manifest()
        return None

    def is_unfinished(self) -> bool:
        """Whether the manifest is that of the beginning of a run, with tasks to be done."""
        try:
            return bool(Manifest.read(self.folder).pending)
        except (OSError, ValueError):
            return False

    def owner(self) -> str | None:
        """Who is writing into this folder, in words; None if nobody is."""
        try:
            import fcntl

            with (self.folder / LOCK).open() as stream:
                try:
                    fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except OSError:
                    return _owner(stream)
        except (ImportError, OSError):
            pass
        return None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second process out of this folder; the lock ends with the process.

        Raises:
            ConfigError: If another process is writing into it.
        """
        try:
            import fcntl
        except ImportError:  # Windows has no such lock.
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        refuse_links(self.folder)
        with (self.folder / LOCK).open("a+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ConfigError(
                    f"another process is writing into {self.folder}: {_owner(stream)}"
                ) from error
            stream.truncate(0)
            owner = {
                "host": socket.gethostname(),
                "process": os.getpid(),
                "since": int(time.time()),
            }
            stream.write(json.dumps(owner))
            stream.flush()
            yield
            stream.truncate(0)

    def has(self, *files: str | None) -> bool:
        """Whether all of these files of the run are there."""
        return all((self.folder / file).is_file() for file in files if file is not None)

    def write_manifest(self, manifest: Manifest) -> None:
        """Replaces the manifest."""
        atomic_write(self.folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")

    def write_study(self, text: str) -> None:
        """Replaces the resolved study."""
        atomic_write(self.folder / STUDY, text)

    def write_description(self) -> None:
        """Writes the description of this folder for other tools (BIDS derivative)."""
        text = json.dumps(dataset_description(__version__), indent=2) + "\n"
        atomic_write(self.folder / "dataset_description.json", text)

    def write_source(self, case: str, image: Image) -> str:
        """Writes a copy of the image of a case that carries no identity."""
        return self._sealed(write_image(image, self._images(f"{case}_image.nii.gz")))

    def write_reference(self, case: str, labels: Tensor, grid: Grid) -> str:
        """Writes the reference labels of a case."""
        return self._sealed(write_labels(labels, grid, self._images(f"{case}_ref.nii.gz")))

    def write_prediction(self, case: str, model: str, labels: Tensor, grid: Grid) -> str:
        """Writes the predicted labels of a case, on the grid of the case."""
        file = self._images(f"{case}_{safe(model)}_pred.nii.gz")
        return self._sealed(write_labels(labels, grid, file))

    def write_scores(self, scores: Scores) -> None:
        """Replaces the table of scores, and that of the cascades beside it."""
        scores.write(self.folder / SCORES)
        write_steps(self.folder)

    def scores(self) -> Scores:
        """The table of scores; empty if there is none."""
        file = self.folder / SCORES
        return Scores.read(file) if file.is_file() else Scores()

    def remove_scores(self) -> None:
        """Removes the table of scores, and the files of parameter randomizations."""
        randomized = (self.folder / RANDOMIZATION).glob("*.*")
        for file in (self.folder / SCORES, *randomized):
            file.unlink(missing_ok=True)

    def write_map(self, combination: Combination, attribution: Attribution, key: str) -> MapRecord:
        """Writes a map and its sidecar.

        Args:
            combination: What was explained.
            attribution: The map.
            key: Hash of everything that determines the map.
        """
        folder = self.folder / "maps" / combination.case / safe(combination.model)
        file = attribution.save(folder, combination.case, combination.slug)
        sidecar = file.with_name(file.name.removesuffix(".nii.gz") + ".json")
        return MapRecord(
            case=combination.case,
            model=combination.model,
            target=combination.slug,
            label=attribution.label,
            method=attribution.method.name,
            layer=attribution.layer.path if attribution.layer else None,
            file=self._sealed(file),
            sidecar=self._sealed(sidecar),
            key=key,
            precision=attribution.sidecar.model.precision,
            families=FamilyPrecision.by_family(
                (
                    facts["family"],
                    FamilyPrecision(precision=facts["precision"], agreement=facts.get("agreement")),
                )
                for facts in attribution.stats.streams
            ),
        )

    def is_whole(self, seals: Mapping[str, str], *files: str | None) -> bool:
        """Whether all of these files of the run, compressed images or JSON, are as written.

        Args:
            seals: Of the files when they were written; what has none is read to its end.
            files: Relative to the run.
        """
        return all(self._is_whole(file, seals.get(file)) for file in files if file is not None)

    def _is_whole(self, file: str, known: str | None) -> bool:
        if known is None:
            return _can_be_read(self.folder / file)
        try:
            return seal(self.folder / file) == known
        except OSError:
            return False

    def _holds_something_else(self) -> bool:
        """Whether a folder holds files, and no run: neither its manifest nor what comes before."""
        if not self.folder.is_dir() or (self.folder / MANIFEST).is_file():
            return False
        names = {name for name in os.listdir(self.folder) if not is_left_by_system(name)}
        return not names <= {LOCK, STUDY} or (STUDY in names and not self._is_resolved())

    def _is_resolved(self) -> bool:
        """Whether the study in this folder was written by a run, and not by a person."""
        try:
            cases = read_mapping(self.folder / STUDY).get("cases")
        except ConfigError:
            return False
        return isinstance(cases, list) and all("image_sha256" in case for case in cases)

    def _images(self, name: str) -> Path:
        return self.folder / "images" / name

    def _sealed(self, file: Path) -> str:
        """The name of a file within the run, once its seal is noted."""
        name = file.relative_to(self.folder).as_posix()
        self.seals[name] = seal(file)
        return name


def _owner(lock: TextIO) -> str:
    """Who holds a lock, as far as it says."""
    with contextlib.suppress(ValueError, KeyError, TypeError, OSError):
        lock.seek(0)
        owner = json.loads(lock.read())
        since = time.strftime("%H:%M", time.localtime(owner["since"]))
        return f"process {owner['process']} on {owner['host']}, since {since}"
    return "unknown"


def _can_be_read(file: Path) -> bool:
    """Whether a file is there to its end; compressed ones end with a checksum."""
    try:
        if file.suffix == ".json":
            json.loads(file.read_bytes())
            return True
        with gzip.open(file) as stream:
            size = sum(map(len, iter(lambda: stream.read(_CHUNK), b"")))
        return size > 0
    except (OSError, EOFError, ValueError, zlib.error):
        return False

"""Copies the pinned NiiVue bundle and the licenses of its parts into the package.

Needs `npm` and a package registry. Without arguments it checks the pinned version again; with
`--version X.Y.Z` it moves the pin. NiiVue's own license is missing from its published package:
`LICENSE-niivue.txt` is a copy from its repository and stays as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

STATIC = Path(__file__).parents[1] / "src" / "voxplain" / "report" / "static"
PIN = STATIC / "vendored.json"
PACKAGE = "@niivue/niivue"
BUNDLE = "package/dist/niivue.umd.js"
INPUTS = "package/dist/metafile-esm.json"
FONT = (
    "Roboto Regular (a glyph texture inside the bundle): copyright Google Inc., licensed under "
    "the Apache License, Version 2.0."
)


def main() -> None:
    """Downloads, verifies and writes bundle, pin and notices."""
    pin = json.loads(PIN.read_text()) if PIN.exists() else {}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", default=pin.get("version"), help="NiiVue version to pin")
    version = parser.parse_args().version
    with tempfile.TemporaryDirectory() as folder:
        archive = pack(f"{PACKAGE}@{version}", Path(folder))
        bundle = member(archive, BUNDLE)
        notices = "\n\n".join(notice(name, Path(folder)) for name in bundled(archive))
    digest = hashlib.sha256(bundle).hexdigest()
    if pin.get("version") == version and pin["sha256"] != digest:
        raise SystemExit(f"{PACKAGE} {version} has sha256 {digest}, pinned is {pin['sha256']}")
    (STATIC / "niivue.umd.js").write_bytes(bundle)
    (STATIC / "NOTICES-niivue.txt").write_text(f"{notices}\n\n{FONT}\n", encoding="utf-8")
    facts = {"name": PACKAGE, "version": version, "file": "niivue.umd.js", "sha256": digest}
    facts |= {"bytes": len(bundle), "license": "BSD-2-Clause"}
    PIN.write_text(json.dumps(facts, indent=2) + "\n")
    print(f"{PACKAGE} {version}, {len(bundle)} bytes, sha256 {digest}")


def pack(package: str, folder: Path) -> Path:
    """The registry's archive of a package, downloaded into a folder."""
    command = ["npm", "pack", package, "--silent", "--pack-destination", str(folder)]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]
    return folder / name


def member(archive: Path, name: str) -> bytes:
    """One file of an archive."""
    with tarfile.open(archive) as content:
        file = content.extractfile(name)
        assert file is not None, f"{name} is not in {archive.name}"
        return file.read()


def bundled(archive: Path) -> list[str]:
    """The third-party packages that the bundle contains, from its build record."""
    inputs = json.loads(member(archive, INPUTS))["inputs"]
    matches = (re.search(r".*node_modules/((?:@[^/]+/)?[^/]+)", path) for path in inputs)
    return sorted({match.group(1) for match in matches if match})


def notice(package: str, folder: Path) -> str:
    """Name and license text of a package."""
    archive = pack(package, folder)
    facts = json.loads(member(archive, "package/package.json"))
    with tarfile.open(archive) as content:
        names = [n for n in content.getnames() if re.fullmatch(r"(?i)package/licen[cs]e[^/]*", n)]
    text = member(archive, names[0]).decode("utf-8").strip()
    return f"{'=' * 78}\n{package} ({facts.get('license', 'see below')})\n{'=' * 78}\n{text}"


if __name__ == "__main__":
    main()

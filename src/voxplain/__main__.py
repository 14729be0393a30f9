"""``python -m voxplain``: the command line."""

from __future__ import annotations

from voxplain.cli import main

if __name__ == "__main__":
    main()

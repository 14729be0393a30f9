"""Code that would end the process while a study is at work."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from voxplain.errors import ModelError
from voxplain.study.planning.exits import no_exit


@pytest.mark.parametrize("leave", [lambda: os._exit(0), lambda: sys.exit(0), lambda: sys.exit()])
def test_leaving_is_an_error_inside_and_possible_after(leave: object) -> None:
    usual = os._exit
    with pytest.raises(ModelError, match="asked to end the process with exit code 0"), no_exit():
        leave()  # type: ignore[operator]
    assert os._exit is usual


def test_other_errors_pass_and_children_may_end() -> None:
    with pytest.raises(KeyError), no_exit():
        raise KeyError("x")
    code = (
        "import os\n"
        "from voxplain.study.planning.exits import no_exit\n"
        "with no_exit():\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        os._exit(7)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "7"

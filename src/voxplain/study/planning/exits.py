"""Code of others that would end the process while a study is at work."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NoReturn

from voxplain.errors import ModelError

_ENDED = "code of a network or plug-in asked to end the process with exit code {}"


@contextlib.contextmanager
def no_exit() -> Iterator[None]:
    """A block in which ``sys.exit`` and ``os._exit`` are errors, so that nothing seems finished.

    Child processes, which end by ``os._exit``, end as before.

    Raises:
        ModelError: If code in the block asks to end this process.
    """
    process, leave = os.getpid(), os._exit

    def refuse(status: int) -> NoReturn:
        if os.getpid() != process:
            leave(status)
        raise SystemExit(status)

    os._exit = refuse
    try:
        yield
    except SystemExit as error:
        raise ModelError(_ENDED.format(0 if error.code is None else error.code)) from error
    finally:
        os._exit = leave

"""The Typer application, and how every command ends when something is wrong."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperGroup

from voxplain.cli.console import complain, remark
from voxplain.errors import RunError, VoxplainError, VoxplainWarning
from voxplain.version import __version__

FAILED, WRONG_REQUEST, STOPPED = 1, 2, 130
"""Exit codes beside 0: some task failed; the request was wrong; stopped by the user."""

_ORDER = (
    *(
        "demo",
        "explain",
        "run",
        "plan",
        "status",
        "evaluate",
        "report",
        "export",
        "compare",
        "clean",
    ),
    *("dissect", "trails", "errors", "visualize", "uncertainty"),
    *("methods", "metrics", "layers", "audit", "doctor"),
)


class Commands(TyperGroup):
    """Turns errors into a sentence and an exit code; ``--debug`` lets them through."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands in the order in which a newcomer needs them."""
        return [*_ORDER, *(name for name in self.commands if name not in _ORDER)]

    def invoke(self, ctx: Any) -> Any:
        """Runs a command; warnings of voxplain become notes."""
        with _warnings_as_remarks():
            return self._invoke(ctx)

    def _invoke(self, ctx: Any) -> Any:
        if ctx.params.get("debug"):
            return super().invoke(ctx)
        try:
            return super().invoke(ctx)
        except RunError as error:
            complain(str(error))
            raise typer.Exit(FAILED) from None
        except VoxplainError as error:
            complain(str(error))
            raise typer.Exit(WRONG_REQUEST) from None
        except OSError as error:  # no space, no permission, a name too long
            complain(_of_system(error))
            raise typer.Exit(FAILED) from None
        except RecursionError:
            complain("something in this request is nested too deep")
            raise typer.Exit(WRONG_REQUEST) from None
        except KeyboardInterrupt:
            complain("stopped; finished results are kept, and the same command resumes the run")
            raise typer.Exit(STOPPED) from None


def _of_system(error: OSError) -> str:
    """What the system did not allow, and where."""
    what = os.strerror(error.errno) if error.errno else str(error) or type(error).__name__
    where = str(error.filename or "")
    return f"{what}: {where if len(where) <= _SHOWN else where[:_SHOWN] + '…'}".rstrip(": ")


_SHOWN = 160


@contextlib.contextmanager
def _warnings_as_remarks() -> Iterator[None]:
    """Prints the warnings of voxplain as notes, without the line of code they come from."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, VoxplainWarning):
                remark(str(message))
            else:
                usual(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


app = typer.Typer(
    cls=Commands,
    name="voxplain",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(given: bool) -> None:
    if given:
        typer.echo(f"voxplain {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Shows which voxels drive the prediction of a 2-D or 3-D medical-image network.

    Start with [bold]voxplain demo[/bold]; then [bold]voxplain explain[/bold] for one image of
    yours, or [bold]voxplain run study.yaml[/bold] for many.
    """


def debugging(context: typer.Context) -> bool:
    """Whether ``--debug`` was given."""
    return bool(context.find_root().params.get("debug"))

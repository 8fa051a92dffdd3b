"""The `specbench` command: its subcommands, and the one place where errors become exit codes."""

from __future__ import annotations

import signal
import traceback
from contextlib import suppress
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from specbench import __version__
from specbench.cli import (
    audit,
    bench_engine,
    calibrate,
    compare,
    datastore,
    doctor,
    fetch,
    history,
    import_,
    listing,
    predict,
    report,
    run,
    show,
    train,
)
from specbench.cli.console import print_error, stderr
from specbench.ending import heed
from specbench.errors import Ended, SpecbenchError


class _Group(TyperGroup):
    """Turns what a command raises into a message on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; a traceback is printed only with `--debug`."""
        try:
            return super().invoke(ctx)
        except SpecbenchError as error:
            if ctx.params.get("debug"):
                traceback.print_exception(error)
            print_error(error)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt as error:
            number = error.number if isinstance(error, Ended) else signal.SIGINT
            with suppress(OSError):  # the terminal may be what ended
                stderr().print(
                    f"{_how(number)}. Every finished measurement is kept; "
                    "run the same command again to go on."
                )
            raise typer.Exit(128 + number) from None


def _how(number: int) -> str:
    return "Interrupted" if number == signal.SIGINT else f"Ended by {signal.Signals(number).name}"


app = typer.Typer(
    cls=_Group,
    help="Measure speculative and parallel decoding of text and image models under one ruler.",
    epilog="Start with: specbench run    then: specbench list methods",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("compare")(compare.compare)
app.command("history")(history.history)
app.command("report")(report.report)
app.command("predict")(predict.predict)
app.command("import")(import_.import_files)
app.command("list")(listing.list_entries)
app.command("show")(show.show)
app.command("audit")(audit.audit)
app.command("calibrate")(calibrate.calibrate)
app.command("train")(train.train)
app.command("fetch")(fetch.fetch)
app.command("doctor")(doctor.doctor)
app.command("bench-engine")(bench_engine.bench_engine)
app.add_typer(datastore.app, name="datastore")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"specbench {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    del debug, version


def main() -> None:
    """Run the command line; the console script calls this."""
    heed()
    app(prog_name="specbench")

"""`specbench audit`: does a method keep the target's law?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specbench.cli.console import print_json, stderr, stdout
from specbench.cli.options import ConfigDir, Debug, Json, note_debug
from specbench.errors import ConfigError, GateFailed, UsageError
from specbench.schema import catalog

if TYPE_CHECKING:
    from collections.abc import Callable

    from specbench.audit.verdict import AuditReport, Check
    from specbench.runner.audit import Effort
    from specbench.schema.config import RunConfig

    Say = Callable[[str], None]


def audit(
    context: typer.Context,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="The method, such as method=token_sd; with model=NAME it is audited on that model "
            "too, such as model=tiny_text task=tiny_math sampling.temperature=0.7.",
            show_default=False,
        ),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Audit every method; one row for each.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="The short form: fewer cases, prompts and samples.")
    ] = False,
    samples: Annotated[
        int | None,
        typer.Option(
            min=20,
            help="Generations of the sampled law test; 600, or 200 with --quick.",
            show_default=False,
        ),
    ] = None,
    minutes: Annotated[
        float,
        typer.Option(
            min=0,
            help="Leave out what the checks on a model have not done after so long, and say that "
            "it was not tested; 0: no limit.",
        ),
    ] = 0.0,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed of every sampled check; 0 by default.", show_default=False),
    ] = None,
    json: Json = False,
    config_dir: ConfigDir = None,
    debug: Debug = False,
) -> None:
    """Check whether a method's output law is the target's.

    Without a model: on small tables, where the law can be enumerated. With model=NAME also on
    that model: token identity at temperature 0, identity with plain decoding under one table of
    noise, and a sampled test of the law beside a decoder that is wrong on purpose. A decoder from
    outside is audited by a method file in --config-dir, or by
    another class in a part's _target_, such as method.decoder.verifier._target_=mine.MyVerifier.

    Exits with 1 where a method that calls itself exact is not, and with 0 where nothing was
    found; an audit that could have found nothing says that it is inconclusive.
    """
    note_debug(context, debug)
    words = list(overrides or ())
    keys = [word.partition("=")[0] for word in words]
    if every and "method" in keys:
        raise UsageError("--all audits every method", fix="Leave out either --all or method=.")
    if not every and "method" not in keys:
        raise UsageError(
            "Which method is to be audited?",
            fix="Add method=NAME (specbench list methods), or --all.",
        )
    on_model = "model" in keys
    if samples is not None and not on_model:
        raise UsageError(
            "--samples counts generations of a model",
            "without model= a method is audited on tables alone",
            "Add model=tiny_text, or leave --samples out.",
        )
    if seed is not None:
        words.append(f"sampling.seed={seed}")

    from specbench.runner.audit import Effort

    configs = _configs(words, every, on_model, config_dir)
    effort = Effort.short() if quick else Effort()
    if samples is not None:
        effort = replace(effort, samples=samples)
    if "task.limit" in keys:
        effort = replace(effort, prompts=None)
    reports = []
    for number, config in enumerate(configs, 1):
        count = f"{number}/{len(configs)} " if every else ""
        with _progress(f"{count}{config.method.name}") as say, _patient(effort, minutes) as patient:
            patient = replace(patient, progress=say)
            reports.append(_audited(config, patient, quick, on_model))
    _show(reports, every, json)
    broken = [report.method.name for report in reports if not report.ok]
    if broken:
        raise GateFailed(
            f"{', '.join(broken)}: {'a promise is' if len(broken) == 1 else 'promises are'} broken",
            "a check that the method's own exactness implies has failed",
            "See the failed checks"
            + (f" by 'specbench audit method={broken[0]}'." if every else " above."),
        )


def _configs(
    words: Sequence[str], every: bool, on_model: bool, config_dir: Path | None
) -> list[RunConfig]:
    """Return a validated configuration for each method to audit."""
    from specbench import hosting
    from specbench.schema.method import MethodConfig

    def compose(name: str | None) -> RunConfig:
        chosen = list(words) if name is None else [f"method={name}", *words]
        if not on_model:  # tables stand for any model; the embedded ones only fill the form
            method = next(word for word in chosen if word.startswith("method="))
            chosen += _stand_ins(method.partition("=")[2], config_dir)
        request = hosting.HostRequest(tuple(chosen), config_dir=config_dir)
        ((_, config),) = hosting.compose_jobs(request)
        return config

    if not every:
        return [compose(None)]
    folders = [config_dir.resolve()] if config_dir is not None else []
    names = catalog.names("method", folders)
    if not on_model and not any(word.lstrip("+~").startswith("method") for word in words):
        first = compose(names[0])  # tables look at nothing else of a configuration
        methods = [MethodConfig.from_dict(hosting.load_method(name, folders)) for name in names]
        return [replace(first, method=method) for method in methods]
    configs, refused = [], []
    for name in names:
        try:
            configs.append(compose(name))
        except ConfigError as error:
            if not on_model:
                raise
            refused.append(f"{name} ({error.what})")
    if refused:
        stderr().print(f"Left out, for the model does not fit: {', '.join(refused)}")
    return configs


def _stand_ins(method: str, config_dir: Path | None) -> list[str]:
    folders = [config_dir.resolve()] if config_dir is not None else []
    if method not in catalog.names("method", folders):
        return []
    entry = catalog.load("method", method, folders)
    named = ["model=tiny_image"] if entry.get("modality") == "image" else []
    return named + (["model.head=random"] if "head" in entry.get("needs", ()) else [])


def _audited(config: RunConfig, effort: Effort, quick: bool, on_model: bool) -> AuditReport:
    """Run every check of one method."""
    from specbench.audit.law_audit import audit_on_tables
    from specbench.audit.verdict import AuditReport
    from specbench.runner.audit import audit_on_model

    started = time.perf_counter()
    checks: list[Check] = []
    with _one_thread():  # tables are too small to be divided among threads
        checks += audit_on_tables(
            config.method, quick=quick, progress=effort.progress, seed=config.sampling.seed
        )
    if on_model:
        checks += audit_on_model(config, effort)
    model = config.model.label if on_model else "tables"
    seconds = time.perf_counter() - started
    return AuditReport(config.method.info(), model, tuple(checks), seconds)


@contextmanager
def _patient(effort: Effort, minutes: float) -> Iterator[Effort]:
    """Let an effort say how long it will take and how far it is, and end at a limit."""
    from specbench.runner.patience import Patience, ringing

    console = stderr()
    patience = Patience(minutes or None, lambda line: console.print(line, style="dim"))
    with ringing(patience):
        yield replace(effort, say=console.print, patience=patience)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread of the processor."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _progress(label: str) -> Iterator[Say]:
    """Show what is being checked on stderr: a changing line on a terminal, one line elsewhere."""
    console = stderr()
    if not console.is_terminal:
        console.print(f"auditing {label}")
        yield lambda words: None
        return
    with console.status(f"auditing {label}") as status:
        yield lambda words: status.update(f"auditing {label}: {words}")


def _show(reports: Sequence[AuditReport], every: bool, json: bool) -> None:
    from specbench.cli import audit_table

    if json:
        values = [audit_table.to_dict(report) for report in reports]
        print_json(values if every else values[0])
        return
    width = stdout().width
    if every:
        stdout().print(audit_table.render_many(reports, width))
        return
    for report in reports:
        stdout().print(audit_table.render(report, width))

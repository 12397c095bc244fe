"""Options of ``facestream`` itself, before the command: where it keeps what is its own."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path
from typing import Annotated

import typer

from engine.home_folders import KINDS

_CACHE, _MODELS, _ENGINES, _STATE, _SPOOL = (
    KINDS[kind] for kind in ("cache", "models", "engines", "state", "spool")
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"facestream {importlib.metadata.version('facestream')}")
        raise typer.Exit


def choose_folders(
    cache_dir: Annotated[
        Path | None,
        typer.Option(envvar=_CACHE.variable, help="Folder of caches: converted models, engines."),
    ] = None,
    models_dir: Annotated[
        Path | None, typer.Option(envvar=_MODELS.variable, help="Folder of imported models.")
    ] = None,
    engines_dir: Annotated[
        Path | None, typer.Option(envvar=_ENGINES.variable, help="Folder of compiled engines.")
    ] = None,
    state_dir: Annotated[
        Path | None, typer.Option(envvar=_STATE.variable, help="Folder of what must outlive a run.")
    ] = None,
    spool_dir: Annotated[
        Path | None, typer.Option(envvar=_SPOOL.variable, help="Folder of the spools.")
    ] = None,
    version: Annotated[  # noqa: ARG001 - the callback prints it and ends
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and end."),
    ] = False,
) -> None:
    """Turns camera feeds into identity events."""
    # By the environment they reach every part, and the processes that are started.
    for folder, path in (
        (_CACHE, cache_dir),
        (_MODELS, models_dir),
        (_ENGINES, engines_dir),
        (_STATE, state_dir),
        (_SPOOL, spool_dir),
    ):
        if path is not None:  # no shell reads "~" in --cache-dir=~/x, nor in what a service's unit sets
            os.environ[folder.variable] = os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111

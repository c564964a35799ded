"""`pacifica-ingest`: the server."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click

from pacifica.ingest import __version__, app, rest
from pacifica.ingest.cli import logs
from pacifica.ingest.cli.exits import EPILOG
from pacifica.ingest.cli.target import config_option
from pacifica.ingest.config import Settings, load_settings, standalone_settings
from pacifica.ingest.orm import OrmSync, ensure_there, prepare_schema

__all__ = ["server"]


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pacifica-ingest")
@click.option(
    "--cp-config",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CherryPy configuration file; otherwise INGEST_CPCONFIG or ~/.pacifica-ingest/cpconfig.ini, if it is there.",
)
@config_option
@click.option("-p", "--port", type=click.IntRange(0, 65535), show_default="8066", help="0 takes a free one.")
@click.option("-a", "--address", show_default="localhost", help="Where to listen; 0.0.0.0 is everywhere.")
@click.option(
    "--standalone",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Need no other service: keep jobs, catalogue and archive in this folder, which is made when it is missing.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
def server(
    cp_config: Path | None, port: int | None, address: str | None, standalone: Path | None, *, verbose: bool
) -> None:
    """Take uploads over HTTP, until Ctrl-C or SIGTERM.

    An option beats the CherryPy file, the file beats the default.
    """
    prepare = partial(logs.configure, logging.DEBUG if verbose else logging.INFO)
    prepare()
    settings = standalone_settings(standalone) if standalone else load_settings()
    rest.configure(settings, cp_config)
    with app.standalone(settings, standalone, prepare) if standalone else _attended(settings) as service:
        rest.serve(address, port, ready=lambda url: _greet(url, settings), stopping=service.stopping.set)


@contextmanager
def _attended(settings: Settings) -> Iterator[app.Service]:
    """A service whose database and workers others run."""
    service = app.compose(settings)
    app.use(service)
    ensure_there()
    OrmSync.dbconn_blocking()
    prepare_schema()
    with app.sweeping(service):
        yield service


def _greet(url: str, settings: Settings) -> None:
    where = settings.standalone or settings.ingest.volume_path
    click.echo(f"Pacifica Ingest {__version__} takes uploads at {url}, data lies in {where}; Ctrl-C stops it.")

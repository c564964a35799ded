"""Which service a command is about: that of the configuration, or a standalone one in a folder."""

import os
from dataclasses import dataclass
from pathlib import Path

import click

from pacifica.ingest import app
from pacifica.ingest.config import Settings, load_settings, standalone_settings
from pacifica.ingest.core.errors import BadConfiguration
from pacifica.ingest.orm import prepare_schema

__all__ = ["Target", "config_option"]


def _use_config(_context: click.Context, _option: click.Parameter, file: Path | None) -> None:
    # By the environment, so that worker processes see it as well.
    if file is not None:
        os.environ["INGEST_CONFIG"] = str(file.absolute())


config_option = click.option(
    "-c",
    "--config",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    callback=_use_config,
    expose_value=False,
    help="Configuration file; otherwise INGEST_CONFIG or ~/.pacifica-ingest/config.ini.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What an admin command works on.

    Attributes:
        folder: that of a standalone service, or None.

    """

    folder: Path | None

    def settings(self) -> Settings:
        """The settings of the service.

        Raises:
            BadConfiguration: a wrong value, or a folder in which no service ever ran; not retryable.

        """
        if self.folder is None:
            return load_settings()
        if not (self.folder / "ingest.sqlite3").exists():
            msg = f"{self.folder}: no standalone service was ever started in this folder."
            raise BadConfiguration(msg)
        return standalone_settings(self.folder)

    def service(self) -> app.Service:
        """The service, wired; its database has a schema that we can work on.

        Raises:
            UnsafeSchema: `dbsync` has to be run first; not retryable.

        """
        service = app.compose(self.settings())
        app.use(service)
        prepare_schema()
        return service

"""What `doctor` advises: it fits what went wrong, and the service."""

from pathlib import Path

import peewee
import pytest

from pacifica.ingest.cli import remedies
from pacifica.ingest.config import Settings
from pacifica.ingest.core.errors import DatabaseDown, NeighbourDown, UnsafeSchema

READ_ONLY = peewee.OperationalError("attempt to write a readonly database")
DENIED = PermissionError(13, "Permission denied", "/srv/ingest/staging")


def settings(url: str = "sqliteext:////var/db.sqlite3", rules: str = "http://policy", home: str = "") -> Settings:
    found = Settings.model_validate(
        {
            "database": {"peewee_url": url},
            "policy": {"ingest_url": rules},
            "archiveinterface": {"url": "file:///archive"},
        }
    )
    return found.model_copy(update={"standalone": Path(home)}) if home else found


@pytest.mark.parametrize(
    ("url", "fault", "advice"),
    [
        ("postgresql://h/d", peewee.OperationalError("refused"), "start it, or mend [database] peewee_url"),
        ("postgresql://h/d", peewee.ImproperlyConfigured("no driver"), "pip install '.[postgresql]'"),
        ("mysql+pool://h/d", peewee.ImproperlyConfigured("no driver"), "pip install '.[mysql]'"),
        ("postgresql://h/d", UnsafeSchema("old"), "run `pacifica-ingest-cmd dbsync`"),
        ("sqlite:////var/db.sqlite3", READ_ONLY, "let this user write /var/db.sqlite3 and its folder, or mend"),
        ("sqlite:////var/db.sqlite3", peewee.OperationalError("database is locked"), "end who keeps it locked"),
    ],
)
def test_the_advice_for_a_database_fits_the_fault(url: str, fault: Exception, advice: str) -> None:
    assert advice in remedies.database(settings(url))(fault)


def test_who_runs_a_standalone_service_is_not_sent_to_what_it_does_not_have() -> None:
    alone = settings("sqlite:////srv/ingest/ingest.sqlite3", "local:", "/srv/ingest")
    told = {
        remedies.database(alone)(READ_ONLY),
        remedies.landing_zone(alone)(DENIED),
        remedies.policy(alone)(NeighbourDown("policy", "broken")),
        remedies.archive(alone)(DENIED),
        remedies.archive(alone)(DatabaseDown(str(READ_ONLY))),
    }
    assert not [advice for advice in told if "start it" in advice or "[" in advice or "dbsync" in advice]
    assert "let this user write /srv/ingest/ingest.sqlite3 and its folder" in told


def test_a_rule_file_is_mended_and_not_started() -> None:
    fault = NeighbourDown("policy", "/rules.toml: broken")
    assert remedies.policy(settings(rules="local:/rules.toml"))(fault).startswith("mend that file, or [policy]")
    assert remedies.policy(settings())(fault).startswith("start it, or mend [policy]")

"""Every Python name that the documentation lists is at its place and takes the documented arguments.

Not what they do: that is in the tests of each module, and for the façades in `integration/test_names.py`.

Source: module reference of pacifica-ingest, of its first release and of 0.4.1.
"""

import importlib
import inspect
import pickle
from configparser import ConfigParser
from typing import Any

import peewee
import pytest

from pacifica.ingest import orm, tarutils, tasks, utils
from pacifica.ingest.core import errors, paths, sizes

#: Module → what can be called → its arguments, by name, in each documented form.
CALLS: dict[str, dict[str, list[str]]] = {
    "config": {"get_config": [""]},
    "orm": {
        "IngestState.atomic": [""],
        "IngestState.database_connect": [""],
        "IngestState.database_close": [""],
        "IngestStateSystem.get_or_create_version": [""],
        "IngestStateSystem.get_version": [""],
        "IngestStateSystem.is_equal": [""],
        "IngestStateSystem.is_safe": [""],
        "OrmSync.dbconn_blocking": [""],
        "OrmSync.update_0_0_to_1_0": [""],
        "OrmSync.update_1_0_to_2_0": [""],
        "OrmSync.update_tables": [""],
        "read_state": ["job_id"],
        "update_state": ["job_id state task task_percent", "job_id state task task_percent exception"],
    },
    "rest": {
        "Root": [""],
        "RestUpload": [""],
        "RestMove": [""],
        "RestIngestState": [""],
        "error_page_default": ["status message traceback version"],
    },
    "tarutils": {
        "FileIngester": ["hashtype hashcode file_id"],
        "FileIngester.read": ["self size"],
        "FileIngester.upload_file_in_file": ["self info tar"],
        "FileIngester.validate_hash": ["self"],
        "HashValidationException": ["faults"],
        "MetaParser": [""],
        "MetaParser.clean_metadata": ["self"],
        "MetaParser.file_obj_count": ["self meta_list"],
        "MetaParser.get_fname": ["self file_id"],
        "MetaParser.get_hash": ["self file_id"],
        "MetaParser.get_subdir": ["self file_id"],
        "MetaParser.load_meta": ["self tar job_id"],
        "MetaParser.post_metadata": ["self"],
        "MetaParser.read_meta": ["self metafile job_id"],
        "TarIngester": ["tar meta"],
        "TarIngester.ingest": ["self"],
        "file_count": ["tar"],
        "open_tar": ["fpath"],
        "patch_files": ["meta_obj"],
    },
    "tasks": {
        "ingest.run": ["job_id filepath", "job_id filepath authed_user"],
        "move.run": ["job_id filepath", "job_id filepath authed_user"],
        "ingest_check_tarfile": ["job_id filepath"],
        "ingest_files": ["job_id ingest_obj"],
        "ingest_metadata": ["job_id meta"],
        "ingest_metadata_parser": ["job_id tar"],
        "ingest_policy_check": ["job_id meta_str", "job_id meta_str authed_user"],
        "move_files": ["job_id meta_obj"],
        "move_metadata_parser": ["job_id metafile"],
        "validate_meta": ["meta_str", "meta_str authed_user"],
    },
    "utils": {"create_state_response": ["record"], "get_unique_id": ["id_range mode"], "parse_size": ["size"]},
    "__main__": {"main": ["argv", ""], "cmd": ["argv", ""]},
}
FORMS = [
    (module, name, form.split()) for module, names in CALLS.items() for name, forms in names.items() for form in forms
]

#: Module → names that are no calls.
VALUES = {
    "globals": ["CONFIG_FILE", "CHERRYPY_CONFIG"],
    "orm": ["BaseModel", "IngestState", "IngestStateSystem", "OrmSync.versions", "SCHEMA_MAJOR", "SCHEMA_MINOR"],
    "rest": ["Root.GET", "RestUpload.POST", "RestMove.POST", "RestIngestState.GET"],
    "tarutils": ["get_clipped"],
    "tasks": ["IngestException", "ingest", "move"],
    "wsgi": ["application"],
}


def look_up(module: str, name: str) -> Any:
    found: Any = importlib.import_module(f"pacifica.ingest.{module}")
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(("module", "name", "arguments"), FORMS, ids=str)
def test_a_documented_call_takes_its_arguments_by_place_and_by_name(
    module: str, name: str, arguments: list[str]
) -> None:
    signature = inspect.signature(look_up(module, name))
    by_name = {argument: argument for argument in arguments}
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values()):
        assert list(signature.bind(*arguments).arguments.values()) == arguments
    signature.bind(**by_name)


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in VALUES.items() for name in names])
def test_a_documented_name_is_at_its_place(module: str, name: str) -> None:
    assert look_up(module, name) is not None


@pytest.mark.parametrize("module", [*CALLS, *VALUES])
def test_documented_names_are_public(module: str) -> None:
    documented = {name.partition(".")[0] for name in [*CALLS.get(module, {}), *VALUES.get(module, [])]}
    assert documented <= set(importlib.import_module(f"pacifica.ingest.{module}").__all__)


def test_facades_give_the_real_thing() -> None:
    assert tarutils.get_clipped is paths.clip
    assert utils.parse_size is sizes.parse_size
    assert tarutils.HashValidationException is errors.FaultyBundle


def test_the_configuration_is_a_config_parser() -> None:
    assert isinstance(look_up("config", "get_config")(), ConfigParser)


def test_the_record_of_a_job_has_the_documented_fields() -> None:
    documented = {"job_id", "state", "task", "task_percent", "exception", "complete", "created", "updated"}
    assert set(orm.IngestState._meta.fields) == documented


def test_models_can_be_bound_to_another_database() -> None:
    other = peewee.SqliteDatabase(":memory:")
    models = [orm.IngestState, orm.IngestStateSystem]
    with other.bind_ctx(models), other.connection_context():
        other.create_tables(models)
        orm.update_state(7, "OK", "UPLOADING", 0)
        assert utils.create_state_response(orm.read_state(7))["task"] == "UPLOADING"


def test_a_meta_parser_has_the_documented_attributes() -> None:
    meta = tarutils.MetaParser()
    assert (meta.files, meta.meta_str) == ({}, "")
    assert meta.start_id == meta.file_count == meta.transaction_id == -999
    assert isinstance(type(meta).session, property)


def test_a_document_that_was_changed_to_something_else_is_told_as_such() -> None:
    meta = tarutils.MetaParser()
    for text in ("nonsense", "{}", ""):
        meta.meta_str = text
        with pytest.raises(errors.BadMetadata):
            meta.document()


def test_counting_needs_no_service() -> None:
    meta = tarutils.MetaParser()
    meta.file_obj_count([{"destinationTable": "Files"}, {"destinationTable": "x"}, {"destinationTable": "Files"}])
    assert meta.file_count == 2


@pytest.mark.parametrize("hashtype", ["", "md6", "shake_128", "crc32"])
def test_an_unknown_hash_type_is_a_value_error(hashtype: str) -> None:
    with pytest.raises(ValueError, match="hash type"):
        tarutils.FileIngester(hashtype, "0", 1)


def test_the_celery_tasks_have_their_documented_names() -> None:
    assert tasks.ingest.name == "pacifica.ingest.tasks.ingest"
    assert tasks.move.name == "pacifica.ingest.tasks.move"
    assert {tasks.ingest.name, tasks.move.name} <= tasks.app.tasks.keys()


def test_celery_takes_json_and_keeps_no_results() -> None:
    conf = tasks.app.conf
    assert (conf.task_serializer, list(conf.accept_content), conf.result_backend) == ("json", ["json"], "disabled://")


def test_the_exceptions_of_a_worker_can_be_pickled() -> None:
    assert str(pickle.loads(pickle.dumps(tasks.IngestException("why")))) == "why"

"""The service does what its OpenAPI document says, whatever is sent to it: seeded requests, fit and unfit ones."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.acceptance.stage import Standalone
from tests.harness.web import request

#: Of each address; `make fuzz` sends many more.
EXAMPLES = 40
#: A body that is no bundle is taken, and the job tells: so no check is made that unfit bodies are refused.
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
)


ADDRESSES = ["/upload POST", "/ingest POST", "/move POST", "/get_state GET", "/get_state/{job_id} GET"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    with Standalone(tmp_path_factory.mktemp("openapi")) as running:
        yield running


@pytest.fixture(scope="module")
def described(service: Standalone) -> Any:
    return schemathesis.openapi.from_url(f"{service.url}/openapi.json")


def test_the_document_is_valid_openapi(described: Any) -> None:
    described.validate()
    assert {"/", "/upload", "/ingest", "/move", "/get_state", "/get_state/{job_id}"} < set(
        described.raw_schema["paths"]
    )


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize("address", ADDRESSES)
def test_every_answer_is_one_that_is_described(described: Any, address: str, mode: GenerationMode) -> None:
    path, method = address.split()
    checks = [*CHECKS, negative_data_rejection] if method == "GET" else CHECKS

    @given(case=described[path][method].as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, suppress_health_check=[*HealthCheck]
    )
    def sent(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=checks)

    sent()


def test_the_service_goes_on(service: Standalone) -> None:
    assert json.loads(request("GET", f"{service.url}/").body)["message"]
    assert "Traceback" not in Path(service.log).read_text(encoding="utf-8")

"""Who a request comes from: the header of the user is believed from the operator's own proxies only, and once."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pacifica.ingest.config import Settings
from pacifica.ingest.core.errors import BadRequest, UntrustedPeer
from pacifica.ingest.rest.identity import user_of
from tests.acceptance.raw_http import Answer, Wire, head
from tests.acceptance.stage import Standalone, bundle
from tests.harness.waiting import until

USER = "X-Http-Authed-User"


def settings(**ingest: Any) -> Any:
    return Settings.model_validate({"ingest": ingest}).ingest


def environ(user: str | None, peer: str | None) -> dict[str, str]:
    told = {"HTTP_X_HTTP_AUTHED_USER": user, "REMOTE_ADDR": peer}
    return {name: value for name, value in told.items() if value is not None}


# --- the rule


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "", "0.0.0.0", "unix:"])
def test_by_default_this_machine_is_believed(peer: str) -> None:
    assert user_of(environ("dmlb2001", peer), settings()) == "dmlb2001"


@pytest.mark.parametrize(
    "peer",
    [
        "10.0.0.1",
        "128.0.0.1",
        "::2",
        "::ffff:10.0.0.1",
        "fe80::1%eth0",
        "localhost",
        "unix",
        "127.0.0.1, 10.0.0.1",
        None,
    ],
)
def test_by_default_nobody_else_is_believed(peer: str | None) -> None:
    with pytest.raises(UntrustedPeer, match=r"X-Http-Authed-User.*trusted_proxies"):
        user_of(environ("dmlb2001", peer), settings())


@pytest.mark.parametrize(
    ("trusted", "peer", "believed"),
    [
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.4", False),
        ("10.1.2.3", "127.0.0.1", False),
        ("10.1.2.3", "", False),
        ("10.0.0.0/8, 2001:db8::/32", "10.9.9.9", True),
        ("10.0.0.0/8, 2001:db8::/32", "2001:db8::7", True),
        ("10.0.0.0/8, 2001:db8::/32", "2001:db9::7", False),
        ("10.0.0.0/8", "::ffff:10.1.1.1", True),
        ("fe80::/10", "fe80::1%eth0", True),
        ("unix", "", True),
        ("unix", "127.0.0.1", False),
        ("0.0.0.0/0, ::/0", "8.8.8.8", True),
        ("0.0.0.0/0, ::/0", "0.0.0.0", False),
        ("", "127.0.0.1", False),
        ("", "", False),
    ],
)
def test_believed_are_those_that_the_operator_names(trusted: str, peer: str, *, believed: bool) -> None:
    ingest = settings(trusted_proxies=trusted)
    if believed:
        assert user_of(environ("dmlb2001", peer), ingest) == "dmlb2001"
    else:
        with pytest.raises(UntrustedPeer):
            user_of(environ("dmlb2001", peer), ingest)


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.0.0.1", None])
@pytest.mark.parametrize("user", [None, "", "  "])
def test_who_says_nothing_is_the_default_user(user: str | None, peer: str | None) -> None:
    assert user_of(environ(user, peer), settings()) == "anonymous"
    assert user_of(environ(user, peer), settings(default_user="guest")) == "guest"


@pytest.mark.parametrize("user", ["a, b", "a,b", ",", "a,", "a\tb", "a\x00", "a\x7fb", "a\nb", "x" * 256])
def test_what_is_not_one_name_is_refused(user: str) -> None:
    with pytest.raises(BadRequest, match="X-Http-Authed-User") as caught:
        user_of(environ(user, "127.0.0.1"), settings())
    assert caught.value.status == 400
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("user", ["dmlb2001", "DOMAIN\\user", "a@b.org", "with space", "=?utf-8?q?a?=", "\xc3\x9cber"])
def test_a_name_is_taken_as_it_is(user: str) -> None:
    assert user_of(environ(f" {user} ", "::1"), settings()) == user


def test_only_the_configured_header_counts() -> None:
    told = environ("other", "127.0.0.1") | {"HTTP_REMOTE_USER": "dmlb2001"}
    assert user_of(told, settings(auth_header="Remote-User")) == "dmlb2001"
    assert user_of(environ("other", "10.0.0.1"), settings(auth_header="Remote-User")) == "anonymous"


# --- on a running service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    with Standalone(tmp_path_factory.mktemp("trusting"), INGEST_WORKERS="1") as running:
        yield running


@pytest.fixture(scope="module")
def wary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    """Trusts nobody whom a test could be; keeps jobs apart."""
    settings = {"INGEST_TRUSTED_PROXIES": "10.0.0.0/8", "INGEST_WORKERS": "1"}
    with Standalone(tmp_path_factory.mktemp("wary"), **settings) as running:
        yield running


def ask(service: Standalone, method: str, address: str, *headers: str, body: bytes = b"") -> Answer:
    with Wire(service.url) as wire:
        length = (f"Content-Length: {len(body)}",) if method == "POST" else ()
        return wire.send(head(method, address, *length, *headers), body).answer()


def users(service: Standalone) -> list[str]:
    database = sqlite3.connect(service.home / "ingest.sqlite3")
    found = database.execute("SELECT submitted_by FROM ingest_job ORDER BY job_id").fetchall()
    database.close()
    return [user for (user,) in found]


@pytest.mark.parametrize("address", ["/upload", "/ingest", "/move"])
@pytest.mark.parametrize(
    "headers",
    [
        (f"{USER}: a", f"{USER}: b"),
        (f"{USER}: a", f"{USER.lower()}: a"),
        (f"{USER}: a, b",),
        (f"{USER}:", f"{USER}: a"),
        (f"{USER}: a", "X_Http_Authed_User: b"),
        ("X_Http_Authed_User: b", f"{USER}: a"),
    ],
)
def test_two_users_are_refused(service: Standalone, address: str, headers: tuple[str, ...]) -> None:
    before = users(service)
    answer = ask(service, "POST", address, *headers, body=b"[]")
    assert (answer.status, answer.json()["code"]) == (400, "bad_request"), answer
    assert users(service) == before


def test_a_header_with_an_encoded_word_is_no_other_name(service: Standalone) -> None:
    """What a proxy compared must be what we take."""
    assert ask(service, "POST", "/upload", f"{USER}: =?utf-8?q?admin?=", body=b"[]").status == 200
    assert users(service)[-1] == "=?utf-8?q?admin?="


def test_a_client_cannot_pass_for_another_peer(wary: Standalone) -> None:
    forged = ("Remote-Addr: 10.0.0.1", "X-Forwarded-For: 10.0.0.1", "X-Real-Ip: 10.0.0.1", "Forwarded: for=10.0.0.1")
    assert ask(wary, "POST", "/upload", f"{USER}: a", *forged, body=b"[]").status == 403


@pytest.mark.parametrize("address", ["/upload", "/ingest", "/move"])
def test_an_untrusted_peer_that_names_a_user_is_refused_before_it_sends(wary: Standalone, address: str) -> None:
    before = users(wary)
    with Wire(wary.url) as wire:
        headers = (f"{USER}: dmlb2001", "Content-Length: 5", "Expect: 100-continue")
        answer = wire.send(head("POST", address, *headers)).answer()
    assert (answer.status, answer.json()["code"]) == (403, "untrusted_peer")
    assert USER in answer.json()["message"]
    assert "through the proxy of your facility, or without this header" in answer.json()["message"]
    assert "10.0.0.0" not in answer.json()["message"]
    assert users(wary) == before
    assert "peer=127.0.0.1" in wary.log.read_text()


def test_an_untrusted_peer_that_names_nobody_is_the_default_user(wary: Standalone) -> None:
    assert ask(wary, "POST", "/upload", body=b"[]").status == 200
    assert users(wary)[-1] == "anonymous"


def test_who_only_asks_need_not_be_believed(wary: Standalone) -> None:
    job = ask(wary, "POST", "/upload", body=b"[]").json()["job_id"]
    assert ask(wary, "GET", f"/get_state?job_id={job}", f"{USER}: dmlb2001").status == 200


# --- own_jobs_only


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    settings = {"INGEST_OWN_JOBS_ONLY": "yes", "INGEST_ENFORCE_SUBMITTER": "on", "INGEST_WORKERS": "1"}
    with Standalone(tmp_path_factory.mktemp("private"), **settings) as running:
        yield running


@pytest.mark.parametrize("address", ["/get_state?job_id={0}", "/get_state/{0}"])
@pytest.mark.parametrize(
    ("owner", "asker", "is_told"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a", "A", False),
        ("a", None, False),
        (None, None, True),
        (None, "anonymous", True),
        (None, "a", False),
    ],
)
def test_a_job_of_another_user_is_as_if_there_were_none(
    private: Standalone, address: str, owner: str | None, asker: str | None, *, is_told: bool
) -> None:
    def named(user: str | None) -> tuple[str, ...]:
        return (f"{USER}: {user}",) if user else ()

    posted = ask(private, "POST", "/upload", *named(owner), body=b"[]")
    job_id = posted.json()["job_id"]
    answer = ask(private, "GET", address.format(job_id), *named(asker))
    if is_told:
        assert answer.json()["job_id"] == job_id
        return
    unknown = ask(private, "GET", address.format(987654), *named(asker))
    assert (answer.status, unknown.status) == (404, 404)
    assert answer.body.replace(b"ID %d " % job_id, b"ID N ") == unknown.body.replace(b"ID 987654 ", b"ID N ")
    assert answer.headers.keys() == unknown.headers.keys()


def test_a_job_that_only_another_version_knew_is_nobody_s(private: Standalone) -> None:
    database = sqlite3.connect(private.home / "ingest.sqlite3")
    with database:
        columns = "id, state, task, task_percent, exception, created, updated, complete"
        values = "77777, 'OK', 'ingest metadata', 100, '', '2020-01-01 00:00:00', '2020-01-01 00:00:00', 1"
        database.execute(f"INSERT INTO ingeststate ({columns}) VALUES ({values})")
    database.close()
    assert ask(private, "GET", "/get_state?job_id=77777").status == 404


@pytest.mark.parametrize("headers", [(f"{USER}: a", f"{USER}: b")])
def test_who_asks_as_two_is_refused(private: Standalone, headers: tuple[str, ...]) -> None:
    assert ask(private, "GET", "/get_state?job_id=1", *headers).status == 400


@pytest.mark.parametrize(("user", "state"), [("10", "OK"), ("11", "FAILED"), (None, "FAILED")])
def test_a_bundle_of_another_submitter_fails_where_that_is_enforced(
    private: Standalone, user: str | None, state: str
) -> None:
    headers = (f"{USER}: {user}",) if user else ()
    job_id = ask(private, "POST", "/upload", *headers, body=bundle({"a.txt": b"alpha"})).json()["job_id"]

    def told() -> dict[str, Any]:
        return dict(ask(private, "GET", f"/get_state/{job_id}", *headers).json())

    until(lambda: bool(told()["complete"]), "the job to end")
    ended = told()
    assert ended["state"] == state
    assert state == "OK" or (ended["task"], "enforce_submitter" in ended["exception"]) == ("Policy Validation", True)


def test_the_log_has_no_trace(service: Standalone, wary: Standalone, private: Standalone) -> None:
    for running in (service, wary, private):
        assert "Traceback" not in Path(running.log).read_text(encoding="utf-8")

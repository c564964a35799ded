"""Digests as metadata entries write them."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacifica.ingest.core.digests import ALGORITHMS, Digest

algorithms = st.sampled_from(sorted(ALGORITHMS))


@given(algorithms, st.binary(max_size=50), st.booleans(), st.booleans(), st.booleans())
def test_case_and_prefix_do_not_matter(name: str, body: bytes, loud: bool, shout: bool, prefixed: bool) -> None:  # noqa: FBT001 (drawn)
    value = hashlib.new(name, body).hexdigest()
    written = f"{name}:{value}" if prefixed else value
    digest = Digest.parse(name.upper() if loud else name, written.upper() if shout else written)
    assert digest == Digest(algorithm=name, value=value)
    assert Digest.parse(digest.algorithm, str(digest)) == digest


@given(algorithms, st.binary(max_size=50))
def test_a_started_hash_comes_to_the_value(name: str, body: bytes) -> None:
    value = hashlib.new(name, body).hexdigest()
    hasher = Digest.parse(name, value).start()
    hasher.update(body)
    assert hasher.hexdigest() == value


def test_every_algorithm_is_a_plain_name_in_hashlib_and_has_one_length() -> None:
    for name in ALGORITHMS:
        assert name in hashlib.algorithms_guaranteed
        assert getattr(hashlib, name)().digest_size > 0


@pytest.mark.parametrize("name", ["sha-1", "shake_128", "sm3", "md5 ", "", None, 5, ["md5"], "whirlpool"])
def test_an_unknown_algorithm_is_refused_with_what_is_known(name: object) -> None:
    with pytest.raises(ValueError, match=r"hashtype .* is not one of blake2b, .*sha512"):
        Digest.parse(name, "0" * 40)


@pytest.mark.parametrize(
    "value",
    ["", "0" * 39, "0" * 41, "g" * 40, "md5:" + "0" * 40, "sha1:sha1:" + "0" * 40, " " + "0" * 40, "٣" * 40, None, 0],
)
def test_what_is_no_digest_of_the_algorithm_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="is not a sha1 digest of 40 hexadecimal digits"):
        Digest.parse("sha1", value)

"""Digests as metadata entries write them."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacifica.ingest.core.digests import ALGORITHMS, Digest, allowed

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
        assert getattr(hashlib, name)().digest_size * 2 == ALGORITHMS[name].hex_digits


def test_the_strongest_are_allowed_wherever_a_weaker_one_is() -> None:
    assert allowed("") == allowed("md5") == list(ALGORITHMS)
    assert allowed("sha1") == [name for name in ALGORITHMS if name != "md5"]
    assert set(allowed("sha224")) == ALGORITHMS.keys() - {"md5", "sha1"}
    assert set(allowed("sha256")) == set(allowed("sha3_256")) == set(allowed("blake2s"))
    assert set(allowed("sha384")) == {"sha384", "sha512", "sha3_384", "sha3_512", "blake2b"}
    assert set(allowed("blake2b")) == {"sha512", "sha3_512", "blake2b"}


@given(algorithms, algorithms)
def test_no_algorithm_is_stronger_than_half_its_length(name: str, least: str) -> None:
    digest = Digest(algorithm=name, value=hashlib.new(name).hexdigest())
    assert ALGORITHMS[name].strength_bits * 2 <= ALGORITHMS[name].hex_digits * 4
    assert (digest.weakness(least) is None) == (ALGORITHMS[name].strength_bits >= ALGORITHMS[least].strength_bits)


def test_what_is_too_weak_is_told_with_what_is_allowed() -> None:
    digest = Digest.parse("sha1", "0" * 40)
    assert digest.weakness("sha1") is None
    assert digest.weakness("sha512") == "sha1 is too weak, allowed are sha512, sha3_512, blake2b"


@pytest.mark.parametrize("name", ["sha-1", "shake_128", "sm3", "md5 ", "", None, 5, ["md5"], "whirlpool"])
def test_an_unknown_algorithm_is_refused_with_what_is_known(name: object) -> None:
    with pytest.raises(ValueError, match=r"hashtype: expected md5 or sha1 or .*, got "):
        Digest.parse(name, "0" * 40)


@pytest.mark.parametrize(
    "value",
    ["", "0" * 39, "0" * 41, "g" * 40, "md5:" + "0" * 40, "sha1:sha1:" + "0" * 40, " " + "0" * 40, "٣" * 40, None, 0],
)
def test_what_is_no_digest_of_the_algorithm_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="hashsum: expected 40 hexadecimal digits of sha1, got "):
        Digest.parse("sha1", value)

"""The digest that a version stands for, pointers, scopes."""

from dataclasses import replace
from hashlib import sha256
from itertools import permutations
from typing import Any

import pytest

from shared.domain.errors import FieldError, InsufficientScope, WrongShape, pointer
from shared.domain.model import ModelVersion, PackageFile, Placement, digest_of
from shared.domain.principal import Principal
from shared.domain.signature import by_name
from tests.codecs.signatures import PAIR

FILES = (
    PackageFile("manifest.json", 2, sha256(b"{}").hexdigest()),
    PackageFile("model.onnx", 5, sha256(b"model").hexdigest()),
    PackageFile("data/weights.bin", 0, sha256(b"").hexdigest()),
)
# Stored in registries: a change here would make every published package look damaged.
DIGEST = "a8f5bae922114fc8c5f3f2861672aa675ec2a02595d7dcb44703dcefe87eb6f8"


def test_digest_is_stable_and_free_of_order() -> None:
    assert {digest_of(order) for order in permutations(FILES)} == {DIGEST}


@pytest.mark.parametrize("position", range(3))
@pytest.mark.parametrize("change", [{"path": "other"}, {"size": 7}, {"sha256": "0" * 64}])
def test_digest_tells_any_change(position: int, change: dict[str, Any]) -> None:
    changed = [replace(file, **change) if i == position else file for i, file in enumerate(FILES)]
    assert digest_of(tuple(changed)) != DIGEST


def test_digest_tells_files_apart() -> None:
    assert digest_of(FILES[:2]) != DIGEST
    assert digest_of(()) != digest_of(FILES[:1])
    assert digest_of((PackageFile("a", 11, "b"),)) != digest_of((PackageFile("a1", 1, "b"),))


def test_version_knows_its_size_and_place() -> None:
    version = ModelVersion("tumor", 3, DIGEST, FILES, PAIR, Placement.FUNCTION, "2026-01-01T00:00:00+00:00")
    assert (version.size, version.prefix) == (7, "models/tumor/3/")
    assert list(by_name(PAIR.inputs)) == ["i/d", "x"]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [((), "/a"), (("b", 0), "/a/b/0"), (("m/n~o",), "/a/m~1n~0o"), (("~1",), "/a/~01"), (("",), "/a/")],
)
def test_pointer(parts: tuple[object, ...], expected: str) -> None:
    assert pointer("/a", *parts) == expected


def test_errors_name_their_place() -> None:
    error = WrongShape.at("/a/0", "is bent")
    assert (error.detail, error.fields) == ("/a/0: is bent", (FieldError("/a/0", "is bent"),))
    assert WrongShape.at("", "is bent").detail == "is bent"


def test_principal_travels_as_flat_strings() -> None:
    principal = Principal("acme", "k1", frozenset({"predict", "models:read"}), "demo")
    assert all(isinstance(value, str) for value in principal.to_context().values())
    assert Principal.from_context(principal.to_context()) == principal
    assert Principal.from_context(Principal("acme", "k1", frozenset(), "demo").to_context()).scopes == frozenset()
    with pytest.raises(KeyError):
        Principal.from_context({"tenant": "acme"})


@pytest.mark.parametrize(
    "scopes", [(), ("predict:other",), ("predict:",), ("Predict",), ("admin",), ("predict:tumor:x",)]
)
def test_scopes_are_compared_whole(scopes: tuple[str, ...]) -> None:
    principal = Principal("acme", "k1", frozenset(scopes), "demo")
    with pytest.raises(InsufficientScope, match="'predict' or 'predict:tumor'"):
        principal.require("predict", "predict:tumor")

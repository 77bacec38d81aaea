"""The built example packages; `make setup` has built them, so that this finds them up to date."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from examples.build import main
from examples.catalogue import DEFAULT_OUT, VERSION
from shared.adapters.onnx.package import OnnxPackage
from shared.codecs.json_documents import JsonLimits
from shared.codecs.json_tensors import decode_instances
from shared.domain.tensors import Tensors
from shared.domain.validation import conform

Folder = Callable[[str], Path]
Load = Callable[[str], OnnxPackage]


@pytest.fixture(scope="session")
def folder() -> Folder:
    """The folder of an example's package, by name."""
    assert main([]) == 0
    return lambda name: DEFAULT_OUT / name / str(VERSION)


@pytest.fixture(scope="session")
def load(folder: Folder) -> Load:
    """An example's package, loaded once."""
    return cache(lambda name: OnnxPackage.load(folder(name), threads=2))


def answer(package: OnnxPackage, body: bytes) -> Tensors:
    """What a package answers to the body of a predict request."""
    return package.run(conform(decode_instances(body, package.signature, JsonLimits()), package.signature))

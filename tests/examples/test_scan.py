"""The example pipeline: published as the documentation says, and as good as its steps."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from examples.catalogue import ROOT
from examples.scan import margin
from shared.adapters.function_backend import FunctionBackend
from shared.adapters.onnx.package import OnnxPackage
from shared.adapters.onnx.reader import OnnxPackageReader
from shared.adapters.onnx.scaffold import scaffold
from shared.adapters.package_cache import PackageCache
from shared.adapters.pipeline_package import PipelinePackageReader
from shared.adapters.pipeline_runner import PipelinePackages
from shared.codecs.json_documents import JsonLimits
from shared.codecs.json_tensors import decode_instances
from shared.domain.model import ModelVersion
from shared.domain.ports import InferenceContext
from shared.domain.validation import conform
from shared.usecases.publish_model import PublishModel
from tests.examples.conftest import Folder, Load, answer
from tests.fakes import InMemoryModels, InMemoryPackages

PACKAGE = ROOT / "examples/scan/pipeline"
PAGE = ROOT / "docs/pipelines.md"


def test_the_page_shows_the_manifest_that_is_published() -> None:
    shown = re.findall(r"```json\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert json.loads(shown[0]) == json.loads((PACKAGE / "manifest.json").read_text("utf-8"))


@pytest.fixture
def scan(folder: Folder, tmp_path: Path) -> tuple[ModelVersion, FunctionBackend]:
    models, store = InMemoryModels(), InMemoryPackages()
    publish = PublishModel(models, store, OnnxPackageReader(), pipelines=PipelinePackageReader())
    (tmp_path / "margin.onnx").write_bytes(margin.graph())
    publish(folder("digits"))
    publish(scaffold(tmp_path / "margin.onnx", tmp_path / "margin", "margin", 1))
    version = publish(PACKAGE).version

    def load(place: Path, loaded: ModelVersion) -> OnnxPackage:
        return OnnxPackage.load(place, threads=1, name=loaded.model, version=loaded.version)

    cache = PackageCache(store, tmp_path / "cache", 1 << 30, load)
    return version, FunctionBackend(PipelinePackages(cache, models.get, max_bytes=1 << 30))


@pytest.mark.parametrize("name", ["request.json", "image-request.json"])
def test_it_answers_what_its_steps_answer(scan: tuple[ModelVersion, FunctionBackend], load: Load, name: str) -> None:
    version, backend = scan
    body = (ROOT / "examples/digits" / name).read_bytes()
    decoded = decode_instances(body, version.signature, JsonLimits())
    found = backend.infer(version, conform(decoded, version.signature), InferenceContext("r", "t", 60_000))
    alone = answer(load("digits"), body)
    np.testing.assert_array_equal(found["digit"], alone["label"])
    ranked = np.sort(alone["probabilities"], axis=1)
    np.testing.assert_allclose(found["margin"], ranked[:, -1] - ranked[:, -2], rtol=1e-6)
    assert list(found["digit"]) == [3]

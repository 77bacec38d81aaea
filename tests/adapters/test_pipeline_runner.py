"""Pipelines in the function: real packages through the real cache; the numbers are those of the steps run by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shared.adapters.function_backend import FunctionBackend
from shared.adapters.onnx.package import OnnxPackage
from shared.adapters.onnx.reader import OnnxPackageReader
from shared.adapters.onnx.runtime import RunOptions
from shared.adapters.package_cache import PackageCache
from shared.adapters.pipeline_package import PipelinePackageReader
from shared.adapters.pipeline_runner import PipelinePackages
from shared.domain.errors import BackendError, BackendTimeout, DigestMismatch, InvalidPackage, InvalidRequest
from shared.domain.model import ModelVersion
from shared.domain.ports import InferenceContext
from shared.domain.tensors import Array, Tensors, bytes_tensor
from shared.usecases.publish_model import PublishModel
from tests.fakes import InMemoryModels, InMemoryPackages
from tests.models import biased_model, gather_model, identity_model, manifest, slow_model, tensor, write_package
from tests.pipelines import flow_document, pipeline_document, step, write_pipeline, write_steps, write_text_flow

CONTEXT = InferenceContext("request", "tenant", 60_000)


class House:
    """A registry and a store with everything published, and packages that are loaded as a function loads them."""

    def __init__(self, folder: Path, max_bytes: int = 1 << 20) -> None:
        self.models = InMemoryModels()
        self.store = InMemoryPackages()
        self.loaded: list[str] = []
        self.runs: list[tuple[str, tuple[str, ...]]] = []
        self._folder = folder
        self.cache = PackageCache[OnnxPackage](self.store, folder / "cache", max_bytes, self._load)
        self.packages = PipelinePackages(self.cache, self.models.get, max_bytes=max_bytes)
        self.backend = FunctionBackend(self.packages)

    def publish(self, folder: Path) -> ModelVersion:
        readers = OnnxPackageReader(), PipelinePackageReader()
        return PublishModel(self.models, self.store, readers[0], pipelines=readers[1])(folder).version

    def compose(self, **document: object) -> ModelVersion:
        return self.publish(write_pipeline(self._folder / str(document["name"]), document))

    def infer(self, version: ModelVersion, **inputs: Array) -> Tensors:
        return self.backend.infer(version, inputs, CONTEXT)

    def _load(self, folder: Path, version: ModelVersion) -> OnnxPackage:
        self.loaded.append(version.model)
        package = _Noted.load(folder, threads=1, name=version.model, version=version.version)
        package.notes = self.runs
        return package


class _Noted(OnnxPackage):
    """A package that notes what is asked of it."""

    notes: list[tuple[str, tuple[str, ...]]]

    def run(self, inputs, outputs=(), **more):  # type: ignore[no-untyped-def]
        self.notes.append((self.manifest.name, tuple(outputs)))
        return super().run(inputs, outputs, **more)


@pytest.fixture
def house(tmp_path: Path) -> House:
    steps = tmp_path / "steps"
    write_steps(steps)
    write_text_flow(steps)
    column = [tensor("x", "FP32", [-1, 1])], [tensor("y", "FP32", [-1, 1])]
    write_package(steps / "slow/1", slow_model(), manifest("slow", 1, *column))
    rows = [tensor("x", "INT64", [-1])], [tensor("y", "FP32", [-1, 2])]
    write_package(steps / "gather/1", gather_model(), manifest("gather", 1, *rows))
    whole = [tensor("x", "INT64", [-1])], [tensor("y", "INT64", [-1])]
    write_package(steps / "whole/1", identity_model("INT64", ["n"]), manifest("whole", 1, *whole))  # type: ignore[arg-type]
    biased = [tensor("x", "FP32", [-1, 2]), tensor("bias", "FP32", [2], optional=True)]
    document = manifest("biased", 1, biased, [tensor("y", "FP32", [-1, 2])])
    write_package(steps / "biased/1", biased_model(), document)
    made = House(tmp_path)
    for package in sorted(steps.glob("*/1"), key=lambda path: path.parent.name == "words"):
        made.publish(package)
    return made


def test_the_numbers_are_those_of_the_steps(house: House) -> None:
    flow = house.compose(**flow_document())
    x = np.array([[1, 2, 3], [9, 2, 3]], dtype=np.float32)
    answer = house.infer(flow, values=x)
    assert list(answer) == ["label", "shifted"]
    assert list(answer["label"]) == [b"c", b"a"]
    np.testing.assert_array_equal(answer["shifted"], x + 11)
    by_hand = x
    for name, read in (("pre", "y"), ("labels", "scores"), ("post", "y")):
        by_hand = house.cache.get(house.models.get(name, 1)).run({"x": by_hand})[read]
    np.testing.assert_array_equal(answer["shifted"], by_hand)
    words = house.infer(house.models.get("words", 1), text=bytes_tensor([b"one two", b"three"]))
    np.testing.assert_array_equal(words["pooled"], [[5, 1], [6, 1]])


def test_only_what_is_needed_of_each_step_is_asked_for(house: House) -> None:
    flow = house.compose(**flow_document())
    x = np.zeros((1, 3), np.float32)
    house.infer(flow, values=x)
    assert house.runs == [("pre", ("y",)), ("labels", ("label", "scores")), ("post", ("y",))]
    house.runs.clear()
    assert list(house.packages.get(flow).run({"values": x}, ("label",))) == ["label"]
    assert house.runs == [("pre", ("y",)), ("labels", ("label",))]


def test_a_package_is_loaded_once_for_all_that_need_it(house: House) -> None:
    flow = house.compose(**flow_document())
    other = house.compose(**flow_document(name="other"))
    assert not house.packages.ready(flow)
    for version in (flow, other, flow):
        house.infer(version, values=np.zeros((1, 3), np.float32))
    house.infer(house.models.get("labels", 1), x=np.zeros((1, 3), np.float32))
    assert sorted(house.loaded) == ["labels", "post", "pre"]
    assert house.packages.ready(flow)
    assert house.packages.ready(house.models.get("pre", 1))
    assert house.cache.used_bytes == sum(house.models.get(name, 1).size for name in ("pre", "labels", "post"))


def test_the_registry_is_asked_for_the_steps_once(house: House) -> None:
    flow = house.compose(**flow_document())
    house.infer(flow, values=np.zeros((1, 3), np.float32))
    asked = house.models.calls
    house.infer(flow, values=np.zeros((1, 3), np.float32))
    assert house.models.calls == asked


def test_an_optional_input_is_left_out_where_the_caller_leaves_it_out(house: House) -> None:
    document = pipeline_document([step("biased", {"x": "x", "bias": "b"})], {"y": "biased.y"}, name="optional")
    version = house.compose(**document)
    x = np.zeros((1, 2), np.float32)
    np.testing.assert_array_equal(house.infer(version, x=x)["y"], [[1, 1]])
    np.testing.assert_array_equal(house.infer(version, x=x, b=np.array([2, 3], np.float32))["y"], [[2, 3]])


def test_a_step_with_another_digest_or_none_is_refused(house: House) -> None:
    flow = house.compose(**flow_document())
    pre = house.models.get("pre", 1)
    resolved = {"pre": replace(pre, digest="0" * 64)}
    packages = PipelinePackages(
        house.cache, lambda model, version: resolved.get(model) or house.models.get(model, version), max_bytes=1 << 20
    )
    with pytest.raises(DigestMismatch, match=r"Step 'pre' \(pre version 1\) is not the one that the pipeline was"):
        packages.get(flow)
    with pytest.raises(DigestMismatch, match="is not published any more"):
        PipelinePackages(house.cache, InMemoryModels().get, max_bytes=1 << 20).get(flow)
    assert house.loaded == []


def test_a_damaged_step_is_refused(house: House) -> None:
    flow = house.compose(**flow_document())
    house.store.objects["models/post/1/model.onnx"] += b"x"
    with pytest.raises(DigestMismatch):
        house.infer(flow, values=np.zeros((1, 3), np.float32))


def test_steps_that_cannot_be_in_memory_together_are_refused(house: House) -> None:
    flow = house.compose(**flow_document())
    packages = PipelinePackages(house.cache, house.models.get, max_bytes=500)
    with pytest.raises(InvalidPackage, match=r"have \d+ bytes together, and packages in a function may have 500"):
        packages.get(flow)


def test_what_a_step_refuses_of_another_is_the_pipelines_failure(house: House) -> None:
    flow = house.compose(**flow_document())
    with pytest.raises(BackendError, match=r"Step 'post' \(post version 1\) cannot work with what the steps before it"):
        house.infer(flow, values=np.full((1, 3), 100, np.float32))
    fetch = house.compose(
        **pipeline_document(
            [step("whole", {"x": "x"}), step("gather", {"x": "whole.y"})], {"y": "gather.y"}, name="fetch"
        )
    )
    np.testing.assert_array_equal(house.infer(fetch, x=np.array([2]))["y"], [[4, 5]])
    with pytest.raises(BackendError, match=r"'gather' \(gather version 1\)"):
        house.infer(fetch, x=np.array([7]))


def test_what_the_caller_gave_stays_the_callers_fault(house: House) -> None:
    version = house.models.get("words", 1)
    with pytest.raises(InvalidRequest, match=r"Step 'texts' \(texts version 1\)"):
        house.infer(version, text=bytes_tensor([b"\xff"]))


def test_the_deadline_ends_a_run_in_and_between_steps(house: House) -> None:
    steps = [step("slow", {"x": "x"}), step("slow", {"x": "slow.y"}, name="again")]
    twice = house.compose(**pipeline_document(steps, {"y": "again.y"}, name="twice"))
    house.infer(twice, x=np.ones((1, 1), np.float32))
    with pytest.raises(BackendTimeout):
        house.backend.infer(twice, {"x": np.array([[300_000_000]], np.float32)}, replace(CONTEXT, deadline_ms=100))
    house.runs.clear()
    options = RunOptions()
    options.terminate = True
    with pytest.raises(BackendTimeout, match=r"before the step 'slow' \(slow version 1\) began"):
        house.packages.get(twice).run({"x": np.ones((1, 1), np.float32)}, options=options)
    assert house.runs == []

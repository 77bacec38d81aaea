"""The way onto the GPU, walked on the CPU provider; and the options that the GPU's providers get."""

from pathlib import Path

import numpy as np
import pytest

from gpu_service.execution.buffers import Device
from gpu_service.execution.gpu import open_gpu
from gpu_service.execution.loaded_model import LoadedModel, load_model
from gpu_service.execution.options import CUDA, TENSORRT, ExecutionOptions, TensorRtOptions
from gpu_service.execution.providers import profile_for, profile_of, provider_options
from gpu_service.models.served_model import ModelKey
from shared.adapters.onnx.session import CPU
from shared.domain.dtypes import DType
from shared.domain.serving import ServingPolicy
from tests.codecs.signatures import spec, takes
from tests.models import add_model, gather_model, manifest, matmul_model, sum_model, tensor, text_package, write_package

F = np.float32
KEY = ModelKey("m", 1)
GRAPHS = ExecutionOptions(cuda_graphs=True, row_buckets=(1, 4, 64))


def on_cpu(folder: Path, options: ExecutionOptions = GRAPHS) -> LoadedModel:
    return load_model(folder, KEY, options, device=Device())


def test_batches_go_through_buckets(tmp_path: Path) -> None:
    weights = np.eye(3, dtype=F)[::-1].copy()
    model = on_cpu(write_package(tmp_path, matmul_model(weights)))
    assert (model.device, model.instances, model.has_wide) == ("gpu", 1, False)
    assert model.warm_up().keys() >= {1, 4, 64}
    for rows in (1, 3, 4, 65, 2):
        x = np.random.default_rng(rows).random((rows, 3), dtype=F)
        np.testing.assert_array_equal(model.run({"x": x})["y"], x[:, ::-1])


def test_buckets_end_at_the_largest_batch(tmp_path: Path) -> None:
    document = manifest("m", 1, [tensor("x", "FP32", [-1, 2])], [tensor("y", "FP32", [-1, 2])], max_batch=4)
    gpu = open_gpu(write_package(tmp_path, add_model(), document), KEY, GRAPHS, Device())
    assert gpu.bound.buckets == (1, 4)
    document["serving"] = {"batching": {"max_rows": 3}}
    gpu = open_gpu(write_package(tmp_path, add_model(), document), KEY, GRAPHS, Device())
    assert gpu.bound.buckets == (1,)


def test_without_graphs_there_are_no_buckets(tmp_path: Path) -> None:
    model = on_cpu(write_package(tmp_path, add_model()), ExecutionOptions())
    assert model.instances == 2
    assert model.warm_up().keys() == {1, 16}
    np.testing.assert_array_equal(model.run({"x": np.ones((3, 2), F)})["y"], np.full((3, 2), 2))


def test_a_graph_of_varying_shapes_runs_without_capture(tmp_path: Path) -> None:
    model = on_cpu(write_package(tmp_path, sum_model()))
    assert model.instances == 2
    np.testing.assert_array_equal(
        model.run({"a": np.ones((1, 5), F), "b": np.ones((1, 5), F)}, ("difference",))["difference"], np.zeros((1, 5))
    )


def test_a_graph_that_cannot_be_captured_runs_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    document = manifest(
        "m", 1, [tensor("x", "INT64", [-1])], [tensor("y", "FP32", [-1, 3])]
    )  # the graph gives two columns: no run succeeds
    with pytest.raises(Exception, match="shape"):
        open_gpu(write_package(tmp_path, gather_model(), document), KEY, GRAPHS, Device())
    document["signature"]["outputs"] = [tensor("y", "FP32", [-1, -1], classes=["a", "b", "c"])]
    gpu = open_gpu(write_package(tmp_path, gather_model(), document), KEY, GRAPHS, Device())
    assert gpu.bound.buckets == ()
    assert "runs without" in caplog.text


def test_packages_with_text(tmp_path: Path) -> None:
    model = on_cpu(text_package(tmp_path / "texts/1"))
    assert 1 in model.warm_up()


def test_options_of_cuda() -> None:
    options = ExecutionOptions(providers=(CUDA, CPU), device_id=1, gpu_mem_limit=1 << 30, tf32=False)
    cuda, cpu = provider_options(options, graphs=False, steady=False, profile=None)
    assert cpu == {}
    assert cuda["device_id"] == "1"
    assert cuda["gpu_mem_limit"] == str(1 << 30)
    assert cuda["arena_extend_strategy"] == "kSameAsRequested"
    assert (cuda["cudnn_conv_algo_search"], cuda["enable_cuda_graph"], cuda["use_tf32"]) == ("HEURISTIC", "0", "0")
    (cuda,) = provider_options(ExecutionOptions(providers=(CUDA,)), graphs=True, steady=True, profile=None)
    assert (cuda["cudnn_conv_algo_search"], cuda["enable_cuda_graph"], cuda["use_tf32"]) == ("EXHAUSTIVE", "1", "1")
    assert "gpu_mem_limit" not in cuda


def test_options_of_tensorrt(tmp_path: Path) -> None:
    options = ExecutionOptions(
        providers=(TENSORRT, CUDA), cache_dir=tmp_path, tensorrt=TensorRtOptions(fp16=True, workspace_bytes=1 << 28)
    )
    profile = profile_of([{"x": (8, 3)}, {"x": (1, 3)}, {"x": (4, 3)}])
    tensorrt, cuda = provider_options(options, graphs=False, steady=True, profile=profile)
    assert cuda["do_copy_in_default_stream"] == "1"
    assert tensorrt["trt_fp16_enable"] == "1"
    assert tensorrt["trt_max_workspace_size"] == str(1 << 28)
    assert tensorrt["trt_engine_cache_path"] == tensorrt["trt_timing_cache_path"] == str(tmp_path)
    shapes = [tensorrt[f"trt_profile_{kind}_shapes"] for kind in ("min", "opt", "max")]
    assert shapes == ["x:1x3", "x:4x3", "x:8x3"]


def test_profiles_cover_all_that_is_declared() -> None:
    assert profile_of([]) is None
    assert profile_of([{"a": (1, 9), "b": (1,)}, {"a": (4, 2), "b": (4,)}]) == (
        {"a": (1, 2), "b": (1,)},
        {"a": (4, 2), "b": (4,)},
        {"a": (4, 9), "b": (4,)},
    )
    assert profile_of([{"a": (1,)}, {"b": (1,)}]) is None


def test_a_profile_of_rows_alone_goes_up_to_the_largest_batch() -> None:
    signature = takes(spec("x", DType.FP32, (None, 3)), max_batch=64)
    assert profile_for(signature, ServingPolicy()) == ({"x": (1, 3)}, {"x": (16, 3)}, {"x": (64, 3)})
    assert profile_for(signature, ServingPolicy(max_rows=8)) == ({"x": (1, 3)}, {"x": (8, 3)}, {"x": (8, 3)})
    varying = takes(spec("x", DType.FP32, (None, None)))
    assert profile_for(varying, ServingPolicy()) is None
    declared = ServingPolicy(warm_up=({"x": (2, 5)},))
    assert profile_for(varying, declared) == ({"x": (2, 5)}, {"x": (2, 5)}, {"x": (2, 5)})
    assert profile_for(takes(spec("x", DType.FP32, (2, 3)), batched=False), ServingPolicy()) is None
    assert profile_for(takes(spec("a", DType.FP32, (None,)), spec("x", DType.FP32, (None, None))), declared) is None


def test_the_options_know_a_gpu() -> None:
    assert ExecutionOptions(providers=(TENSORRT, CUDA)).on_gpu
    assert not ExecutionOptions().on_gpu

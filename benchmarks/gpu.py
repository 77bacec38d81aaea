"""The GPU path against a raw loop with I/O binding: `python -m benchmarks.gpu [--cpu] [--tensorrt]`.

Both take a batch from the host's memory to host memory through buffers that are kept, on the same provider with the
same options. Ours is `LoadedModel.run`, with its checks; the raw loop is what a user would write by hand.
Every answer is compared with the CPU's first. Ways are interleaved in every round; ratios are made within a round.
Writes `build/bench/gpu.{json,md}`. Ends with 0 if the target is reached, 1 if it is not, 2 if there is no CUDA here.
`--cpu` walks the same code on the CPU provider, where figures say little.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from threading import Barrier, Thread
from time import perf_counter

import numpy as np

from benchmarks.generator import OUT
from benchmarks.models import build, path_of
from gpu_service.execution.buffers import Device
from gpu_service.execution.loaded_model import LoadedModel, load_model
from gpu_service.execution.options import CUDA, TENSORRT, ExecutionOptions
from gpu_service.execution.providers import provider_options
from gpu_service.models.served_model import ModelKey
from shared.adapters.onnx.runtime import ort
from shared.adapters.onnx.session import CPU, create_session
from shared.domain.signature import Signature
from shared.domain.tensors import NUMPY_DTYPES, Array

MODELS = ("mlp", "encoder", "resnet")
ROWS = (1, 8, 32)
CALLERS = (1, 2)
SEQUENCE = 32
TARGET = 0.95
_HIGHEST_ID = 1000
# Convolutions on tensor cores round to TF32's ten bits; what is wrong is wrong by far more.
_TOLERANCE = {True: 2e-2, False: 1e-4}

Batch = dict[str, Array]
Run = Callable[[Batch], Sequence[Array]]


@dataclass(frozen=True)
class Plan:
    """What is measured: `seconds` for each way in each of `rounds`."""

    models: tuple[str, ...]
    rows: tuple[int, ...]
    callers: tuple[int, ...]
    seconds: float
    rounds: int
    options: ExecutionOptions
    device: Device


@dataclass(frozen=True)
class Figure:
    """Rows a second of one way, the median of the rounds, and its share of the raw loop's with its spread."""

    model: str
    rows: int
    callers: int
    way: str
    rows_per_s: float
    of_raw: float
    lowest: float
    highest: float


class RawLoop:
    """`session.run_with_iobinding` on buffers that were allocated once, for batches of one shape."""

    def __init__(self, session: ort.InferenceSession, device: Device, batch: Batch, outputs: dict[str, Array]) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._inputs = {name: _buffer(array, device) for name, array in batch.items()}
        self._outputs = {name: _buffer(array, device) for name, array in outputs.items()}
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def __call__(self, batch: Batch) -> Sequence[Array]:
        """The outputs of a batch."""
        for name, value in self._inputs.items():
            value.update_inplace(batch[name])
        self._session.run_with_iobinding(self._binding)
        # A buffer on the CPU is shown, not copied.
        return [np.array(value.numpy()) for value in self._outputs.values()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the report; the exit status."""
    chosen = _parse(arguments)
    wanted = (CPU,) if chosen.cpu else (TENSORRT, CUDA) if chosen.tensorrt else (CUDA,)
    missing = set(wanted) - set(ort.get_available_providers())
    if missing:
        print(
            f"This needs {', '.join(sorted(missing))}, which this build of ONNX Runtime does not have: install "
            "onnxruntime-gpu on a machine with CUDA, or give --cpu to walk the same code without one.",
            file=sys.stderr,
        )
        return 2
    device = Device() if chosen.cpu else Device("cuda")
    options = ExecutionOptions(providers=wanted, row_buckets=tuple(sorted(chosen.rows)))
    plan = Plan(
        tuple(chosen.models),
        tuple(chosen.rows),
        tuple(chosen.callers),
        chosen.seconds,
        chosen.rounds,
        options,
        device,
    )
    build(plan.models)
    figures = [figure for model in plan.models for figure in _measure(model, plan)]
    reached = all(figure.of_raw >= TARGET for figure in figures if figure.way == "ours")
    _write(figures, wanted, reached=reached, out=chosen.out)
    return 0 if reached or chosen.cpu else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="on the CPU provider")
    parser.add_argument("--tensorrt", action="store_true", help="TensorRT before CUDA")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--rows", nargs="+", type=int, default=list(ROWS), help="rows of a batch")
    parser.add_argument(
        "--callers", nargs="+", type=int, default=list(CALLERS), help="threads that run batches at once"
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="for each way in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args(arguments)


def _measure(name: str, plan: Plan) -> list[Figure]:
    path = path_of(name)
    key = ModelKey(name, 1)
    raw = create_session(
        path,
        threads=1,
        providers=plan.options.providers,
        provider_options=provider_options(plan.options, graphs=False, steady=False, profile=None),
    )
    reference = load_model(path.parent, key, ExecutionOptions())
    ours = {
        "ours": load_model(path.parent, key, plan.options, device=plan.device),
        "ours, graphs": load_model(path.parent, key, replace(plan.options, cuda_graphs=True), device=plan.device),
    }
    figures: list[Figure] = []
    for rows in plan.rows:
        batches = _batches(reference.signature, rows)
        expected = [dict(reference.run(batch)) for batch in batches]
        for callers in plan.callers:
            loops: list[RawLoop] = [RawLoop(raw, plan.device, batches[0], expected[0]) for _ in range(callers)]
            ways: dict[str, list[Run]] = {"raw": list(loops)}
            ways |= {way: [_runner(model)] * callers for way, model in ours.items()}
            for way, runs in ways.items():
                for batch, wanted in zip(batches, expected, strict=True):
                    _check(f"{name}, {way}, {rows} rows", runs[0](batch), wanted, on_cpu=plan.device.kind == "cpu")
            figures += _compare(name, rows, callers, ways, batches, plan)
    for model in (reference, *ours.values()):
        model.close()
    return figures


def _compare(
    name: str, rows: int, callers: int, ways: dict[str, list[Run]], batches: list[Batch], plan: Plan
) -> list[Figure]:
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(plan.rounds):
        order = list(ways) if number % 2 == 0 else list(reversed(ways))
        for way in order:
            rates[way].append(rows * _runs_per_second(ways[way], batches, plan.seconds))
    figures = []
    for way, found in rates.items():
        shares = [ours / raw for ours, raw in zip(found, rates["raw"], strict=True)]
        figures.append(Figure(name, rows, callers, way, median(found), median(shares), min(shares), max(shares)))
        print(f"{name:8} rows {rows:3} callers {callers} {way:13} {median(found):10.0f} rows/s {median(shares):6.1%}")
    return figures


def _runs_per_second(runs: list[Run], batches: list[Batch], seconds: float) -> float:
    """Of all callers together, each in a thread of its own."""
    counts = [0] * len(runs)
    start_together = Barrier(len(runs))
    spans = [0.0] * len(runs)

    def call(caller: int) -> None:
        run = runs[caller]
        start_together.wait()
        start = perf_counter()
        while (now := perf_counter()) < start + seconds or not counts[caller]:
            run(batches[counts[caller] % len(batches)])
            counts[caller] += 1
        spans[caller] = now - start

    threads = [Thread(target=call, args=(caller,)) for caller in range(len(runs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(count / span for count, span in zip(counts, spans, strict=True) if span)


def _runner(model: LoadedModel) -> Run:
    return lambda batch: list(model.run(batch).values())


def _batches(signature: Signature, rows: int, number: int = 4) -> list[Batch]:
    """Distinct batches; axes of any size but the rows have `SEQUENCE`."""
    rng = np.random.default_rng(rows)
    batches: list[Batch] = []
    for _ in range(number):
        batch: Batch = {}
        for spec in signature.inputs:
            shape = (rows, *(SEQUENCE if dim is None else dim for dim in spec.shape[1:]))
            dtype = NUMPY_DTYPES[spec.dtype]
            if spec.name == "attention_mask":
                batch[spec.name] = np.ones(shape, dtype)
            elif spec.dtype.is_integer:
                batch[spec.name] = rng.integers(0, _HIGHEST_ID, shape).astype(dtype)
            else:
                batch[spec.name] = rng.standard_normal(shape).astype(dtype)
        batches.append(batch)
    return batches


def _check(what: str, given: Sequence[Array], wanted: dict[str, Array], *, on_cpu: bool) -> None:
    """SystemExit if a way does not give what the CPU gives: its speed would say nothing."""
    tolerance = _TOLERANCE[not on_cpu]
    for (name, expected), array in zip(wanted.items(), given, strict=True):
        scale = float(np.abs(expected).max()) or 1.0
        if array.shape != expected.shape or float(np.abs(array - expected).max()) > tolerance * scale:
            raise SystemExit(f"{what}: the output {name!r} is not what the CPU gives")


def _buffer(array: Array, device: Device) -> ort.OrtValue:
    return ort.OrtValue.ortvalue_from_shape_and_type(array.shape, array.dtype.type, device.kind, device.number)


def _write(figures: list[Figure], providers: tuple[str, ...], *, reached: bool, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    machine = {"platform": platform.platform(), "onnxruntime": ort.__version__, "providers": list(providers)}
    document = {"machine": machine, "target": TARGET, "reached": reached, "figures": [asdict(each) for each in figures]}
    (out / "gpu.json").write_text(json.dumps(document, indent=2) + "\n")
    lines = [
        f"# The GPU path against a raw loop with I/O binding: {', '.join(providers)}",
        "",
        f"Target: ours at {TARGET:.0%} of the raw loop or better: {'reached' if reached else 'not reached'}.",
        "",
        "| model | rows | callers | way | rows/s | of the raw loop (lowest–highest round) |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {each.model} | {each.rows} | {each.callers} | {each.way} | {each.rows_per_s:.0f} "
        f"| {each.of_raw:.1%} ({each.lowest:.1%}–{each.highest:.1%}) |"
        for each in figures
    ]
    (out / "gpu.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())

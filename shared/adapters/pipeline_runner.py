"""Runs pipelines in this process, on the packages that single models use too.

A step's package is loaded once, however many pipelines name it, and is counted and evicted like any other. What goes
from step to step are the arrays themselves.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING, Final, Protocol

from shared.adapters.onnx.outputs import Output
from shared.domain.errors import BackendTimeout, DigestMismatch, InvalidPackage, NotFound, SluiceError
from shared.domain.input_checker import InputChecker
from shared.domain.model import ModelVersion
from shared.domain.pipeline import Pipeline, Plan, Step, inputs_of, locate_in, outputs_of, plan_of, step_error
from shared.domain.tensors import Array, Tensors
from shared.domain.validation import Inputs, check_values, locate_by_name

if TYPE_CHECKING:
    from shared.adapters.onnx.runtime import RunOptions

Resolve = Callable[[str, int], ModelVersion]
"""Model and version to the registry's entry; raises NotFound and BackendError."""

_KEPT: Final = 64
_LOADS: Final = 4


class StepPackage(Protocol):
    """A loaded package that can give some of its outputs; see `shared.adapters.onnx.package.OnnxPackage`."""

    def run(self, inputs: Tensors, outputs: Sequence[str] = (), *, options: "RunOptions | None" = None) -> Tensors:
        """Outer inputs to the named outer outputs (none: all); raises InvalidRequest, BackendError."""


class StepPackages(Protocol):
    """Where loaded packages come from; see `shared.adapters.package_cache.PackageCache`."""

    def get(self, version: ModelVersion) -> StepPackage:
        """The loaded package of a version."""

    def ready(self, version: ModelVersion) -> bool:
        """Whether `get` would return at once."""


class PipelinePackages:
    """Implements `shared.adapters.function_backend.Packages`: packages as they come from `packages`, and pipelines.

    `resolve` finds the steps in the registry; they are asked for once for each pipeline. The packages of one pipeline
    have at most `max_bytes` together, as those that can be loaded at once have. Safe for threads.
    """

    def __init__(self, packages: StepPackages, resolve: Resolve, *, max_bytes: int) -> None:
        self._packages = packages
        self._resolve = resolve
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._wired: OrderedDict[str, _Wiring] = OrderedDict()

    def get(self, version: ModelVersion) -> "StepPackage":
        """The loaded package, or the pipeline with all of its steps loaded.

        Raises what `packages` raises, DigestMismatch if a step is not the one that the pipeline was published with,
        InvalidPackage if the steps are too large to be in memory together, BackendError.
        """
        if version.pipeline is None:
            return self._packages.get(version)
        wiring = self._wiring(version, version.pipeline)
        return _LoadedPipeline(wiring, self._load(wiring))

    def ready(self, version: ModelVersion) -> bool:
        """Whether `get` would return at once."""
        if version.pipeline is None:
            return self._packages.ready(version)
        with self._lock:
            wiring = self._wired.get(version.digest)
        return wiring is not None and all(map(self._packages.ready, wiring.versions.values()))

    def _wiring(self, version: ModelVersion, pipeline: Pipeline) -> "_Wiring":
        with self._lock:
            known = self._wired.get(version.digest)
            if known is not None:
                self._wired.move_to_end(version.digest)
                return known
        wiring = _Wiring(version, pipeline, {step.name: self._version(step) for step in pipeline.steps})
        size = sum({step.digest: step.size for step in wiring.versions.values()}.values())
        if size > self._max_bytes:
            raise InvalidPackage(
                f"The steps of {version.model} version {version.version} have {size} bytes together, and packages in a "
                f"function may have {self._max_bytes}: place them in the container."
            )
        with self._lock:
            self._wired[version.digest] = wiring
            while len(self._wired) > _KEPT:
                self._wired.popitem(last=False)
        return wiring

    def _version(self, step: Step) -> ModelVersion:
        label = step.label[0].upper() + step.label[1:]
        try:
            version = self._resolve(step.model, step.version)
        except NotFound as error:
            raise DigestMismatch(f"{label} is not published any more: {error.detail}") from error
        if version.digest != step.digest:
            raise DigestMismatch(f"{label} is not the one that the pipeline was published with.")
        return version

    def _load(self, wiring: "_Wiring") -> Mapping[str, StepPackage]:
        """The steps' packages, those that are not here yet side by side: the first request waits for the longest."""
        versions = wiring.versions
        missing = {step.digest: step for step in versions.values() if not self._packages.ready(step)}
        if len(missing) > 1:
            with ThreadPoolExecutor(min(len(missing), _LOADS), "step-load") as pool:
                for loading in [pool.submit(self._packages.get, step) for step in missing.values()]:
                    loading.result()
        return {name: self._packages.get(step) for name, step in versions.items()}


class _Wiring:
    """What is the same for every run of a pipeline."""

    __slots__ = ("checkers", "outputs", "pipeline", "plan", "rows_of", "versions")

    def __init__(self, version: ModelVersion, pipeline: Pipeline, versions: Mapping[str, ModelVersion]) -> None:
        signature = version.signature
        self.pipeline = pipeline
        self.versions = versions
        self.plan = plan_of(pipeline)
        self.checkers = {name: InputChecker(step.signature) for name, step in versions.items()}
        self.outputs = {spec.name: Output(spec, spec.name) for spec in signature.outputs}
        self.rows_of = signature.required[0].name if signature.batched else None


class _LoadedPipeline:
    """A pipeline whose steps are loaded: runs like a package. It keeps them for as long as it is kept."""

    def __init__(self, wiring: _Wiring, packages: Mapping[str, StepPackage]) -> None:
        self._wiring = wiring
        self._packages = packages

    def run(
        self, inputs: Tensors, outputs: Sequence[str] = (), *, options: "RunOptions | None" = None
    ) -> dict[str, Array]:
        """As `OnnxPackage.run`; only the steps and outputs that are needed are run, and errors name their step."""
        wiring = self._wiring
        plan: Plan = plan_of(wiring.pipeline, outputs) if outputs else wiring.plan
        results: dict[str, Tensors] = {}
        for planned in plan:
            if options is not None and options.terminate:
                raise BackendTimeout(f"The deadline passed before the {planned.step.label} began.")
            try:
                given = self._given(planned.step, inputs, results)
                results[planned.step.name] = self._packages[planned.step.name].run(
                    given, planned.outputs, options=options
                )
            except SluiceError as error:
                raise step_error(planned.step, error) from error
        found = outputs_of(wiring.pipeline, outputs, results)
        rows = None if wiring.rows_of is None else len(inputs[wiring.rows_of])
        for name, array in found.items():
            wiring.outputs[name].check(array, rows)
        return found

    def _given(self, step: Step, inputs: Tensors, results: Mapping[str, Tensors]) -> Tensors:
        """A step's inputs, checked: earlier steps promise shapes, and nobody promises their values."""
        checker = self._wiring.checkers[step.name]
        locate = locate_in(step, locate_by_name)
        given = checker(Inputs(inputs_of(step, inputs, results), locate))
        if not step.takes_outer_only and not checker.values_fit(given):
            check_values(given, checker.signature, locate)
        return given

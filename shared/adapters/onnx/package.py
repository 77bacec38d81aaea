"""A model package in memory: outer tensors in, outer tensors out."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import orjson
from pydantic import ValidationError

from shared.adapters.onnx.agreement import check_agreement
from shared.adapters.onnx.execution import Execution, Runner
from shared.adapters.onnx.graph import read_signature, zeros
from shared.adapters.onnx.outputs import ContractBroken, OutputPlan, outputs_of
from shared.adapters.onnx.runtime import InferenceSession, RunOptions
from shared.adapters.onnx.session import CPU, create_session
from shared.adapters.onnx.steps.image import ImageDecoder
from shared.adapters.onnx.steps.tokenize import TextTokenizer
from shared.codecs.json_documents import JsonLimits
from shared.codecs.json_tensors import decode_instances
from shared.domain.errors import BackendError, InvalidPackage, InvalidRequest
from shared.domain.signature import Content, Signature, TensorSpec
from shared.domain.tensors import Array, Tensors
from shared.domain.validation import conform
from shared.schemas.explain import explain
from shared.schemas.manifest import ImageStep, Manifest, SignatureDocument

MODEL_FILE = "model.onnx"
MANIFEST_FILE = "manifest.json"
MAX_MANIFEST_BYTES = 4 * 1024 * 1024

_Preprocess = Callable[[Array], Tensors]


class OnnxPackage:
    """A loaded package; `run` may be called from several threads at once."""

    def __init__(self, manifest: Manifest, execution: Execution, folder: Path) -> None:
        """Join a manifest and its graph; InvalidPackage if they do not agree."""
        self.manifest = manifest
        self.signature: Signature = manifest.signature.to_signature()
        self.execution = execution
        check_agreement(manifest, self.signature, execution)
        self._preprocess = _preprocessors(manifest, self.signature, folder)
        self._outputs = outputs_of(manifest, self.signature)
        self._all = OutputPlan([self._outputs[name] for name in self.signature.output_names])
        self._states = manifest.serving_policy().state
        # A required input tells the rows; a signature has one.
        self._rows_of = self.signature.required[0].name if self.signature.batched else None

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        threads: int,
        providers: tuple[str, ...] = (CPU,),
        name: str | None = None,
        version: int | None = None,
    ) -> Self:
        """Load `model.onnx` and `manifest.json` from `folder`.

        Without a manifest the signature is the graph's own; `name` and `version` are then those given, else read from
        a folder called `<name>/<version>`. Raises InvalidPackage, and ProviderNotLoaded.
        """
        path = model_file(folder)
        return cls.of(create_session(path, threads=threads, providers=providers), folder, name=name, version=version)

    @classmethod
    def of(
        cls, session: InferenceSession, folder: Path, *, name: str | None = None, version: int | None = None
    ) -> Self:
        """As `load`, with a session of the package's graph that is there already."""
        manifest = read_manifest(folder)
        if manifest is None:
            # Who publishes names by the manifest's rules; a folder's name, or an endpoint's, is taken as it is.
            manifest = bare_manifest("model", version or folder.name, read_signature(session))
            manifest = manifest.model_copy(update={"name": name or folder.parent.name})
        return cls(manifest, Execution(session), folder)

    def run(
        self,
        inputs: Tensors,
        outputs: Sequence[str] = (),
        *,
        runner: Runner | None = None,
        options: RunOptions | None = None,
    ) -> dict[str, Array]:
        """Run the model on outer tensors that conform to the signature; `outputs` selects some (empty: all).

        Rows come back in the order in which they were given. A model's recurrent state goes in and out by the names of
        its graph: it begins with zeros where it is left out, and only those get it that ask for it. `runner` runs the
        same graph in place of this package's session; `options` go to ONNX Runtime, and setting their `terminate` stops
        the run. Raises BadImage, ImageTooLarge and WrongDtype with the pointer `/instances/<row>`, InvalidRequest for
        values that the graph refuses, BackendError if the model fails, RunTerminated.
        """
        feeds = self._feeds(inputs) if self._preprocess or self._states else inputs
        plan = self._all if not outputs else OutputPlan([self._outputs[name] for name in outputs])
        results = (runner or self.execution).run(plan.sources, feeds, options)
        if plan.labelled:
            results = {
                output.spec.name: output.label(results[output.source]) if output.label else results[output.source]
                for output in plan.outputs
            }
        rows = None if self._rows_of is None else len(inputs[self._rows_of])
        for output in plan.outputs:
            output.check(results[output.spec.name], rows)
        return results

    def _feeds(self, inputs: Tensors) -> Tensors:
        feeds: dict[str, Array] = {}
        for name, array in inputs.items():
            preprocess = self._preprocess.get(name)
            if preprocess:
                feeds.update(preprocess(array))
            else:
                feeds[name] = array
        for state in self._states:
            if state.input not in feeds:
                rows = len(inputs[self._rows_of]) if self._rows_of is not None else 1
                sizes = tuple(rows if dim is None else dim for dim in state.shape)
                feeds[state.input] = zeros(state.dtype, sizes, rows)
        return feeds

    def warm_up(self) -> bool:
        """One run, on the manifest's example or else on zeros; False if the graph refuses zeros, which proves nothing.

        InvalidPackage if the model cannot predict its own example.
        """
        if self.manifest.example is None:
            try:
                self.run(_example(self.signature))
            except ContractBroken as error:
                raise InvalidPackage(error.detail) from error
            except (InvalidRequest, BackendError):
                return False
            return True
        try:
            body = orjson.dumps({"instances": [self.manifest.example]})
            self.run(conform(decode_instances(body, self.signature, JsonLimits()), self.signature))
        except (InvalidRequest, BackendError) as error:
            raise InvalidPackage(f"The model cannot predict the example of its manifest: {error.detail}") from error
        return True


def model_file(folder: Path) -> Path:
    """The package's graph; InvalidPackage if there is none."""
    path = folder / MODEL_FILE
    if not path.is_file():
        raise InvalidPackage(f"The package has no {MODEL_FILE}.")
    return path


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a package, None if it has none; InvalidPackage says which fields are wrong."""
    path = folder / MANIFEST_FILE
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise InvalidPackage(f"{MANIFEST_FILE} is larger than {MAX_MANIFEST_BYTES} bytes.")
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InvalidPackage(f"{MANIFEST_FILE}: {explain(error)}") from None


def bare_manifest(name: str, version: int | str, signature: Signature) -> Manifest:
    """The manifest of a graph that came without one; InvalidPackage if name or version are not allowed ones."""
    try:
        document = SignatureDocument.from_signature(signature)
        return Manifest(name=name, version=int(version), signature=document)
    except ValidationError as error:
        raise InvalidPackage(f"The model cannot be served as {name!r} version {version}: {explain(error)}") from None
    except ValueError:
        raise InvalidPackage(f"A version is a positive integer, not {str(version)!r}.") from None


def _preprocessors(manifest: Manifest, signature: Signature, folder: Path) -> Mapping[str, _Preprocess]:
    steps: dict[str, _Preprocess] = {}
    for step in manifest.preprocessing:
        spec = signature.input(step.input)
        if spec is None:
            raise InvalidPackage(f"A step names the input {step.input!r}, which the signature does not have.")
        if isinstance(step, ImageStep):
            steps[step.input] = _image(ImageDecoder(step, spec, batched=signature.batched), step.input)
        else:
            steps[step.input] = TextTokenizer(step, folder)
    return steps


def _image(decode: ImageDecoder, name: str) -> _Preprocess:
    return lambda array: {name: decode(array)}


def _example(signature: Signature) -> Tensors:
    return {spec.name: _filled(spec) for spec in signature.required}


def _filled(spec: TensorSpec) -> Array:
    array = zeros(spec.dtype, spec.shape, rows=1)
    if spec.content is Content.TEXT:
        array[...] = b"warm-up"
    return array

"""A model package in memory: outer tensors in, outer tensors out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import orjson
from pydantic import ValidationError

from shared.adapters.onnx.agreement import check_agreement
from shared.adapters.onnx.execution import Execution
from shared.adapters.onnx.graph import read_signature, zeros
from shared.adapters.onnx.session import CPU, create_session
from shared.adapters.onnx.steps.image import ImageDecoder
from shared.adapters.onnx.steps.label import Labeler
from shared.adapters.onnx.steps.tokenize import TextTokenizer
from shared.codecs.json_documents import JsonLimits
from shared.codecs.json_tensors import decode_instances
from shared.domain.dtypes import DType
from shared.domain.errors import BackendError, InvalidPackage, InvalidRequest
from shared.domain.signature import Content, Signature, TensorSpec
from shared.domain.tensors import NUMPY_DTYPES, Array, Tensors
from shared.domain.validation import conform, fits_shape
from shared.schemas.manifest import ImageStep, Manifest, SignatureDocument

MODEL_FILE = "model.onnx"
MANIFEST_FILE = "manifest.json"
MAX_MANIFEST_BYTES = 4 * 1024 * 1024

_Preprocess = Callable[[Array], Tensors]


class ContractBroken(BackendError):
    """The model gave outputs that its manifest does not promise."""


@dataclass(frozen=True, slots=True)
class _Output:
    """Where an outer output comes from: a graph output, and its post-processing."""

    source: str
    label: Labeler | None = None


class OnnxPackage:
    """A loaded package; `run` may be called from several threads at once."""

    def __init__(self, manifest: Manifest, execution: Execution, folder: Path) -> None:
        """Join a manifest and its graph; InvalidPackage if they do not agree."""
        self.manifest = manifest
        self.signature: Signature = manifest.signature.to_signature()
        self._execution = execution
        check_agreement(manifest, self.signature, execution)
        self._preprocess = _preprocessors(manifest, self.signature, folder)
        self._outputs = _outputs(manifest, self.signature)

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
        if not (folder / MODEL_FILE).is_file():
            raise InvalidPackage(f"The package has no {MODEL_FILE}.")
        manifest = read_manifest(folder)
        session = create_session(folder / MODEL_FILE, threads=threads, providers=providers)
        if manifest is None:
            manifest = bare_manifest(name or folder.parent.name, version or folder.name, read_signature(session))
        return cls(manifest, Execution(session), folder)

    def run(self, inputs: Tensors, outputs: Sequence[str] = ()) -> Tensors:
        """Run the model on outer tensors that conform to the signature; `outputs` selects some (empty: all).

        Rows come back in the order in which they were given. Raises BadImage, ImageTooLarge and WrongDtype with the
        pointer `/instances/<row>`, InvalidRequest for values that the graph refuses, BackendError if the model fails.
        """
        feeds: dict[str, Array] = {}
        for name, array in inputs.items():
            preprocess = self._preprocess.get(name)
            feeds.update(preprocess(array) if preprocess else {name: array})
        wanted = {name: self._outputs[name] for name in outputs or self.signature.output_names}
        sources = list(dict.fromkeys(output.source for output in wanted.values()))
        results = self._execution.run(sources, feeds)
        if self.signature.batched:
            _check_rows(results, len(next(iter(inputs.values()))))
        answer = {
            name: output.label(results[output.source]) if output.label else results[output.source]
            for name, output in wanted.items()
        }
        for spec in self.signature.outputs:
            if spec.name in answer:
                _check_output(answer[spec.name], spec)
        return answer

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
        raise InvalidPackage(f"{MANIFEST_FILE}: {_explain(error)}") from None


def bare_manifest(name: str, version: int | str, signature: Signature) -> Manifest:
    """The manifest of a graph that came without one; InvalidPackage if name or version are not allowed ones."""
    try:
        document = SignatureDocument.from_signature(signature)
        return Manifest(name=name, version=int(version), signature=document)
    except ValidationError as error:
        raise InvalidPackage(f"The model cannot be served as {name!r} version {version}: {_explain(error)}") from None
    except ValueError:
        raise InvalidPackage(f"A version is a positive integer, not {str(version)!r}.") from None


def _explain(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    places = (f"{'.'.join(map(str, problem['loc'])) or 'document'}: {problem['msg']}" for problem in problems[:5])
    return "; ".join(places)


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


def _outputs(manifest: Manifest, signature: Signature) -> Mapping[str, _Output]:
    labelled = {step.output: _Output(step.source, Labeler(step.classes)) for step in manifest.postprocessing}
    return {name: labelled.get(name, _Output(name)) for name in signature.output_names}


def _check_rows(results: Tensors, rows: int) -> None:
    for name, array in results.items():
        if array.shape[:1] != (rows,):
            raise BackendError(f"The model answered {rows} rows with an output {name!r} of shape {list(array.shape)}.")


def _check_output(array: Array, spec: TensorSpec) -> None:
    """ContractBroken if the model gives what its manifest does not promise: callers rely on the contract."""
    if array.dtype != NUMPY_DTYPES[spec.dtype] or not fits_shape(array.shape, spec.shape):
        shape = [-1 if dim is None else dim for dim in spec.shape]
        raise ContractBroken(
            f"The model answered an output {spec.name!r} of type {array.dtype} and shape {list(array.shape)}; its "
            f"manifest says {spec.dtype} and {shape}."
        )
    if spec.classes and spec.dtype is not DType.BYTES and array.shape[-1] != len(spec.classes):
        raise ContractBroken(
            f"The model answered {array.shape[-1]} values for the {len(spec.classes)} classes of {spec.name!r}."
        )


def _example(signature: Signature) -> Tensors:
    return {spec.name: _filled(spec) for spec in signature.inputs}


def _filled(spec: TensorSpec) -> Array:
    array = zeros(spec.dtype, spec.shape, rows=1)
    if spec.content is Content.TEXT:
        array[...] = b"warm-up"
    return array

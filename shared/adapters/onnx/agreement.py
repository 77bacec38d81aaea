"""A manifest against its graph: whatever would fail at the first request is refused when the package is loaded."""

from collections.abc import Mapping

from shared.adapters.onnx.execution import Execution, GraphTensor
from shared.domain.dtypes import DType
from shared.domain.errors import InvalidPackage
from shared.domain.serving import StateTensor
from shared.domain.signature import Content, Dim, Signature, TensorSpec
from shared.schemas.manifest import ImageStep, LabelStep, Manifest, TokenizeStep

_Tensors = Mapping[str, GraphTensor]


def check_agreement(manifest: Manifest, signature: Signature, execution: Execution) -> None:
    """Raise InvalidPackage unless the graph can take and give what the signature promises."""
    required = {tensor.name for tensor in execution.inputs}
    inputs = {tensor.name: tensor for tensor in (*execution.inputs, *execution.optional)}
    outputs = {tensor.name: tensor for tensor in execution.outputs}
    _check_steps_once(manifest)
    fed: set[str] = set()
    steps = {step.input: step for step in manifest.preprocessing}
    states = manifest.serving_policy().state
    for state in states:
        _check_state(state, inputs, outputs)
        fed.add(state.input)
    for spec in signature.inputs:
        _check_batch_axis(spec, signature)
        step = steps.get(spec.name)
        if isinstance(step, TokenizeStep):
            fed |= _check_tokens(step, spec, inputs, signature)
        else:
            _check_content(spec, step)
            _check_same(spec, inputs, "input", signature)
            fed.add(spec.name)
        if spec.optional and spec.name in required:
            raise InvalidPackage(f"The graph has no value for {spec.name!r}, so it cannot be optional.")
    if not signature.required:
        raise InvalidPackage("A signature needs an input that is not optional.")
    unfed = [tensor.name for tensor in execution.inputs if tensor.name not in fed]
    if unfed:
        raise InvalidPackage(f"Nothing feeds the graph's input {', '.join(unfed)}.")
    labels = {step.output: step for step in manifest.postprocessing}
    for spec in signature.outputs:
        _check_batch_axis(spec, signature)
        if spec.name in labels:
            _check_label(labels[spec.name], spec, outputs)
        else:
            _check_same(spec, outputs, "output", signature)


def _check_steps_once(manifest: Manifest) -> None:
    names = {
        "preprocessing input": [step.input for step in manifest.preprocessing],
        "postprocessing output": [step.output for step in manifest.postprocessing],
    }
    for kind, given in names.items():
        twice = sorted({name for name in given if given.count(name) > 1})
        if twice:
            raise InvalidPackage(f"The manifest names the {kind} {', '.join(twice)} twice.")


def _check_batch_axis(spec: TensorSpec, signature: Signature) -> None:
    if signature.has_rows(spec) and spec.shape[:1] != (None,):
        raise InvalidPackage(f"The signature is batched, so the first axis of {spec.name!r} must be -1.")


def _check_state(state: StateTensor, inputs: _Tensors, outputs: _Tensors) -> None:
    for kind, name, tensors in (("input", state.input, inputs), ("output", state.output, outputs)):
        tensor = _find(name, tensors, kind)
        spec = TensorSpec(name, state.dtype, state.shape)
        if tensor.dtype is not state.dtype or not _ranks_agree(state.shape, tensor):
            raise InvalidPackage(
                f"The state {name!r} is {state.dtype} {_show(spec.shape)} in the manifest and {tensor.type} "
                f"{_show(tensor.shape)} in the graph."
            )


def _check_content(spec: TensorSpec, step: ImageStep | None) -> None:
    if spec.takes_images and step is None:
        raise InvalidPackage(f"{spec.name!r} takes images, and no image step decodes them.")
    if step is not None and not spec.takes_images:
        raise InvalidPackage(f"An image step decodes {spec.name!r}, whose content is not declared to be an image.")


def _check_tokens(step: TokenizeStep, spec: TensorSpec, inputs: _Tensors, signature: Signature) -> set[str]:
    texts = (None,) if signature.batched else (1,)
    if spec.dtype is not DType.BYTES or spec.content is not Content.TEXT or spec.shape not in (texts, ()):
        raise InvalidPackage(
            f"{spec.name!r} is tokenized: it must be BYTES of shape {_show(texts)} with the content text."
        )
    names = [name for name in (step.input_ids, step.attention_mask, step.token_type_ids) if name is not None]
    for name in names:
        tensor = _find(name, inputs, "input")
        if tensor.dtype is not DType.INT64 or not _compatible((None, None), tensor.shape):
            raise InvalidPackage(f"The graph's input {name!r} is a {tensor.type}; tokens are INT64 of shape [-1, -1].")
    return set(names)


def _check_label(step: LabelStep, spec: TensorSpec, outputs: _Tensors) -> None:
    tensor = _find(step.source, outputs, "output")
    if tensor.dtype is None or not tensor.dtype.is_integer:
        raise InvalidPackage(f"Labels need class indices; the graph's output {step.source!r} is a {tensor.type}.")
    if spec.dtype is not DType.BYTES:
        raise InvalidPackage(f"The output {spec.name!r} holds class names: it must be BYTES.")
    if not _ranks_agree(spec.shape, tensor):
        raise InvalidPackage(_shapes(spec, tensor))


def _check_same(spec: TensorSpec, tensors: _Tensors, kind: str, signature: Signature) -> None:
    tensor = _find(spec.name, tensors, kind)
    if tensor.dtype is not spec.dtype:
        raise InvalidPackage(f"{spec.name!r} is {spec.dtype} in the manifest and a {tensor.type} in the graph.")
    if not _ranks_agree(spec.shape, tensor):
        raise InvalidPackage(_shapes(spec, tensor))
    if signature.has_rows(spec) and tensor.shape and tensor.shape[0] is not None:
        raise InvalidPackage(
            f"The graph fixes the first axis of {spec.name!r} to {tensor.shape[0]}: it takes no batches."
        )


def _find(name: str, tensors: _Tensors, kind: str) -> GraphTensor:
    if name not in tensors:
        raise InvalidPackage(f"The graph has no {kind} {name!r}; it has {', '.join(tensors)}.")
    return tensors[name]


def _ranks_agree(shape: tuple[Dim, ...], tensor: GraphTensor) -> bool:
    """An empty shape in the graph stands for an unknown rank as well as for a scalar."""
    return not tensor.shape or _compatible(shape, tensor.shape)


def _compatible(one: tuple[Dim, ...], other: tuple[Dim, ...]) -> bool:
    return len(one) == len(other) and all(None in (a, b) or a == b for a, b in zip(one, other, strict=True))


def _shapes(spec: TensorSpec, tensor: GraphTensor) -> str:
    return f"{spec.name!r} has the shape {_show(spec.shape)} in the manifest and {_show(tensor.shape)} in the graph."


def _show(shape: tuple[Dim, ...]) -> list[int]:
    return [-1 if dim is None else dim for dim in shape]

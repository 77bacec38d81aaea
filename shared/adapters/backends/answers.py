"""What an answer of the Open Inference Protocol must be before it counts as the answer to a request."""

from shared.codecs.json_documents import JsonLimits
from shared.codecs.v2 import V2Response, V2Tensor, decode_response
from shared.domain.errors import BackendError, InvalidRequest
from shared.domain.model import ModelVersion
from shared.domain.signature import TensorSpec
from shared.domain.tensors import NUMPY_DTYPES, Tensors

CONTAINER = "The container"


def rows_of(version: ModelVersion, inputs: Tensors) -> int | None:
    """The number of instances in `inputs`; None where the signature is not batched."""
    signature = version.signature
    if not signature.batched:
        return None
    counted = (name for name in inputs if (spec := signature.input(name)) is None or signature.has_rows(spec))
    return int(inputs[next(counted)].shape[0])


def read_answer(body: bytes, header_length: int | None, who: str = CONTAINER) -> V2Response:
    """The answer in a body whose first `header_length` bytes are JSON (None: all of them).

    BackendError where it breaks the protocol: the caller's request was fine, so it is no fault of theirs.
    """
    size = max(len(body), 1)
    limits = JsonLimits(max_bytes=size, max_values=size, max_string=size)
    try:
        return decode_response(body, header_length, limits)
    except InvalidRequest as error:
        raise BackendError(f"{who}'s answer breaks the inference protocol: {error.detail}") from error


def outputs_of(
    answer: V2Response,
    version: ModelVersion,
    rows: int | None,
    *,
    request_id: str = "",
    model: str | None = None,
    model_version: str | None = None,
    who: str = CONTAINER,
) -> Tensors:
    """The outputs in the signature's order; BackendError unless they are what was asked of this very version.

    `rows` is the number of instances that were sent, None where the signature is not batched. `model` is the name that
    the backend knows the model by (None: its own). `model_version` is the version that was asked for (None: the
    version's own; empty: none was, so any may answer). An answer may leave out its id, as the protocol lets it, but
    it may not have that of another request than `request_id`.
    """
    _check_origin(answer, model or version.model, str(version.version) if model_version is None else model_version, who)
    if request_id and answer.id and answer.id != request_id:
        raise BackendError(f"{who} is answering for another request.")
    expected = set(version.signature.output_names)
    if answer.outputs.keys() != expected:
        raise BackendError(f"{who} answered {sorted(answer.outputs)}, not the outputs {sorted(expected)}.")
    for spec in version.signature.outputs:
        _check_tensor(spec, answer.outputs[spec.name], rows, who)
    return {name: answer.outputs[name].array for name in version.signature.output_names}


def _check_origin(answer: V2Response, model: str, version: str, who: str) -> None:
    if answer.model_name != model or (version and answer.model_version != version):
        asked = f"{model!r} version {version}" if version else repr(model)
        raise BackendError(
            f"{who} answered for {answer.model_name[:100]!r} version {answer.model_version[:100]!r}, not for {asked}."
        )


def _check_tensor(spec: TensorSpec, tensor: V2Tensor, rows: int | None, who: str) -> None:
    shape = spec.shape if rows is None else (rows, *spec.shape[1:])
    given = tensor.array.shape
    if tensor.dtype is not spec.dtype or tensor.array.dtype != NUMPY_DTYPES[spec.dtype]:
        raise BackendError(f"{who} answered {spec.name!r} as {tensor.dtype}, not as {spec.dtype}.")
    if len(given) != len(shape) or any(want not in (None, have) for have, want in zip(given, shape, strict=True)):
        wanted = [-1 if dim is None else dim for dim in shape]
        raise BackendError(f"{who} answered {spec.name!r} with the shape {list(given)}, not {wanted}.")

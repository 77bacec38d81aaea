"""The client's side of ModelInfer: tensors → ModelInferRequest, ModelInferResponse → tensors.

Inputs travel raw, one entry of `raw_input_contents` for each. Answers may be raw or typed, all outputs in the same way.
Source: Open Inference Protocol, "GRPC", "Tensor Data".
"""

from collections.abc import Mapping

from google.protobuf.message import DecodeError

from shared.codecs.protobuf.inference_pb2 import InferParameter, ModelInferRequest, ModelInferResponse
from shared.codecs.protobuf.tensors import shape_of, typed_tensor
from shared.codecs.v2 import V2Response, V2Tensor, from_raw, to_raw
from shared.domain.dtypes import DType
from shared.domain.errors import InvalidRequest, UnknownField, WrongDtype, WrongShape


def encode_infer_request(
    model: str,
    version: str,
    request_id: str,
    inputs: Mapping[str, V2Tensor],
    parameters: Mapping[str, int] | None = None,
) -> bytes:
    """The serialised ModelInferRequest; `parameters` are integers."""
    message = ModelInferRequest(model_name=model, model_version=version, id=request_id)
    for name, value in (parameters or {}).items():
        message.parameters[name].CopyFrom(InferParameter(int64_param=value))
    for name, tensor in inputs.items():
        message.inputs.add(name=name, datatype=tensor.dtype.value, shape=tensor.array.shape)
        message.raw_input_contents.append(to_raw(tensor))
    return message.SerializeToString()


def decode_infer_response(data: bytes) -> V2Response:
    """The answer in the bytes of a ModelInferResponse; raises InvalidRequest where it breaks the protocol."""
    try:
        message = ModelInferResponse.FromString(data)
    except DecodeError:
        raise InvalidRequest("The answer is not a whole ModelInferResponse.") from None
    raws = message.raw_output_contents
    if raws and len(raws) != len(message.outputs):
        detail = f"has {len(raws)} entries for {len(message.outputs)} outputs"
        raise WrongShape.at("/raw_output_contents", detail)
    outputs: dict[str, V2Tensor] = {}
    for position, entry in enumerate(message.outputs):
        place = f"/outputs/{position}"
        if entry.name in outputs:
            raise UnknownField.at(f"{place}/name", "is given twice")
        outputs[entry.name] = _tensor(entry, raws[position] if raws else None, place)
    return V2Response(message.model_name, message.model_version, outputs, message.id)


def _tensor(entry: "ModelInferResponse.InferOutputTensor", raw: bytes | None, place: str) -> V2Tensor:
    try:
        dtype = DType(entry.datatype)
    except ValueError:
        raise WrongDtype.at(f"{place}/datatype", f"must be one of {', '.join(DType)}") from None
    shape = shape_of(entry.shape, f"{place}/shape")
    if raw is None:
        return V2Tensor(dtype, typed_tensor(entry.contents, dtype, shape, f"{place}/contents"))
    if entry.HasField("contents"):
        raise UnknownField.at(f"{place}/contents", "is given beside raw_output_contents")
    return V2Tensor(dtype, from_raw(memoryview(raw), dtype, shape, place))

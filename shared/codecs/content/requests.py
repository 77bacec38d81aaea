"""Request bodies by content type; formats hold no state of a request, so one serves any number of them."""

import re
from typing import Protocol

from shared.codecs.content.decoded import Decoded, PlainDecoded
from shared.codecs.content.media import JSON, PROTOBUF, SAGEMAKER_BINARY
from shared.codecs.json_documents import JsonLimits
from shared.codecs.json_tensors import decode_instances
from shared.codecs.quick_instances import quick_instances
from shared.codecs.v2 import decode_request
from shared.codecs.v2_frames import binary_outputs
from shared.codecs.v2_quick import quick_v2
from shared.domain.signature import Signature

# A V2 request names its tensors in a list. The plain format has a single member, `instances` or an object `inputs`.
_V2 = re.compile(rb'\s*\{\s*"(?:(?:id|parameters|outputs)"|inputs"\s*:\s*\[)')


class RequestFormat(Protocol):
    """How bodies of one content type are read; `own` are the types that answer in kind, the best first."""

    @property
    def own(self) -> tuple[str, ...]:
        """Media types."""

    def decode(self, body: bytes, signature: Signature, limits: JsonLimits, /) -> Decoded:
        """The tensors of a body, not yet checked against the signature's shapes; raises InvalidRequest."""


class V2Format:
    """Open Inference, all JSON if `header_length` is None."""

    __slots__ = ("header_length", "own")

    def __init__(self, header_length: int | None, *, binary: str) -> None:
        self.header_length = header_length
        self.own = (JSON, binary)

    def decode(self, body: bytes, signature: Signature, limits: JsonLimits) -> Decoded:
        """See `RequestFormat`."""
        return decode_v2(body, self.header_length, signature, limits)


def decode_v2(body: bytes, header_length: int | None, signature: Signature, limits: JsonLimits) -> Decoded:
    """A V2 body, quickly if it is a common one; raises InvalidRequest."""
    quick = quick_v2(body, header_length, signature, limits)
    if quick is not None:
        return Decoded(*quick)
    request = decode_request(body, header_length, limits)
    inputs = request.to_inputs(signature)
    return Decoded(inputs, tuple(request.outputs), request.id, request.parameters, binary_outputs(request))


class JsonFormat:
    """JSON: V2, `instances` or `inputs`."""

    __slots__ = ("own",)

    def __init__(self) -> None:
        self.own = (JSON, SAGEMAKER_BINARY)

    def decode(self, body: bytes, signature: Signature, limits: JsonLimits) -> Decoded:
        """See `RequestFormat`."""
        if _V2.match(body):
            return decode_v2(body, None, signature, limits)
        inputs = quick_instances(body, signature, limits)
        return PlainDecoded(decode_instances(body, signature, limits) if inputs is None else inputs)


class ProtobufFormat:
    """The protocol's ModelInferRequest."""

    __slots__ = ()
    own = (PROTOBUF,)

    def decode(self, body: bytes, signature: Signature, _limits: JsonLimits) -> Decoded:
        """See `RequestFormat`; the size of the body is bounded where it is read."""
        from shared.codecs.protobuf.tensors import decode_infer_request  # what speaks no protobuf need not load it

        return decode_infer_request(body, signature)

"""NumPy's own files: NPY and NPZ, in and out. A module of its own: what gets JSON only need not load it."""

from shared.codecs.content.answers import Answer, Members, Version, requested
from shared.codecs.content.decoded import Decoded, PlainDecoded
from shared.codecs.content.media import NPY, NPZ
from shared.codecs.json_documents import JsonLimits
from shared.codecs.npy import decode_npy, decode_npz, encode_npy, encode_npz
from shared.domain.errors import NotAcceptable
from shared.domain.signature import Signature
from shared.domain.tensors import Tensors


class NpyFormat:
    """One tensor as NPY."""

    __slots__ = ()
    own = (NPY, NPZ)

    def decode(self, body: bytes, signature: Signature, limits: JsonLimits) -> Decoded:
        """See `RequestFormat`."""
        return PlainDecoded(decode_npy(body, signature, limits))


class NpyAnswer:
    """NPY; several outputs as NPZ where the client takes it."""

    __slots__ = ("takes_npz",)

    def __init__(self, takes_npz: bool) -> None:
        self.takes_npz = takes_npz

    def encode(
        self, _key: Version, _signature: Signature, outputs: Tensors, decoded: Decoded, _more: Members | None = None, /
    ) -> Answer:
        """See `AnswerFormat`; raises NotAcceptable for several outputs that may not be NPZ."""
        outputs = requested(outputs, decoded)
        if len(outputs) == 1:
            return encode_npy(next(iter(outputs.values()))), NPY, ()
        if not self.takes_npz:
            raise NotAcceptable(f"This model has {len(outputs)} outputs and {NPY} holds one; accept {NPZ}.")
        return encode_npz(outputs), NPZ, ()


class NpzFormat:
    """Tensors by name as NPZ."""

    __slots__ = ()
    own = (NPZ,)

    def decode(self, body: bytes, signature: Signature, limits: JsonLimits) -> Decoded:
        """See `RequestFormat`."""
        return PlainDecoded(decode_npz(body, signature, limits))


class NpzAnswer:
    """NPZ."""

    __slots__ = ()

    def encode(
        self, _key: Version, _signature: Signature, outputs: Tensors, decoded: Decoded, _more: Members | None = None, /
    ) -> Answer:
        """See `AnswerFormat`."""
        return encode_npz(requested(outputs, decoded)), NPZ, ()

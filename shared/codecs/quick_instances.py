"""A quick way for `{"instances": [[…], …]}` of numbers; `shared.codecs.json_tensors` is the strict one."""

from shared.codecs.json_documents import JsonLimits
from shared.codecs.quick_numbers import Reader, read_nested, reader_of
from shared.domain.errors import pointer
from shared.domain.signature import Signature
from shared.domain.validation import Inputs

# Spaces where the common encoders write them; anything else is left to the strict decoder.
_OPENINGS = (b'{"instances":[[', b'{"instances": [[')
_CLOSINGS = (b"]]}", b"]]}\n")
_MAX_READERS = 256

# By the identity of the signature, which the entry keeps from being used again: hashing one takes long.
_readers: dict[int, tuple[Signature, str, Reader | None]] = {}


def quick_instances(body: bytes, signature: Signature, limits: JsonLimits) -> Inputs | None:
    """What `decode_instances` would give, or None if that is not certain; never raises InvalidRequest."""
    if len(body) >= min(limits.max_bytes, limits.max_values) or limits.max_depth < 3 or not body.endswith(_CLOSINGS):
        return None
    begin = next((len(opening) - 2 for opening in _OPENINGS if body.startswith(opening)), 0)
    if not begin:
        return None
    known = _readers.get(id(signature))
    _, name, reader = _learn(signature) if known is None else known
    if reader is None:
        return None
    array = read_nested(body[begin : body.rfind(b"}")], 2, reader)
    if array is None or len(array) > signature.max_batch:
        return None
    return Inputs({name: array}, _locate)


def _locate(_name: str, index: tuple[int, ...]) -> str:
    return pointer("/instances", *index)


def _learn(signature: Signature) -> tuple[Signature, str, Reader | None]:
    """The only input that must be given and what reads its rows, where rows of plain numbers are sure to be its."""
    required = signature.required
    sure = signature.batched and len(required) == 1
    entry = signature, required[0].name if sure else "", reader_of(required[0].dtype) if sure else None
    if len(_readers) >= _MAX_READERS:
        _readers.pop(next(iter(_readers)), None)
    _readers[id(signature)] = entry
    return entry

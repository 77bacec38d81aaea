"""NumPy's own file formats: `.npy` (one tensor) and `.npz` (a ZIP of them, by input name). Pickles are never read.

The header is read here and not by NumPy, which evaluates it as Python: three members, nothing else.
BYTES travel as fixed-width `S` (bytes, trailing NULs are padding) or `U` (text); BF16 as its bits in uint16.
Source: NumPy Enhancement Proposal 1, "A Simple File Format for NumPy Arrays"; PKWARE's APPNOTE for ZIP.
"""

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from math import prod

import numpy as np

from shared.codecs.json_documents import JsonLimits
from shared.codecs.values import MAX_RANK
from shared.domain.dtypes import DType
from shared.domain.errors import InvalidRequest, MissingField, PayloadTooLarge, UnknownField, WrongDtype, WrongShape
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import NUMPY_DTYPES, Array, Tensors, bytes_tensor
from shared.domain.validation import Inputs

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 4096
_MAX_MEMBERS = 64
_DESCR = r"""(?P<q1>['"])descr(?P=q1)\s*:\s*(?P<q2>['"])(?P<descr>[<>|=]?[a-zA-Z][0-9]{0,9})(?P=q2)"""
_ORDER = r"""(?P<q3>['"])fortran_order(?P=q3)\s*:\s*(?P<order>True|False)"""
_SHAPE = r"""(?P<q4>['"])shape(?P=q4)\s*:\s*\((?P<shape>[0-9L, ]{0,400})\)"""
_MEMBERS = tuple(re.compile(member) for member in (_DESCR, _ORDER, _SHAPE))
_SEPARATOR = re.compile(r"\s*,?\s*")
_KINDS = "biufSUV"
# All that reading a damaged archive may raise.
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError)


def decode_npy(body: bytes, signature: Signature, limits: JsonLimits) -> Inputs:
    """The tensor of the only input that must be given; raises InvalidRequest."""
    if len(signature.required) != 1:
        names = ", ".join(spec.name for spec in signature.inputs)
        raise InvalidRequest(f"This model takes several inputs ({names}); send them by name as application/x-npz.")
    spec = signature.required[0]
    return Inputs({spec.name: _tensor(memoryview(body), spec, limits, f"/{spec.name}")}, _locate)


def decode_npz(body: bytes, signature: Signature, limits: JsonLimits) -> Inputs:
    """The tensors of an archive whose members are `<input name>.npy`; raises InvalidRequest.

    All members together may have `limits.max_bytes` bytes, counted while they are read.
    """
    # Before the directory is read: each entry of it takes far more memory than its bytes.
    if body.count(b"PK\x01\x02") > _MAX_MEMBERS:
        raise PayloadTooLarge(f"The archive has more than {_MAX_MEMBERS} members.")
    tensors: dict[str, Array] = {}
    left = limits.max_bytes
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            for member in archive.infolist():
                spec = _spec_of(member.filename, signature, tensors)
                raw = _read(archive, member, left, limits.max_bytes)
                left -= len(raw)
                tensors[spec.name] = _tensor(memoryview(raw), spec, limits, f"/{spec.name}")
    except _DAMAGED as error:
        raise InvalidRequest("The body is not a whole ZIP archive of NPY files.") from error
    for spec in signature.required:
        if spec.name not in tensors:
            raise MissingField.at(f"/{spec.name}", f"the archive lacks {spec.name}.npy")
    return Inputs(tensors, _locate)


def encode_npy(array: Array) -> bytes:
    """One tensor as `.npy`."""
    file = io.BytesIO()
    np.lib.format.write_array(file, _writable(array), version=(1, 0), allow_pickle=False)
    return file.getvalue()


def encode_npz(outputs: Tensors) -> bytes:
    """Tensors by name as `.npz`, not compressed."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in outputs.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), encode_npy(array))
    return file.getvalue()


def _writable(array: Array) -> Array:
    return array.astype(np.bytes_) if array.dtype == np.object_ else np.ascontiguousarray(array).reshape(array.shape)


def _locate(name: str, index: tuple[int, ...]) -> str:
    return "/".join([f"/{name}", *map(str, index)])


def _spec_of(filename: str, signature: Signature, seen: Mapping[str, Array]) -> TensorSpec:
    name = filename.removesuffix(".npy")
    spec = signature.input(name)
    if spec is None or name == filename:
        known = ", ".join(f"{spec.name}.npy" for spec in signature.inputs)
        raise UnknownField(f"The archive holds {filename[:100]!r}; this model takes {known}.")
    if name in seen:
        raise UnknownField.at(f"/{name}", "is given twice")
    return spec


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, left: int, limit: int) -> bytes:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
        raise InvalidRequest("The members of an archive must be stored or deflated, and not encrypted.")
    with archive.open(member) as file:
        raw = file.read(left + 1)
    if len(raw) > left:
        raise PayloadTooLarge(f"The archive has more than {limit} bytes once it is decompressed.")
    return raw


def _tensor(raw: memoryview, spec: TensorSpec, limits: JsonLimits, place: str) -> Array:
    if len(raw) > limits.max_bytes:
        raise PayloadTooLarge(f"The body has {len(raw)} bytes; the limit is {limits.max_bytes}.")
    dtype, is_fortran, shape, start = read_header(raw, place)
    count = prod(shape)
    data = raw[start:]
    if len(data) != count * dtype.itemsize:
        detail = f"has {len(data)} bytes of data; {dtype.str} of shape {list(shape)} takes {count * dtype.itemsize}"
        raise WrongShape.at(place, detail)
    if dtype.kind in "SU" and count > limits.max_values:
        raise PayloadTooLarge(f"The body holds more than {limits.max_values} values.")
    flat = read_elements(data, dtype, count, spec, place)
    return np.ascontiguousarray(flat.reshape(shape, order="F")).reshape(shape) if is_fortran else flat.reshape(shape)


def read_elements(data: memoryview, dtype: np.dtype[np.generic], count: int, spec: TensorSpec, place: str) -> Array:
    """The `count` elements of the data of an array, `[count]`; WrongDtype where the input takes others."""
    return _numbers(data, dtype, spec, place) if dtype.kind not in "SU" else _bytes(data, dtype, count, spec, place)


def read_header(raw: memoryview, place: str) -> tuple[np.dtype[np.generic], bool, tuple[int, ...], int]:
    """The dtype, whether the data is column-major, the shape, and where the data starts; raises InvalidRequest."""
    if bytes(raw[:6]) != _MAGIC or len(raw) < 12 or raw[6] not in (1, 2, 3):
        raise InvalidRequest("The body is not an NPY file of version 1, 2 or 3.")
    width = 2 if raw[6] == 1 else 4
    start = 8 + width
    length = int.from_bytes(raw[8:start], "little")
    if length > _MAX_HEADER or start + length > len(raw):
        raise InvalidRequest(f"The header of an NPY file is said to have {length} bytes; it may have {_MAX_HEADER}.")
    text = bytes(raw[start : start + length]).decode("latin-1").strip()
    found = _members(text)
    dtype = _dtype(found["descr"], place)
    dims = [int(dim.rstrip("L")) for dim in found["shape"].replace(" ", "").split(",") if dim.rstrip("L")]
    if len(dims) > MAX_RANK or max(dims, default=0) >= 2**31 or prod(dim for dim in dims if dim) >= 2**48:
        raise WrongShape.at(place, f"must have at most {MAX_RANK} dimensions, and fewer than 2^48 elements")
    return dtype, found["order"] == "True", tuple(dims), start + length


def _members(text: str) -> dict[str, str]:
    """The three members of a header, in any order."""
    found: dict[str, str] = {}
    at = 1
    while text[:1] == "{" and len(found) < 3 and at < len(text):
        matches = [match for member in _MEMBERS if (match := member.match(text, at))]
        if not matches:
            break
        named = {key: value for key, value in matches[0].groupdict().items() if key[0] != "q"}
        if named.keys() & found.keys():
            break
        found |= named
        separator = _SEPARATOR.match(text, matches[0].end())
        at = separator.end() if separator else at
    if len(found) != 3 or text[at:] != "}":
        raise InvalidRequest("The header of the NPY file is not that of an array of numbers or fixed-width strings.")
    return found


def _dtype(descr: str, place: str) -> np.dtype[np.generic]:
    kind = descr.lstrip("<>|=")[:1]
    if kind not in _KINDS:
        raise WrongDtype.at(place, f"has the NumPy type {descr!r}; objects, dates and complex numbers are not read")
    try:
        return np.dtype(descr)
    except (TypeError, ValueError):
        raise WrongDtype.at(place, f"has the NumPy type {descr!r}, which does not exist") from None


def _numbers(data: memoryview, dtype: np.dtype[np.generic], spec: TensorSpec, place: str) -> Array:
    wanted = NUMPY_DTYPES[spec.dtype]
    bits = spec.dtype is DType.BF16 and dtype.kind == "V" and dtype.itemsize == 2  # what ml_dtypes writes
    if spec.dtype is DType.BYTES or not (bits or dtype.newbyteorder("=") == wanted):
        hint = "S or U" if spec.dtype is DType.BYTES else f"{wanted.name}"
        raise WrongDtype.at(place, f"has the NumPy type {dtype.str!r}; {spec.dtype} is {hint}, so convert it first")
    if dtype == np.bool_ and bytes(data).translate(None, b"\0\1"):
        raise WrongDtype.at(place, "holds a byte that is neither 0 nor 1")
    array: Array = np.frombuffer(data, wanted if bits else dtype)
    return array if array.dtype == wanted else array.astype(wanted)


def _bytes(data: memoryview, dtype: np.dtype[np.generic], count: int, spec: TensorSpec, place: str) -> Array:
    if spec.dtype is not DType.BYTES and not spec.takes_images:
        raise WrongDtype.at(place, f"has the NumPy type {dtype.str!r}; the input takes {spec.dtype}")
    if dtype.itemsize == 0:
        return bytes_tensor([b""] * count)
    try:
        if dtype.kind == "U":  # NumPy takes any 32 bits for a character
            bytes(data).decode("utf-32-be" if dtype.str[0] == ">" else "utf-32-le")
        values = np.frombuffer(data, dtype).tolist()
        return bytes_tensor([value.encode() if isinstance(value, str) else value for value in values])
    except ValueError:
        raise WrongDtype.at(place, "holds what is no Unicode text") from None

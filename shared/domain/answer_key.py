"""Which requests must get the same answer, as a key for stores of answers.

Two requests are the same if the endpoint, the version and its package, the tenant, the inputs (names, dtypes, shapes,
bytes), the wanted outputs and the parameters are. All of it goes through SHA-256, which servers' processors have
instructions for, with every part's length before it: no two different requests have one encoding, and nobody can find
two with one key. Numbers count by their bytes, so 0.0 and -0.0 differ, and so do two kinds of NaN.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

from shared.domain.model import ModelVersion
from shared.domain.tensors import Array, Tensors
from shared.domain.unambiguous import of_size, of_text, of_texts, of_value

PUBLIC: Final = "*"
"""Stands for the tenant in keys of answers that all tenants share; no tenant has this name."""

IGNORED_PARAMETERS: Final = frozenset({"timeout", "priority", "binary_data_output"})
"""Parameters that change when a request is answered, or in which form, but not what the outputs are."""

_SESSION: Final = ("sequence_id", "sequence_start", "sequence_end")
_FORM: Final = b"sluice-answer-1"  # changes with what an answer's encoding or its key means


def answer_key(
    version: ModelVersion,
    inputs: Tensors,
    outputs: Sequence[str],
    parameters: Mapping[str, Any],
    tenant: str | None,
    endpoint: str,
) -> str:
    """`<tenant>/<64 hexadecimal digits>`; `tenant` None shares the answer between tenants (`*`).

    Neither the order of inputs nor the layout of arrays in memory counts. `outputs` are a set (empty: all of them),
    and `parameters` JSON values, of which `IGNORED_PARAMETERS` do not count. The digits cover the tenant, too.
    """
    counted = {name: value for name, value in parameters.items() if name not in IGNORED_PARAMETERS}
    parts = [
        of_text(endpoint),
        of_text(version.model),
        of_size(version.version),
        of_text(version.digest),
        b"all" if tenant is None else b"one" + of_text(tenant),
        of_texts(sorted(set(outputs))),
        of_value(counted),
        of_size(len(inputs)),
    ]
    hasher = sha256(_FORM)
    for name in sorted(inputs):
        array = inputs[name]
        parts.append(of_text(name))
        parts.append(_head(array))
        if array.dtype.kind == "O":
            values: list[bytes] = array.reshape(-1).tolist()
            for value in values:
                parts.append(of_size(len(value)))
                parts.append(value)
        elif array.nbytes < _SMALL:
            parts.append(array.tobytes())
        else:
            # Large ones are not copied if they are contiguous; shape and dtype tell their length.
            hasher.update(b"".join(parts))
            parts.clear()
            hasher.update(array.data if array.flags.c_contiguous else array.tobytes())
    hasher.update(b"".join(parts))
    return f"{PUBLIC if tenant is None else tenant}/{hasher.hexdigest()}"


def tenant_of(key: str) -> str:
    """The tenant to whom the answer under a key belongs, `PUBLIC` if to all."""
    return key.rpartition("/")[0]


def is_repeatable(parameters: Mapping[str, Any]) -> bool:
    """Whether equal requests have equal answers: not within a session, which goes on with each request.

    Source: Triton Inference Server, "Sequence Extension".
    """
    return not any(parameters.get(name) for name in _SESSION)


_SMALL: Final = 16 * 1024


def _head(array: Array) -> bytes:
    """Dtype and shape. BF16 is told from UINT16 by the version, which declares one of them for this input."""
    dtype = array.dtype.str.encode("ascii")
    return of_size(len(dtype)) + dtype + of_size(array.ndim) + b"".join(map(of_size, array.shape))

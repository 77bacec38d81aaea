"""One error for several places that are wrong."""

from collections.abc import Sequence
from typing import Final

from shared.domain.errors import FieldError, SluiceError

MAX_ERRORS: Final = 8


def refused(kind: type[SluiceError], fields: Sequence[FieldError]) -> SluiceError:
    """An error of that kind with the first eight places; its message has the first of them."""
    detail = f"{fields[0].pointer or 'The document'}: {fields[0].detail}"
    if len(fields) > 1:
        detail += f" (and {len(fields) - 1} more)"
    return kind(f"{detail}.", fields=fields[:MAX_ERRORS])

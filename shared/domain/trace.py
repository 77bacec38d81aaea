"""The trace that a request belongs to, as AWS X-Ray names it and as W3C Trace Context does.

Sources: AWS X-Ray Developer Guide, "Tracing header" (`Root=1-<8 hex>-<24 hex>;Parent=<16 hex>;Sampled=0|1`); W3C Trace
Context, "traceparent" (`00-<32 hex>-<16 hex>-<flags>`). Both ids are the same digits, written differently.
"""

import os
import re
from collections.abc import Mapping

# Lambda's runtime sets it anew for every invocation.
VARIABLE = "_X_AMZN_TRACE_ID"

_ROOT = re.compile(r"1-([0-9a-f]{8})-([0-9a-f]{24})")
_PARENT = re.compile(r"[0-9a-f]{16}")


def trace_id(environ: Mapping[str, str]) -> str | None:
    """X-Ray's id of the trace that the invocation under way belongs to, `1-<8 hex>-<24 hex>`; None outside of one."""
    header = environ.get(VARIABLE)
    return None if header is None else _fields(header).get("Root")


def traceparent(environ: Mapping[str, str]) -> str | None:
    """The same trace for the next service in W3C's form; None outside of an invocation.

    The parent is X-Ray's segment of the function. Where nothing records one, it is made up: the form asks for it.
    """
    fields = _fields(environ.get(VARIABLE, ""))
    root = _ROOT.fullmatch(fields.get("Root", ""))
    if root is None:
        return None
    parent = fields.get("Parent", "")
    if not _PARENT.fullmatch(parent) or not parent.strip("0"):
        parent = os.urandom(8).hex()
    return f"00-{root[1]}{root[2]}-{parent}-{'01' if fields.get('Sampled') == '1' else '00'}"


def _fields(header: str) -> dict[str, str]:
    return dict(part.strip().partition("=")[::2] for part in header.split(";"))

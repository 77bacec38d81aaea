"""JSON Lines: one instance on each line in, one prediction on each line out. Source: jsonlines.org; RFC 8259."""

import orjson

from shared.codecs.json_documents import JsonLimits, check_limits, dumps
from shared.codecs.json_tensors import decode_instances, encode_predictions
from shared.codecs.quick_instances import quick_instances
from shared.domain.errors import EmptyBatch, FieldError, InvalidRequest, NotJson
from shared.domain.signature import Signature
from shared.domain.tensors import Tensors
from shared.domain.validation import Inputs, check_rows

_PREFIX = "/instances/"


def decode_lines(body: bytes, signature: Signature, limits: JsonLimits) -> Inputs:
    """The tensors of the instances, blank lines left out; raises InvalidRequest as `decode_instances`.

    Places are `/lines/<number of the line, from 1>/…`, and go on as in a single instance.
    """
    check_limits(body, limits)
    numbers: list[int] = []
    lines: list[bytes] = []
    for number, line in enumerate(body.split(b"\n"), 1):
        text = line.strip(b" \t\r")
        if text:
            numbers.append(number)
            lines.append(text)
    if not lines:
        raise EmptyBatch("The body holds no instance; give one on each line.")
    check_rows(len(lines), signature, "/lines")
    for number, line in zip(numbers, lines, strict=True):
        _check_line(line, number)
    # Each line is a document of its own, so together they are exactly the elements of a list.
    document = b'{"instances":[%s]}' % b",".join(lines)
    whole = JsonLimits(len(document) + 1, limits.max_depth + 2, limits.max_values + 3, limits.max_string)
    try:
        inputs = quick_instances(document, signature, whole) or decode_instances(document, signature, whole)
    except InvalidRequest as error:
        fields = [FieldError(_by_line(field.pointer, numbers), field.detail) for field in error.fields]
        detail = f"{fields[0].pointer}: {fields[0].detail}" if fields else error.detail
        raise type(error)(detail, fields=fields) from None
    inner = inputs.locate
    return Inputs(inputs.tensors, lambda name, index: _by_line(inner(name, index), numbers))


def encode_lines(outputs: Tensors, signature: Signature) -> bytes:
    """The predictions, each on a line that ends with a line feed."""
    return b"".join(dumps(prediction) + b"\n" for prediction in encode_predictions(outputs, signature))


def _check_line(line: bytes, number: int) -> None:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise NotJson.at(
            f"/lines/{number}", f"is not JSON: {error.msg.split(':')[0]} at column {error.colno}"
        ) from None


def _by_line(place: str, numbers: list[int]) -> str:
    """The place in the lines of a place in the list of instances."""
    if not place.startswith(_PREFIX):
        return "/lines"
    row, slash, rest = place[len(_PREFIX) :].partition("/")
    return f"/lines/{numbers[int(row)]}{slash}{rest}"

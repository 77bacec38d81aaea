"""The body of a prediction request, from what the user gave on the command line."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.cli.api_client import MAX_BODY_BYTES
from infra.cli.options import read_input
from infra.cli.output import USAGE, Failure

# Base64 makes four bytes of three, and the document around it needs some.
_MAX_IMAGE_BYTES = MAX_BODY_BYTES // 4 * 3 - 1024
Signature = Mapping[str, Any]


def request_body(
    data: str | None, texts: Sequence[str], images: Sequence[str], signature: Callable[[], Signature]
) -> bytes:
    """The JSON body; `signature` is asked for only where a list may be one instance or several.

    `data` is JSON, `@FILE` or `-`: a whole body, one instance or a list of instances. Every text is an instance, and so
    is every image file. Failure with exit code 2 unless exactly one of the three is given.
    """
    if sum(map(bool, (data, texts, images))) != 1:
        raise Failure("Give the instances as one of --data, --text and --image.", exit_code=USAGE)
    if texts:
        return _document(list(texts))
    if images:
        return _document([{"b64": base64.b64encode(read_input(image, _MAX_IMAGE_BYTES)).decode()} for image in images])
    return _from_data(str(data), signature)


def _from_data(data: str, signature: Callable[[], Signature]) -> bytes:
    body = read_input(data.removeprefix("@"), MAX_BODY_BYTES) if data == "-" or data.startswith("@") else data.encode()
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        hint = (
            f"For the file use --data @{data}"
            if len(data) < 256 and Path(data).is_file()
            else "For a string use --text"
        )
        raise Failure(f"--data is not JSON: {error}. {hint}.", exit_code=USAGE) from None
    if isinstance(value, dict) and len(value) == 1 and value.keys() <= {"instances", "inputs"}:
        return body
    # The text is passed on as it is: the API, and no parser on the way, says what is wrong with it.
    several = isinstance(value, list) and not _is_one_instance(value, signature)
    return b'{"instances": %s}' % body if several else b'{"instances": [%s]}' % body


def _document(instances: list[Any]) -> bytes:
    return json.dumps({"instances": instances}).encode()


def _is_one_instance(value: list[Any], signature: Callable[[], Signature]) -> bool:
    """Whether a list is one instance (30 numbers) or a list of instances; what fits neither, the API explains."""
    if not value or isinstance(value[0], dict):
        return False
    document = signature()
    if len(document["inputs"]) != 1:
        return False
    (spec,) = document["inputs"]
    own = spec["shape"][1:] if document.get("batched", True) else spec["shape"]
    accepted = [own, *spec.get("layouts", ())]
    shape = _shape(value)
    if any(_fits(shape, layout) for layout in accepted):
        return True
    if any(_fits(shape[1:], layout) for layout in accepted):
        return False
    return len(shape) <= min(map(len, accepted))


def _shape(value: Any) -> list[int]:
    shape: list[int] = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return shape


def _fits(shape: Sequence[int], layout: Sequence[int]) -> bool:
    return len(shape) == len(layout) and all(dim in (-1, size) for size, dim in zip(shape, layout, strict=True))

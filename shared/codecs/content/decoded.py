"""What a body says once it is read; made for every request, so plain classes with slots."""

from collections.abc import Mapping
from typing import Any

from shared.domain.errors import UnknownField, WrongDtype, pointer
from shared.domain.validation import Inputs


class Decoded:
    """A decoded body: its tensors, the outputs that it wants (empty: all), and the protocol's id and parameters.

    `binary_outputs` says which outputs are wanted as raw bytes; True or False for all of them.
    """

    __slots__ = ("binary_outputs", "id", "inputs", "outputs", "parameters")

    def __init__(
        self,
        inputs: Inputs,
        outputs: tuple[str, ...] = (),
        id: str = "",  # noqa: A002 - the protocol's name
        parameters: Mapping[str, Any] | None = None,
        binary_outputs: Mapping[str, bool] | bool = False,
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.id = id
        self.parameters: Mapping[str, Any] = {} if parameters is None else parameters
        self.binary_outputs = binary_outputs


class PlainDecoded(Decoded):
    """Instances or named tensors without a protocol around them: JSON answers hold `predictions`."""

    __slots__ = ()


class CsvDecoded(PlainDecoded):
    """Rows of CSV; `header` says whether they came with a header row."""

    __slots__ = ("header",)

    def __init__(self, inputs: Inputs, *, header: bool) -> None:
        super().__init__(inputs)
        self.header = header


def check_outputs(wanted: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Raise UnknownField for the first output that a request names and the model has not."""
    for position, name in enumerate(wanted):
        if name not in known:
            detail = f"{name!r} is not an output of this model; it has {', '.join(known)}"
            raise UnknownField.at(pointer("/outputs", position), detail)


def whole_parameter(parameters: Mapping[str, Any], name: str, most: int) -> int:
    """A parameter of the protocol that is a whole number, 0 if it is not given; WrongDtype outside of 0 to `most`."""
    value = parameters.get(name, 0)
    if isinstance(value, str) and value.isdecimal() and len(value) < 20:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise WrongDtype.at(f"/parameters/{name}", f"must be a whole number from 0 to {most}")
    return value

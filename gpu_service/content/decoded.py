"""What the content types add to a decoded request: how its answer is written if the client names no type."""

from gpu_service.inference.request import Decoded
from shared.domain.validation import Inputs


class PlainDecoded(Decoded):
    """Instances or named tensors without a protocol around them: JSON answers hold `predictions`."""

    __slots__ = ()


class CsvDecoded(PlainDecoded):
    """Rows of CSV; `header` says whether they came with a header row."""

    __slots__ = ("header",)

    def __init__(self, inputs: Inputs, *, header: bool) -> None:
        super().__init__(inputs)
        self.header = header

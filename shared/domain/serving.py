"""How a model wants to be served: the manifest's optional block `serving`, as the container reads it.

Everything is off or left to the container unless the manifest says otherwise. Functions run one request at a time and
ignore it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from shared.domain.dtypes import DType
from shared.domain.signature import Dim


@dataclass(frozen=True, slots=True)
class Padding:
    """Fill `axis` of an input with `value` up to the next bucket: requests of about one size then share a batch.

    Where the signature is batched, axis 0 counts the instances and is never padded. The sizes are `buckets`
    (ascending), or the multiples of `multiple_of`. A size above the last bucket stays as it is. A request that is alone
    is padded too: the model meets few shapes, and a request's answer does not depend on its neighbours.
    """

    input: str
    axis: int
    value: float | bool | str = 0
    buckets: tuple[int, ...] = ()
    multiple_of: int | None = None

    def padded(self, size: int) -> int:
        """The size that an axis of `size` is filled to."""
        if self.multiple_of is not None:
            return -(-size // self.multiple_of) * self.multiple_of
        for bucket in self.buckets:
            if size <= bucket:
                return bucket
        return size


@dataclass(frozen=True, slots=True)
class Unpadding:
    """Cut `axis` of an output back to the size that `input_axis` of a padded input had before it was filled.

    For outputs that follow the input element by element on this axis.
    """

    output: str
    axis: int
    input: str
    input_axis: int


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """Keep answers: at most `max_bytes` of keys and answers together, none for longer than `ttl_s` seconds if given."""

    max_bytes: int
    ttl_s: float | None = None


@dataclass(frozen=True, slots=True)
class StateTensor:
    """A recurrent state: what the graph gives as `output` is fed as `input` with the next request of the session.

    Neither is part of the outer signature, callers never see them: the graph's tensors are declared here. A session
    starts with zeros (or empty strings) of `shape`, in which None, at most one, stands for the request's rows.
    """

    input: str
    output: str
    dtype: DType
    shape: tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class ServingPolicy:
    """The block `serving`.

    `batching` False runs every request by itself. `max_rows` and `max_bytes` bound one batch, None leaves that to the
    container; both may be exceeded by a single request. `join` lets identical requests of a tenant that are in flight
    share one run. `instances` is the number of sessions, None for as many as the machine allows. `warm_up` are the
    shapes of the inputs, rows included, that are run once before the model takes traffic.
    """

    batching: bool = True
    max_rows: int | None = None
    max_bytes: int | None = None
    padding: tuple[Padding, ...] = ()
    unpad: tuple[Unpadding, ...] = ()
    cache: CachePolicy | None = None
    join: bool = False
    instances: int | None = None
    state: tuple[StateTensor, ...] = ()
    warm_up: tuple[Mapping[str, tuple[int, ...]], ...] = ()

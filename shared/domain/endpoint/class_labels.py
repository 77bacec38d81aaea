"""Other names for classes: an endpoint's `class_labels`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from shared.domain.dtypes import DType
from shared.domain.endpoint.config import EndpointConfig
from shared.domain.errors import FieldError, pointer
from shared.domain.signature import Signature, TensorSpec, by_name

if TYPE_CHECKING:  # NumPy is heavy, and who only checks a configuration does not have it
    from shared.domain.tensors import Array


@dataclass(frozen=True, slots=True)
class Labels:
    """Names of one output's classes: `values` are those of its text, empty where only the names of columns change."""

    spec: TensorSpec
    names: Mapping[str, str]
    values: Mapping[bytes, bytes]

    @classmethod
    def of(cls, name: str, names: Mapping[str, str], signature: Signature) -> "Labels | FieldError":
        """The labels, or why they do not fit the signature (with a pointer into the configuration)."""
        place = pointer("/class_labels", name)
        spec = by_name(signature.outputs).get(name)
        if spec is None:
            known = ", ".join(signature.output_names)
            return FieldError(place, f"{name!r} is not an output of the model; it has {known}")
        if not spec.classes and spec.dtype is not DType.BYTES:
            return FieldError(place, f"the output {name!r} has neither classes nor text")
        for old in names:
            if spec.classes and old not in spec.classes:
                detail = f"{old!r} is not a class of {name!r}; it has {', '.join(spec.classes)}"
                return FieldError(pointer(place, old), detail)
        classes = tuple(names.get(old, old) for old in spec.classes)
        if spec.dtype is DType.BYTES:
            # Two classes of text may get one name; then it is listed once.
            values = {old.encode(): new.encode() for old, new in names.items()}
            return cls(replace(spec, classes=tuple(dict.fromkeys(classes))), names, values)
        if len(set(classes)) < len(classes):
            return FieldError(place, f"two classes of {name!r} would have the same name, and one value would be lost")
        return cls(replace(spec, classes=classes), names, {})

    def apply(self, array: "Array") -> "Array":
        """The same tensor with the new names."""
        if not self.values:
            return array
        from shared.domain.tensors import bytes_tensor

        new = self.values
        return bytes_tensor([new.get(value, value) for value in array.reshape(-1).tolist()]).reshape(array.shape)


def labels_of(config: EndpointConfig, signature: Signature) -> tuple[dict[str, Labels], list[FieldError]]:
    """The labels that fit, by output, and what is wrong with the others."""
    found = {name: Labels.of(name, names, signature) for name, names in config.class_labels.items()}
    return (
        {name: labels for name, labels in found.items() if isinstance(labels, Labels)},
        [labels for labels in found.values() if isinstance(labels, FieldError)],
    )

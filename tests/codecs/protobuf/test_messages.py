"""The generated messages: up to date, and what tritonclient speaks."""

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor
from tritonclient.grpc import model_config_pb2, service_pb2  # type: ignore[import-untyped]

from shared.codecs.protobuf import inference_pb2
from tests.codecs.protobuf.generate import generate


def test_the_generated_modules_are_up_to_date() -> None:
    for path, text in generate().items():
        assert path.read_text() == text, "run tests.codecs.protobuf.generate"


def messages(file: FileDescriptor) -> Iterator[tuple[str, descriptor_pb2.DescriptorProto]]:
    document = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(document)
    waiting = [(message.name, message) for message in document.message_type]
    while waiting:
        name, message = waiting.pop()
        yield name, message
        waiting += [(f"{name}.{nested.name}", nested) for nested in message.nested_type]


def fields(message: descriptor_pb2.DescriptorProto) -> dict[int, Any]:
    return {
        field.number: (field.name, field.type, field.label, field.type_name, field.HasField("oneof_index"))
        for field in message.field
    }


THEIRS = dict(messages(service_pb2.DESCRIPTOR)) | dict(messages(model_config_pb2.DESCRIPTOR))


@pytest.mark.parametrize(("name", "ours"), list(messages(inference_pb2.DESCRIPTOR)))
def test_a_message_has_the_numbers_and_types_of_its_counterpart(
    name: str, ours: descriptor_pb2.DescriptorProto
) -> None:
    assert fields(ours).items() <= fields(THEIRS[name]).items()
    assert ours.options.map_entry == THEIRS[name].options.map_entry


def test_every_message_of_the_service_is_complete() -> None:
    ours = dict(messages(inference_pb2.DESCRIPTOR))
    for name, theirs in messages(service_pb2.DESCRIPTOR):
        assert fields(ours[name]) == fields(theirs)


def test_the_service_has_the_same_methods() -> None:
    def methods(file: FileDescriptor) -> list[Any]:
        document = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(document)
        return [
            (method.name, method.input_type, method.output_type, method.client_streaming, method.server_streaming)
            for method in document.service[0].method
        ]

    assert methods(inference_pb2.DESCRIPTOR) == methods(service_pb2.DESCRIPTOR)


def test_enumerations_have_the_same_numbers() -> None:
    assert dict(inference_pb2.DataType.items()) == dict(model_config_pb2.DataType.items())
    ours, theirs = inference_pb2.ModelInstanceGroup.Kind, model_config_pb2.ModelInstanceGroup.Kind
    assert dict(ours.items()) == dict(theirs.items())

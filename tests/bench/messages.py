"""Envoy's external processing messages for the null and the floor, which share no code with the sidecar.

The schema has only the fields that they read and write: protobuf skips the others. Source: Envoy's
`envoy/service/ext_proc/v3/external_processor.proto`; a test compares the replies with those of envoy-data-plane, whose
own classes are too slow to serve with.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE: Final = "envoy.service.ext_proc.v3.ExternalProcessor"

_PACKAGE: Final = "bench"
_FIELDS: Final = {
    "ProcessingRequest": {
        "request_headers": (2, "HttpHeaders"),
        "response_headers": (3, "HttpHeaders"),
        "request_body": (4, "HttpBody"),
        "response_body": (5, "HttpBody"),
    },
    "HttpHeaders": {},
    "HttpBody": {"body": (1, "bytes"), "end_of_stream": (2, "bool")},
    "ProcessingResponse": {
        "request_headers": (1, "Reply"),
        "response_headers": (2, "Reply"),
        "request_body": (3, "Reply"),
        "response_body": (4, "Reply"),
    },
    "Reply": {"response": (1, "CommonResponse")},
    "CommonResponse": {"body_mutation": (3, "BodyMutation")},
    "BodyMutation": {"streamed_response": (3, "StreamedBodyResponse")},
    "StreamedBodyResponse": {"body": (1, "bytes"), "end_of_stream": (2, "bool")},
}
"""The number and type of each field. `Reply` is Envoy's HeadersResponse and BodyResponse, which look the same."""

_ONE_OF: Final = {"ProcessingRequest": "request"}
_SCALARS: Final = {
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
}


def _classes() -> dict[str, Any]:
    """Return the protobuf class of each message."""
    file = descriptor_pb2.FileDescriptorProto(name="bench.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        if name in _ONE_OF:
            message.oneof_decl.add(name=_ONE_OF[name])
        for field_name, (number, kind) in fields.items():
            field = message.field.add(name=field_name, number=number)
            field.label = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
            if kind in _SCALARS:
                field.type = _SCALARS[kind]
            else:
                field.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
                field.type_name = f".{_PACKAGE}.{kind}"
            if name in _ONE_OF:
                field.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()  # not the default pool, which others fill too
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _FIELDS}


_CLASSES: Final = _classes()
Request: Final = _CLASSES["ProcessingRequest"]
Response: Final = _CLASSES["ProcessingResponse"]


def unchanged(kind: str) -> bytes:
    """Return the reply to a message of this kind (a field of `Request`) that changes nothing."""
    reply = Response()
    getattr(reply, kind).response.SetInParent()
    return bytes(reply.SerializeToString())


def streamed(data: bytes, end_of_stream: bool) -> bytes:
    """Return the reply that releases a piece of the answer's body."""
    reply = Response()
    piece = reply.response_body.response.body_mutation.streamed_response
    piece.body = data
    piece.end_of_stream = end_of_stream
    return bytes(reply.SerializeToString())

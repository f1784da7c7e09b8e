"""Envoy's external processing messages on the wire: `ProcessingRequest` to events, commands to `ProcessingResponse`.

The schema in wire.textproto is generated from envoy-data-plane; the codec is protobuf's C runtime
(docs/adr/0001-wire-codec.md). Source: Envoy's `envoy/service/ext_proc/v3/external_processor.proto`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import IntEnum
from functools import lru_cache
from importlib.resources import files
from typing import Any, assert_never

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError

from extproc.core.commands import (
    ImmediateResponse,
    ReleaseBody,
    ReleaseBuffered,
    ReleaseHeaders,
    ReleaseTrailers,
    Reset,
    ToEnvoy,
)
from extproc.core.errors import ProtocolError
from extproc.core.events import BodyReceived, Event, HeadersReceived, TrailersReceived
from extproc.core.vocabulary import REQUEST, RESPONSE, BodyMode, Headers, Leg
from extproc.telemetry.record import LegRecord

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"

DATA_BYTES = 65_536
"""The most bytes of a body that one message to Envoy contains."""


class BodySendMode(IntEnum):
    """Envoy's `ProcessingMode.BodySendMode`."""

    NONE = 0
    STREAMED = 1
    BUFFERED = 2
    BUFFERED_PARTIAL = 3
    FULL_DUPLEX_STREAMED = 4
    GRPC = 5


CONTINUE_AND_REPLACE = 1
"""A value of Envoy's `CommonResponse.ResponseStatus`."""

OVERWRITE_IF_EXISTS_OR_ADD = 2
"""A value of Envoy's `HeaderValueOption.HeaderAppendAction`."""


def message_classes() -> dict[str, Any]:
    """Return the protobuf classes of the messages in wire.textproto, by name."""
    schema = text_format.Parse(
        (files("extproc.processor") / "wire.textproto").read_text(), descriptor_pb2.FileDescriptorProto()
    )
    pool = descriptor_pool.DescriptorPool()  # not the default pool: other packages register Envoy's messages there
    pool.Add(schema)
    return {
        message.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{schema.package}.{message.name}"))
        for message in schema.message_type
    }


CLASSES = message_classes()
Request = CLASSES["envoy_service_ext_proc_v3_ProcessingRequest"]
Response = CLASSES["envoy_service_ext_proc_v3_ProcessingResponse"]


def parse(data: bytes) -> Any:
    """Return the `ProcessingRequest` in `data`; unknown fields are ignored.

    Raises ProtocolError.
    """
    try:
        return Request.FromString(data)
    except DecodeError as error:
        raise ProtocolError("not a ProcessingRequest") from error


# -- in ----------------------------------------------------------------------------------------------------------


def body_modes(request: Any, *, assume_full_duplex: bool) -> BodyMode:
    """Return the body mode of the request leg from the first message.

    Raises ProtocolError, which names the setting to change, if the filter's modes do not let the sidecar guard traffic.
    """
    if request.observability_mode:
        raise ProtocolError(
            "the filter only observes (observability_mode; in some meshes shadow mode): the data plane ignores every "
            "reply, so nothing is guarded; set it to false"
        )
    if not request.HasField("protocol_config"):
        if assume_full_duplex:
            return BodyMode.FULL_DUPLEX_STREAMED
        raise ProtocolError(
            "the data plane sends no protocol_config; if it is in full duplex on both legs, set assume_full_duplex"
        )
    modes = request.protocol_config
    if modes.response_body_mode != BodySendMode.FULL_DUPLEX_STREAMED:
        raise ProtocolError(
            f"processing_mode.response_body_mode is {_mode(modes.response_body_mode)}; set it to FULL_DUPLEX_STREAMED "
            "(and response_trailer_mode to SEND)"
        )
    match modes.request_body_mode:
        case BodySendMode.BUFFERED:
            return BodyMode.BUFFERED
        case BodySendMode.FULL_DUPLEX_STREAMED:
            return BodyMode.FULL_DUPLEX_STREAMED
        case other:
            raise ProtocolError(
                f"processing_mode.request_body_mode is {_mode(other)}; set it to BUFFERED or FULL_DUPLEX_STREAMED"
            )


def _mode(number: int) -> str:
    try:
        return BodySendMode(number).name
    except ValueError:
        return str(number)


def decode(request: Any) -> Event | None:
    """Return the event in a `ProcessingRequest`, None for an unknown kind, which a newer Envoy may send."""
    match request.WhichOneof("request"):
        case "response_body":
            return BodyReceived(RESPONSE, request.response_body.body, request.response_body.end_of_stream)
        case "request_body":
            return BodyReceived(REQUEST, request.request_body.body, request.request_body.end_of_stream)
        case "request_headers":
            message = request.request_headers
            known = request.metadata_context.filter_metadata if request.HasField("metadata_context") else {}
            attributes = request.attributes
            return HeadersReceived(
                REQUEST,
                _headers(message),
                message.end_of_stream,
                metadata={name: _plain(known[name]) for name in known},
                attributes={name: _plain(attributes[name]) for name in attributes},
            )
        case "response_headers":
            message = request.response_headers
            return HeadersReceived(RESPONSE, _headers(message), message.end_of_stream)
        case "request_trailers":
            return TrailersReceived(REQUEST)
        case "response_trailers":
            return TrailersReceived(RESPONSE)
        case _:
            return None


def _headers(message: Any) -> Headers:
    # The value is in `raw_value`; older data planes use `value`.
    return tuple(
        [(header.key.lower(), header.raw_value.decode("latin-1") or header.value) for header in message.headers.headers]
    )


def _plain(struct: Any) -> dict[str, Any]:
    fields = struct.fields  # its `items` is implemented in Python, and slow
    return {name: _plain_value(fields[name]) for name in fields}


def _plain_value(value: Any) -> Any:
    match value.WhichOneof("kind"):
        case "struct_value":
            return _plain(value.struct_value)
        case "list_value":
            return [_plain_value(item) for item in value.list_value.values]
        case None | "null_value":
            return None
        case kind:
            return getattr(value, kind)


# -- out ---------------------------------------------------------------------------------------------------------


def encode(command: ToEnvoy) -> Iterator[bytes]:
    """Return the `ProcessingResponse`s for a release or an immediate response; none for a reset.

    The pieces of a large body are encoded one at a time, as the iterator advances.
    """
    if isinstance(command, ReleaseBody):
        if len(command.data) > DATA_BYTES:
            return _pieces(command)
        return iter((_streamed(command.leg, command.data, command.end_of_stream),))
    if isinstance(command, Reset):
        return iter(())
    return iter((_encoded_cached(command) if _is_common(command) else _encoded(command),))


def _is_common(command: ReleaseHeaders | ReleaseBuffered | ReleaseTrailers | ImmediateResponse) -> bool:
    match command:
        case ReleaseHeaders():
            return not command.set and sum(map(len, command.remove)) <= _CACHED_NAMES
        case ReleaseBuffered():
            return command.body is None
        case ReleaseTrailers():
            return True
        case _:
            return False


def _encoded(command: ReleaseHeaders | ReleaseBuffered | ReleaseTrailers | ImmediateResponse) -> bytes:
    response = Response()
    match command:
        case ReleaseHeaders():
            common = (response.request_headers if command.leg is REQUEST else response.response_headers).response
            # Envoy needs a response even if nothing changes.
            common.SetInParent()
            if command.replace_body:
                common.status = CONTINUE_AND_REPLACE
            _mutate(common.header_mutation, command.set, command.remove)
        case ReleaseBuffered():
            common = (response.request_body if command.leg is REQUEST else response.response_body).response
            common.SetInParent()
            if command.body is not None:
                common.body_mutation.body = command.body
                _mutate(common.header_mutation, command.set, command.remove)
        case ReleaseTrailers():
            (response.request_trailers if command.leg is REQUEST else response.response_trailers).SetInParent()
        case ImmediateResponse():
            reply = response.immediate_response
            reply.status.code = command.status
            reply.body = command.body
            reply.details = command.details
            _mutate(reply.headers, command.headers, ())
        case _:
            assert_never(command)
    return bytes(response.SerializeToString())


_encoded_cached = lru_cache(maxsize=256)(_encoded)
"""Unmodified traffic needs only a few different messages, so they are cached."""

_CACHED_NAMES = 256
"""The most characters of removed header names in a cached message. Clients choose some of these names."""


def _pieces(command: ReleaseBody) -> Iterator[bytes]:
    """Yield the messages for a body that is too large for one message."""
    data = command.data
    for start in range(0, len(data), DATA_BYTES):
        is_last = start + DATA_BYTES >= len(data)
        yield _streamed(command.leg, data[start : start + DATA_BYTES], is_last and command.end_of_stream)


def _streamed(leg: Leg, data: bytes, end_of_stream: bool) -> bytes:
    response = Response()
    body = (response.response_body if leg is RESPONSE else response.request_body).response
    streamed = body.body_mutation.streamed_response
    streamed.SetInParent()
    streamed.body = data
    streamed.end_of_stream = end_of_stream
    return bytes(response.SerializeToString())


def _mutate(mutation: Any, set_: Headers, remove: tuple[str, ...]) -> None:
    for name, value in set_:
        option = mutation.set_headers.add()
        option.header.key = name
        option.header.raw_value = value.encode("latin-1", "replace")
        option.append_action = OVERWRITE_IF_EXISTS_OR_ADD
    mutation.remove_headers.extend(remove)


def metadata(values: Mapping[str, str | LegRecord]) -> bytes:
    """Return bytes that, appended to an encoded response, add `values` to Envoy's dynamic metadata namespace `aim`.

    Protobuf merges concatenated messages; Envoy merges the entries of the namespace.
    """
    facts = tuple(values.items())
    return _metadata(facts) if "call_id" in values else _metadata_cached(facts)


def _metadata(facts: tuple[tuple[str, str | LegRecord], ...]) -> bytes:
    response = Response()
    fields = response.dynamic_metadata.fields["aim"].struct_value.fields
    for name, value in facts:
        if isinstance(value, str):
            fields[name].string_value = value
        else:
            leg = fields[name].struct_value.fields
            leg["action"].string_value = value.action
            policies = leg["policies"].list_value
            policies.SetInParent()  # makes an empty list appear as a list
            for policy in value.policies:
                policies.values.add().string_value = policy
            leg["ms"].number_value = value.milliseconds
    return bytes(response.SerializeToString())


_metadata_cached = lru_cache(maxsize=512)(_metadata)
"""Verdicts repeat: there are few actions, policies and times. No two exchanges share a call id, so it is not cached."""

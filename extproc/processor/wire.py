"""Envoy's external processing messages on the wire: `ProcessingRequest` to events, commands to `ProcessingResponse`.

The schema is envoy-data-plane's, taken down in wire.textproto; the codec is protobuf's C runtime
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
from extproc.core.vocabulary import BodyMode, Headers, Leg
from extproc.telemetry.record import LegRecord

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"

DATA_BYTES = 65_536
"""Largest piece of a body that goes to Envoy in one message."""


class BodySendMode(IntEnum):
    """Envoy's `ProcessingMode.BodySendMode`."""

    NONE = 0
    STREAMED = 1
    BUFFERED = 2
    BUFFERED_PARTIAL = 3
    FULL_DUPLEX_STREAMED = 4
    GRPC = 5


CONTINUE_AND_REPLACE = 1
"""Of Envoy's `CommonResponse.ResponseStatus`."""

OVERWRITE_IF_EXISTS_OR_ADD = 2
"""Of Envoy's `HeaderValueOption.HeaderAppendAction`."""


def message_classes() -> dict[str, Any]:
    """Return the classes of protobuf's C runtime for the messages that wire.textproto describes, by name."""
    schema = text_format.Parse(
        (files("extproc.processor") / "wire.textproto").read_text(), descriptor_pb2.FileDescriptorProto()
    )
    pool = descriptor_pool.DescriptorPool()  # of our own: other packages bring Envoy's messages too
    pool.Add(schema)
    return {
        message.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{schema.package}.{message.name}"))
        for message in schema.message_type
    }


CLASSES = message_classes()
Request = CLASSES["envoy_service_ext_proc_v3_ProcessingRequest"]
Response = CLASSES["envoy_service_ext_proc_v3_ProcessingResponse"]
Struct = CLASSES["google_protobuf_Struct"]


def parse(data: bytes) -> Any:
    """Return the `ProcessingRequest` in `data`; fields that we do not know are kept and ignored.

    Raises ProtocolError.
    """
    try:
        return Request.FromString(data)
    except DecodeError as error:
        raise ProtocolError("not a ProcessingRequest") from error


# -- in ----------------------------------------------------------------------------------------------------------


def body_modes(request: Any, *, assume_full_duplex: bool) -> BodyMode:
    """Return the request leg's body mode, as the first message declares it.

    Raises ProtocolError, with the setting to change, for a filter that is wired in any way that would not guard.
    """
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
    """Return the event in a `ProcessingRequest`, None for one that a newer Envoy may send and we do not know."""
    match request.WhichOneof("request"):
        case "response_body":
            return BodyReceived(Leg.RESPONSE, request.response_body.body, request.response_body.end_of_stream)
        case "request_body":
            return BodyReceived(Leg.REQUEST, request.request_body.body, request.request_body.end_of_stream)
        case "request_headers":
            message = request.request_headers
            known = request.metadata_context.filter_metadata if request.HasField("metadata_context") else {}
            attributes = request.attributes
            return HeadersReceived(
                Leg.REQUEST,
                _headers(message),
                message.end_of_stream,
                metadata={name: _plain(known[name]) for name in known},
                attributes={name: _plain(attributes[name]) for name in attributes},
            )
        case "response_headers":
            message = request.response_headers
            return HeadersReceived(Leg.RESPONSE, _headers(message), message.end_of_stream)
        case "request_trailers":
            return TrailersReceived(Leg.REQUEST)
        case "response_trailers":
            return TrailersReceived(Leg.RESPONSE)
        case _:
            return None


def _headers(message: Any) -> Headers:
    # The value is in raw_value; `value` is what older data planes fill.
    return tuple(
        [(header.key.lower(), header.raw_value.decode("latin-1") or header.value) for header in message.headers.headers]
    )


def _plain(struct: Any) -> dict[str, Any]:
    fields = struct.fields  # its `items` is Python's, and slow
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
    """Return the `ProcessingResponse`s that a release or a reply becomes; none for a reset.

    Those of a body are made one by one, as they are taken.
    """
    if isinstance(command, ReleaseBody):
        if len(command.data) > DATA_BYTES:
            return _pieces(command)
        return iter((_streamed(command.leg, command.data, command.end_of_stream),))
    if isinstance(command, Reset):
        return iter(())
    return iter((_recalled(command) if _is_common(command) else _encoded(command),))


def _is_common(command: ReleaseHeaders | ReleaseBuffered | ReleaseTrailers | ImmediateResponse) -> bool:
    match command:
        case ReleaseHeaders():
            return not command.set and sum(map(len, command.remove)) <= _SHORT
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
            common = (response.request_headers if command.leg is Leg.REQUEST else response.response_headers).response
            # An empty mutation is an answer too.
            common.SetInParent()
            if command.replace_body:
                common.status = CONTINUE_AND_REPLACE
            _mutate(common.header_mutation, command.set, command.remove)
        case ReleaseBuffered():
            common = (response.request_body if command.leg is Leg.REQUEST else response.response_body).response
            common.SetInParent()
            if command.body is not None:
                common.body_mutation.body = command.body
                _mutate(common.header_mutation, command.set, command.remove)
        case ReleaseTrailers():
            (response.request_trailers if command.leg is Leg.REQUEST else response.response_trailers).SetInParent()
        case ImmediateResponse():
            reply = response.immediate_response
            reply.status.code = command.status
            reply.body = command.body
            reply.details = command.details
            _mutate(reply.headers, command.headers, ())
        case _:
            assert_never(command)
    return bytes(response.SerializeToString())


_recalled = lru_cache(maxsize=256)(_encoded)
"""What goes on as it came is released by the same few messages."""

_SHORT = 256
"""Characters of the names that such a message removes, at most: clients choose some of them."""


def _pieces(command: ReleaseBody) -> Iterator[bytes]:
    """Yield a body that is larger than a message may be."""
    data = command.data
    for start in range(0, len(data), DATA_BYTES):
        is_last = start + DATA_BYTES >= len(data)
        yield _streamed(command.leg, data[start : start + DATA_BYTES], is_last and command.end_of_stream)


def _streamed(leg: Leg, data: bytes, end_of_stream: bool) -> bytes:
    response = Response()
    body = (response.response_body if leg is Leg.RESPONSE else response.request_body).response
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
    """Return what puts `values` under Envoy's dynamic metadata namespace `aim`, to stand behind a response.

    Protobuf merges messages, and the entries of a `Struct`, that stand behind each other.
    """
    response = Response()
    struct = response.dynamic_metadata.fields["aim"].struct_value
    struct.MergeFromString(b"".join([_recalled_entry(name, value) for name, value in values.items()]))
    return bytes(response.SerializeToString())


def _entry(name: str, value: str | LegRecord) -> bytes:
    """Return a `Struct` of one field."""
    struct = Struct()
    target = struct.fields[name]
    if isinstance(value, str):
        target.string_value = value
    else:
        leg = target.struct_value.fields
        leg["action"].string_value = value.action
        policies = leg["policies"].list_value
        policies.SetInParent()  # an empty list is one, too
        for policy in value.policies:
            policies.values.add().string_value = policy
        leg["ms"].number_value = value.milliseconds
    return bytes(struct.SerializeToString())


_recalled_entry = lru_cache(maxsize=512)(_entry)
"""Profiles, dialects and verdicts are few; an exchange says its id three times."""

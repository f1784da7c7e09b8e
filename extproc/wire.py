"""Envoy's external processing messages on the wire: `ProcessingRequest` to events, commands to `ProcessingResponse`.

The schema is envoy-data-plane's; the codec is protobuf's C runtime, with message classes compiled from
envoy-data-plane's own field metadata (docs/adr/0001-wire-codec.md). Source: Envoy's
`envoy/service/ext_proc/v3/external_processor.proto`.
"""

from __future__ import annotations

import dataclasses
import importlib
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import betterproto2
from envoy_data_plane.envoy.config.core.v3 import HeaderValueOptionHeaderAppendAction as HeaderAppendAction
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import ProcessingModeBodySendMode as BodySendMode
from envoy_data_plane.envoy.service.ext_proc.v3 import (
    CommonResponseResponseStatus,
    ProcessingRequest,
    ProcessingResponse,
)
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from extproc.errors import ProtocolError
from extproc.events import (
    BodyMode,
    BodyReceived,
    Command,
    Event,
    Headers,
    HeadersReceived,
    Leg,
    ReleaseBody,
    ReleaseBuffered,
    ReleaseHeaders,
    ReleaseTrailers,
    Reply,
    TrailersReceived,
)

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"

DATA_BYTES = 65_536
"""Largest piece of a body that goes to Envoy in one message."""

_PACKAGE = "extproc.wire"
_Type = descriptor_pb2.FieldDescriptorProto


class MessageClasses:
    """Message classes of protobuf's C runtime for envoy-data-plane's, compiled on first sight of each."""

    def __init__(self, *roots: type[betterproto2.Message]) -> None:
        """Compile `roots` and every message that they reach."""
        self._file = descriptor_pb2.FileDescriptorProto(name="extproc/wire.proto", package=_PACKAGE, syntax="proto3")
        self._names: dict[type, str] = {}
        for root in roots:
            self._declare(root)
        pool = descriptor_pool.DescriptorPool()
        pool.Add(self._file)
        self._classes = {
            source: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
            for source, name in self._names.items()
        }

    def __getitem__(self, source: type[betterproto2.Message]) -> type[Message]:
        """Return the class that stands for `source`."""
        return self._classes[source]

    def __iter__(self) -> Iterator[tuple[type[betterproto2.Message], type[Message]]]:
        """Yield (envoy-data-plane's class, ours) for each message."""
        return iter(self._classes.items())

    def _declare(self, source: type[Any]) -> str:
        """Add the descriptor of `source`; return its full name."""
        if source not in self._names:
            # The module keeps two messages of one name apart.
            self._names[source] = name = f"{source.__module__}.{source.__name__}".replace(".", "_")
            message = descriptor_pb2.DescriptorProto(name=name)
            hints = _hints(source)
            groups: dict[str, int] = {}
            for attribute in dataclasses.fields(source):
                meta = attribute.metadata["betterproto"]
                if meta.group and meta.group not in groups:
                    groups[meta.group] = len(groups)
                    message.oneof_decl.add(name=meta.group)
            for attribute in dataclasses.fields(source):
                meta = attribute.metadata["betterproto"]
                field = message.field.add(name=attribute.name, number=meta.number)
                self._describe(field, meta, hints[attribute.name], message)
                if meta.group:
                    field.oneof_index = groups[meta.group]
                elif meta.optional and meta.proto_type != "message":
                    field.proto3_optional = True
                    field.oneof_index = len(message.oneof_decl)
                    message.oneof_decl.add(name=f"_{attribute.name}")
            self._file.message_type.append(message)
        return f".{_PACKAGE}.{self._names[source]}"

    def _describe(self, field: Any, meta: Any, hint: Any, message: Any) -> None:
        field.label = _Type.LABEL_REPEATED if meta.repeated or meta.map_meta else _Type.LABEL_OPTIONAL
        if meta.map_meta:
            entry = message.nested_type.add(name="".join(part.title() for part in field.name.split("_")) + "Entry")
            entry.options.map_entry = True
            for number, (name, part, part_hint) in enumerate(
                zip(("key", "value"), meta.map_meta, typing.get_args(hint), strict=True), 1
            ):
                self._describe(entry.field.add(name=name, number=number), part, part_hint, message)
            field.type = _Type.TYPE_MESSAGE
            field.type_name = f".{_PACKAGE}.{message.name}.{entry.name}"
        elif meta.proto_type == "message":
            field.type = _Type.TYPE_MESSAGE
            field.type_name = self._declare(meta.unwrap() if meta.unwrap else _bare(hint))
        else:
            # An enum is a varint like int32; its names are not needed here.
            kind = "INT32" if meta.proto_type == "enum" else meta.proto_type.upper()
            field.type = getattr(_Type, f"TYPE_{kind}")


def _hints(source: type[Any]) -> dict[str, Any]:
    module = vars(importlib.import_module(source.__module__))
    return typing.get_type_hints(source, module)


def _bare(hint: Any) -> Any:
    """Return the message class inside `X | None` or `list[X]`."""
    arguments = [argument for argument in typing.get_args(hint) if argument is not type(None)]
    return _bare(arguments[0]) if arguments else hint


CLASSES = MessageClasses(ProcessingRequest, ProcessingResponse)
_Request: Any = CLASSES[ProcessingRequest]
_Response: Any = CLASSES[ProcessingResponse]


def parse(data: bytes) -> Any:
    """Return the `ProcessingRequest` in `data`; fields that we do not know are kept and ignored.

    Raises ProtocolError.
    """
    try:
        return _Request.FromString(data)
    except DecodeError as error:
        raise ProtocolError("not a ProcessingRequest") from error


def serialise(response: Message) -> bytes:
    """Return the bytes of a `ProcessingResponse`."""
    return bytes(response.SerializeToString())


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
        return BodySendMode(number).name or str(number)
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
            return _headers(Leg.REQUEST, request.request_headers, request)
        case "response_headers":
            return _headers(Leg.RESPONSE, request.response_headers, request)
        case "request_trailers":
            return TrailersReceived(Leg.REQUEST)
        case "response_trailers":
            return TrailersReceived(Leg.RESPONSE)
        case _:
            return None


def _headers(leg: Leg, message: Any, request: Any) -> HeadersReceived:
    # The value is in raw_value; `value` is what older data planes fill.
    headers: Headers = tuple(
        (header.key.lower(), header.raw_value.decode("latin-1") or header.value) for header in message.headers.headers
    )
    return HeadersReceived(
        leg,
        headers,
        message.end_of_stream,
        metadata={name: _plain(value) for name, value in request.metadata_context.filter_metadata.items()},
        attributes={name: _plain(value) for name, value in request.attributes.items()},
    )


def _plain(struct: Any) -> dict[str, Any]:
    return {name: _plain_value(value) for name, value in struct.fields.items()}


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


def encode(command: Command) -> list[Any]:
    """Return the `ProcessingResponse`s that a release or a reply becomes; none for other commands."""
    match command:
        case ReleaseBody():
            return [
                _streamed(command.leg, piece, is_last and command.end_of_stream)
                for piece, is_last in _pieces(command.data)
            ]
        case ReleaseHeaders():
            response = _Response()
            common = (response.request_headers if command.leg is Leg.REQUEST else response.response_headers).response
            # An empty mutation is an answer too.
            common.SetInParent()
            if command.replace_body:
                common.status = CommonResponseResponseStatus.CONTINUE_AND_REPLACE
            _mutate(common.header_mutation, command.set, command.remove)
            return [response]
        case ReleaseBuffered():
            response = _Response()
            common = (response.request_body if command.leg is Leg.REQUEST else response.response_body).response
            common.SetInParent()
            if command.body is not None:
                common.body_mutation.body = command.body
                _mutate(common.header_mutation, command.set, command.remove)
            return [response]
        case ReleaseTrailers():
            response = _Response()
            (response.request_trailers if command.leg is Leg.REQUEST else response.response_trailers).SetInParent()
            return [response]
        case Reply():
            response = _Response()
            reply = response.immediate_response
            reply.status.code = command.status
            reply.body = command.body
            reply.details = command.details
            _mutate(reply.headers, command.headers, ())
            return [response]
        case _:
            return []


def _pieces(data: bytes) -> Iterator[tuple[bytes, bool]]:
    """Yield (piece, is it the last) of a body; one empty piece for an empty body."""
    for start in range(0, max(len(data), 1), DATA_BYTES):
        yield data[start : start + DATA_BYTES], start + DATA_BYTES >= len(data)


def _streamed(leg: Leg, data: bytes, end_of_stream: bool) -> Any:
    response = _Response()
    body = (response.response_body if leg is Leg.RESPONSE else response.request_body).response
    streamed = body.body_mutation.streamed_response
    streamed.SetInParent()
    streamed.body = data
    streamed.end_of_stream = end_of_stream
    return response


def _mutate(mutation: Any, set_: Headers, remove: tuple[str, ...]) -> None:
    for name, value in set_:
        option = mutation.set_headers.add()
        option.header.key = name
        option.header.raw_value = value.encode("latin-1", "replace")
        option.append_action = HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
    mutation.remove_headers.extend(remove)


def attach_metadata(response: Any, metadata: Mapping[str, Any]) -> None:
    """Put values under Envoy's dynamic metadata namespace `aim`."""
    _fill(response.dynamic_metadata.fields["aim"].struct_value, metadata)


def _fill(struct: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        _fill_value(struct.fields[name], value)


def _fill_value(target: Any, value: Any) -> None:
    match value:
        case Mapping():
            target.struct_value.SetInParent()
            _fill(target.struct_value, value)
        case list():
            target.list_value.SetInParent()
            for item in value:
                _fill_value(target.list_value.values.add(), item)
        case str():
            target.string_value = value
        case _:
            target.number_value = value

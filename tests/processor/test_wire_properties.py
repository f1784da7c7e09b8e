"""The sidecar's codec and that of envoy-data-plane read and write the same bytes, for every message in use."""

from __future__ import annotations

from typing import Any

import pytest
from envoy_data_plane.envoy.config.core.v3 import HeaderValueOptionHeaderAppendAction
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import ProcessingModeBodySendMode
from envoy_data_plane.envoy.service.ext_proc.v3 import CommonResponseResponseStatus, ProcessingResponse
from google.protobuf.descriptor import FieldDescriptor as Field
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.errors import ProtocolError
from extproc.processor import wire
from tools.wire_schema import TARGET, schema

_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    Field.TYPE_BOOL: st.booleans(),
    Field.TYPE_STRING: st.text(max_size=8),
    Field.TYPE_BYTES: st.binary(max_size=8),
    Field.TYPE_INT32: st.integers(0, 5),  # enums among them: envoy-data-plane refuses unknown numbers
    Field.TYPE_INT64: st.integers(-(2**40), 2**40),
    Field.TYPE_UINT32: st.integers(0, 2**32 - 1),
    Field.TYPE_UINT64: st.integers(0, 2**64 - 1),
    Field.TYPE_DOUBLE: st.floats(allow_nan=False),
    Field.TYPE_FLOAT: st.floats(allow_nan=False, width=32),
}
_ENUMS = {"status": 1, "append_action": 2, "code": 200}
_UNUSED = {"override_message_timeout", "append"}
"""Fields that become a timedelta and a bool in envoy-data-plane, where an empty value equals a missing one."""


@st.composite
def messages(draw: st.DrawFn, kind: type[Any], depth: int = 4) -> Any:
    """Draw a message. Maps have at most one entry, because their order on the wire is undefined."""
    message = kind()
    for field in message.DESCRIPTOR.fields:
        if field.containing_oneof and message.WhichOneof(field.containing_oneof.name):
            continue
        if field.name in _UNUSED or not draw(st.booleans()):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            value_field = field.message_type.fields_by_name["value"]
            key = draw(st.text(max_size=4))
            target = getattr(message, field.name)
            if value_field.message_type is None:
                target[key] = draw(_SCALARS[value_field.type])
            elif depth:
                target[key].CopyFrom(draw(messages(type(target[key]), depth - 1)))
        elif field.type == Field.TYPE_MESSAGE:
            if not depth:
                continue
            if field.is_repeated:
                target = getattr(message, field.name).add()
            else:
                target = getattr(message, field.name)
                target.SetInParent()
            target.CopyFrom(draw(messages(type(target), depth - 1)))
        elif field.is_repeated:
            getattr(message, field.name).append(draw(_SCALARS[field.type]))
        else:
            is_enum = field.type == Field.TYPE_INT32 and field.name in _ENUMS
            value = _ENUMS[field.name] if is_enum else draw(_SCALARS[field.type])
            setattr(message, field.name, value)
    return message


def _is_comparable(name: str) -> bool:
    # Durations and wrappers become Python values in envoy-data-plane, where an empty value equals a missing one.
    return name not in {"Duration", "BoolValue"}


CLASSES = [(source, wire.CLASSES[name]) for source, name in schema().names.items()]
PAIRS = [(source, ours) for source, ours in CLASSES if _is_comparable(source.__name__)]


@pytest.mark.filterwarnings("ignore:.* is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("source", "ours"), PAIRS, ids=lambda kind: kind.__name__)
def test_both_codecs_read_and_write_the_same_bytes(source: type[Any], ours: type[Any]) -> None:
    @given(messages(ours))
    @settings(max_examples=25, deadline=None)
    def check(message: Any) -> None:
        data = message.SerializeToString(deterministic=True)
        theirs = source.parse(data)
        written = bytes(theirs)
        assert ours.FromString(written) == message
        assert len(written) == len(data)
        assert sorted(written) == sorted(data)

    check()


def test_schema_matches_envoy_data_plane() -> None:
    assert TARGET.read_text() == schema().text(), "run `make schema`"


def test_enums_match_envoy_data_plane() -> None:
    assert {each.name: each.value for each in wire.BodySendMode} == {
        each.name: each.value for each in ProcessingModeBodySendMode
    }
    response = wire.Response()
    response.request_headers.response.status = wire.CONTINUE_AND_REPLACE
    option = response.request_headers.response.header_mutation.set_headers.add()
    option.append_action = wire.OVERWRITE_IF_EXISTS_OR_ADD
    theirs = ProcessingResponse.parse(response.SerializeToString()).request_headers.response
    assert theirs.status is CommonResponseResponseStatus.CONTINUE_AND_REPLACE
    (option,) = theirs.header_mutation.set_headers
    assert option.append_action is HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD


def test_fields_numbers_and_types_match_envoy_data_plane() -> None:
    """No field is missing: the descriptors have the same fields as the dataclasses."""
    import dataclasses

    for source, ours in CLASSES:
        theirs = {field.name: field.metadata["betterproto"].number for field in dataclasses.fields(source)}
        assert {field.name: field.number for field in ours.DESCRIPTOR.fields} == theirs


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_message_or_a_protocol_error(data: bytes) -> None:
    try:
        request = wire.parse(data)
        wire.decode(request)
        wire.body_modes(request, assume_full_duplex=True)
    except ProtocolError:
        pass

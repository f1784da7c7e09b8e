"""The codec: Envoy's messages become events, and commands become messages for Envoy."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import ProcessingModeBodySendMode as Mode
from envoy_data_plane.envoy.service.ext_proc.v3 import CommonResponseResponseStatus, ProcessingResponse

from extproc.core.commands import (
    ImmediateResponse,
    ReleaseBody,
    ReleaseBuffered,
    ReleaseHeaders,
    ReleaseTrailers,
    Reset,
)
from extproc.core.errors import ProtocolError
from extproc.core.events import BodyReceived, TrailersReceived
from extproc.core.verdict import Allow, Block, Monitor
from extproc.core.vocabulary import BodyMode, Leg
from extproc.processor import wire
from extproc.telemetry.record import ExchangeRecord, LegRecord


def request() -> Any:
    return wire.Request()


def sent(command: Any) -> list[ProcessingResponse]:
    """Return what envoy-data-plane reads from the encoded command."""
    return [ProcessingResponse.parse(message) for message in wire.encode(command)]


class TestDecode:
    def test_headers_are_decoded(self) -> None:
        message = request()
        for name, raw, value in (("X-A", b"\xe9", ""), (":path", b"", "/old"), ("x-a", b"2", "")):
            message.request_headers.headers.headers.add(key=name, raw_value=raw, value=value)
        message.request_headers.end_of_stream = True
        message.metadata_context.filter_metadata["jwt"].fields["email"].string_value = "a@b.c"
        inner = message.metadata_context.filter_metadata["jwt"].fields["deep"].struct_value
        inner.fields["list"].list_value.values.add().number_value = 1.5
        inner.fields["none"].null_value = 0
        inner.fields["flag"].bool_value = True
        message.attributes["envoy.filters.http.ext_proc"].fields["xds.route_name"].string_value = "r"
        event = wire.decode(message)
        assert event is not None
        assert event.headers == (("x-a", "\xe9"), (":path", "/old"), ("x-a", "2"))  # type: ignore[union-attr]
        assert event.end_of_stream  # type: ignore[union-attr]
        assert event.metadata == {  # type: ignore[union-attr]
            "jwt": {"email": "a@b.c", "deep": {"list": [1.5], "none": None, "flag": True}}
        }
        assert event.attributes == {"envoy.filters.http.ext_proc": {"xds.route_name": "r"}}  # type: ignore[union-attr]

    @pytest.mark.parametrize("leg", list(Leg))
    def test_bodies_and_trailers_are_decoded(self, leg: Leg) -> None:
        message = request()
        body = getattr(message, f"{leg}_body")
        body.body, body.end_of_stream = b"x", True
        assert wire.decode(message) == BodyReceived(leg, b"x", True)
        message = request()
        getattr(message, f"{leg}_trailers").SetInParent()
        assert wire.decode(message) == TrailersReceived(leg)

    def test_unknown_fields_of_a_newer_envoy_are_ignored(self) -> None:
        assert wire.decode(request()) is None
        unknown = b"\xaa\x06\x03abc"  # field 101
        message = request()
        message.response_body.body = b"x"
        assert wire.decode(wire.parse(message.SerializeToString() + unknown)) == BodyReceived(Leg.RESPONSE, b"x")
        assert wire.decode(wire.parse(unknown)) is None

    def test_garbage_is_a_protocol_error(self) -> None:
        with pytest.raises(ProtocolError):
            wire.parse(b"\xff\xff\xff")


class TestModes:
    @pytest.mark.parametrize(
        ("request_mode", "expected"),
        [(Mode.BUFFERED, BodyMode.BUFFERED), (Mode.FULL_DUPLEX_STREAMED, BodyMode.FULL_DUPLEX_STREAMED)],
    )
    def test_guarding_modes_are_accepted(self, request_mode: Mode, expected: BodyMode) -> None:
        message = request()
        message.protocol_config.request_body_mode = request_mode
        message.protocol_config.response_body_mode = Mode.FULL_DUPLEX_STREAMED
        assert wire.body_modes(message, assume_full_duplex=False) is expected

    @pytest.mark.parametrize(
        ("request_mode", "response_mode", "setting"),
        [
            (Mode.NONE, Mode.FULL_DUPLEX_STREAMED, "request_body_mode is NONE"),
            (Mode.STREAMED, Mode.FULL_DUPLEX_STREAMED, "request_body_mode is STREAMED"),
            (Mode.BUFFERED, Mode.NONE, "response_body_mode is NONE"),
            (Mode.BUFFERED, Mode.STREAMED, "response_body_mode is STREAMED"),
            (Mode.BUFFERED, 77, "response_body_mode is 77"),
        ],
    )
    def test_error_for_another_mode_names_the_setting(
        self, request_mode: int, response_mode: int, setting: str
    ) -> None:
        message = request()
        message.protocol_config.request_body_mode = request_mode
        message.protocol_config.response_body_mode = response_mode
        with pytest.raises(ProtocolError, match=setting):
            wire.body_modes(message, assume_full_duplex=True)

    def test_data_plane_without_protocol_config_is_refused_by_default(self) -> None:
        assert wire.body_modes(request(), assume_full_duplex=True) is BodyMode.FULL_DUPLEX_STREAMED
        with pytest.raises(ProtocolError, match="assume_full_duplex"):
            wire.body_modes(request(), assume_full_duplex=False)

    @pytest.mark.parametrize("modes", [(Mode.BUFFERED, Mode.FULL_DUPLEX_STREAMED), ()])
    @pytest.mark.parametrize("assume", [True, False])
    def test_filter_that_only_observes_is_refused(self, modes: tuple[Mode, ...], assume: bool) -> None:
        message = request()
        message.observability_mode = True
        if modes:
            message.protocol_config.request_body_mode, message.protocol_config.response_body_mode = modes
        with pytest.raises(ProtocolError, match="only observes") as refused:
            wire.body_modes(message, assume_full_duplex=assume)
        assert "assume_full_duplex" not in str(refused.value)


class TestEncode:
    @pytest.mark.parametrize("leg", list(Leg))
    def test_headers_are_encoded(self, leg: Leg) -> None:
        (response,) = sent(ReleaseHeaders(leg, set=(("a", "\xe9"),), remove=("b",), replace_body=True))
        common = getattr(response, f"{leg}_headers").response
        assert common.status is CommonResponseResponseStatus.CONTINUE_AND_REPLACE
        assert common.header_mutation.set_headers[0].header.raw_value == b"\xe9"
        assert common.header_mutation.remove_headers == ["b"]
        (response,) = sent(ReleaseHeaders(leg))
        assert getattr(response, f"{leg}_headers").response is not None

    @pytest.mark.parametrize("leg", list(Leg))
    def test_body_is_sent_in_pieces_of_64_kib(self, leg: Leg) -> None:
        data = bytes(range(256)) * 600
        pieces = [
            getattr(response, f"{leg}_body").response.body_mutation.streamed_response
            for response in sent(ReleaseBody(leg, data, end_of_stream=True))
        ]
        assert [len(piece.body) for piece in pieces] == [65536, 65536, len(data) - 131072]
        assert [piece.end_of_stream for piece in pieces] == [False, False, True]
        assert b"".join(piece.body for piece in pieces) == data

    def test_pieces_are_made_lazily(self) -> None:
        """All pieces together are as large as the body, and they may have to wait for Envoy."""
        data = bytes(20 * 1024 * 1024)
        tracemalloc.start()
        try:
            next(iter(wire.encode(ReleaseBody(Leg.RESPONSE, data, end_of_stream=True))))
            assert tracemalloc.get_traced_memory()[1] < 4 * wire.DATA_BYTES
        finally:
            tracemalloc.stop()

    def test_empty_end_is_encoded(self) -> None:
        (response,) = sent(ReleaseBody(Leg.RESPONSE, b"", end_of_stream=True))
        streamed = response.response_body.response.body_mutation.streamed_response
        assert (streamed.body, streamed.end_of_stream) == (b"", True)

    @pytest.mark.parametrize("leg", list(Leg))
    def test_buffered_bodies_are_encoded(self, leg: Leg) -> None:
        (response,) = sent(ReleaseBuffered(leg))
        assert getattr(response, f"{leg}_body").response.body_mutation is None
        (response,) = sent(ReleaseBuffered(leg, b"new", set=(("content-length", "3"),), remove=("etag",)))
        common = getattr(response, f"{leg}_body").response
        assert common.body_mutation.body == b"new"
        assert common.header_mutation.remove_headers == ["etag"]

    @pytest.mark.parametrize("leg", list(Leg))
    def test_trailers_are_encoded(self, leg: Leg) -> None:
        (response,) = sent(ReleaseTrailers(leg))
        assert getattr(response, f"{leg}_trailers") is not None

    def test_immediate_response_is_encoded(self) -> None:
        (response,) = sent(ImmediateResponse(400, (("content-type", "application/json"),), b"{}", "aim_x"))
        reply = response.immediate_response
        assert reply is not None
        assert (reply.status.code, reply.body, reply.details) == (400, b"{}", "aim_x")

    def test_other_commands_are_not_for_envoy(self) -> None:
        assert list(wire.encode(Reset("gone"))) == []

    def test_metadata_is_encoded(self) -> None:
        (message,) = wire.encode(ReleaseTrailers(Leg.RESPONSE))
        record = ExchangeRecord("a-call", "default", "openai-chat")
        policies = ("p", "q" * 200)
        record.reach("allowed")
        shown: dict[str, Any] = {}
        for verdict in (Allow(policies), Monitor(policies), Block("no", policies)):
            for leg in Leg:
                record.add_outcomes(leg, [verdict], 3)
                read = ProcessingResponse.parse(message + wire.metadata(record.take_untold()))
                assert read.response_trailers is not None
                assert read.dynamic_metadata is not None
                shown |= read.dynamic_metadata.to_dict()["aim"]
                assert shown == record.as_fields()

    def test_metadata_may_have_no_policies(self) -> None:
        read = ProcessingResponse.parse(wire.metadata({"call_id": "c", "request": LegRecord("allow")}))
        assert read.dynamic_metadata is not None
        leg = {"action": "allow", "policies": [], "ms": 0}
        assert read.dynamic_metadata.to_dict() == {"aim": {"call_id": "c", "request": leg}}

    def test_long_names_to_remove_are_encoded(self) -> None:
        names = tuple(f"x-aim-{'n' * 100}-{number}" for number in range(5))
        (response,) = sent(ReleaseHeaders(Leg.REQUEST, remove=names))
        assert response.request_headers.response.header_mutation.remove_headers == list(names)

"""Write extproc/processor/wire.textproto: descriptors of Envoy's ext_proc messages, from envoy-data-plane's metadata.

    make schema

Serving reads that file and does not import envoy-data-plane (docs/adr/0001-wire-codec.md).
"""

from __future__ import annotations

import dataclasses
import importlib
import typing
from importlib.metadata import version
from pathlib import Path
from typing import Any

from envoy_data_plane.envoy.service.ext_proc.v3 import ProcessingRequest, ProcessingResponse
from google.protobuf import descriptor_pb2, text_format

TARGET = Path(__file__).resolve().parents[1] / "extproc" / "processor" / "wire.textproto"

_PACKAGE = "extproc.processor.wire"
_SOURCE = "envoy_data_plane."
_Type = descriptor_pb2.FieldDescriptorProto


class Schema:
    """The descriptors of some of envoy-data-plane's messages, and of all messages that they reference."""

    def __init__(self, *roots: type[Any]) -> None:
        """Describe `roots` and every message that they reference; `names` maps each class to its message's name."""
        self.file = descriptor_pb2.FileDescriptorProto(
            name="extproc/processor/wire.proto", package=_PACKAGE, syntax="proto3"
        )
        self.names: dict[type, str] = {}
        for root in roots:
            self._declare(root)

    def text(self) -> str:
        """Return the descriptors in protobuf's text format."""
        source = f"envoy-data-plane {version('envoy-data-plane')}"
        return f"# Made by `make schema` from {source}.\n\n{text_format.MessageToString(self.file)}"

    def _declare(self, source: type[Any]) -> str:
        """Add the descriptor of `source` and return its full name."""
        if source not in self.names:
            # The module's name distinguishes messages of the same name.
            name = f"{source.__module__.removeprefix(_SOURCE)}.{source.__name__}".replace(".", "_")
            self.names[source] = name
            message = descriptor_pb2.DescriptorProto(name=name)
            hints = typing.get_type_hints(source, vars(importlib.import_module(source.__module__)))
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
            self.file.message_type.append(message)
        return f".{_PACKAGE}.{self.names[source]}"

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


def _bare(hint: Any) -> Any:
    """Return the message class inside `X | None` or `list[X]`."""
    arguments = [argument for argument in typing.get_args(hint) if argument is not type(None)]
    return _bare(arguments[0]) if arguments else hint


def schema() -> Schema:
    """Describe the messages that Envoy sends and receives."""
    return Schema(ProcessingRequest, ProcessingResponse)


if __name__ == "__main__":
    TARGET.write_text(schema().text())

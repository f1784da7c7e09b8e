"""Reads a request: whether at all, by which dialect, and under the profile of which model."""

from __future__ import annotations

from extproc.core.commands import ReportUnmatched
from extproc.core.content.document import Document
from extproc.core.content.media_type import is_form, media_types
from extproc.core.context import Context
from extproc.core.dialects.base import Dialect
from extproc.core.dialects.choice import choose
from extproc.core.dialects.endpoints import MCP
from extproc.core.dialects.json_rpc import read_known
from extproc.core.dialects.model_name import model_names, requested_models
from extproc.core.policy import Inspect, Unmatched
from extproc.core.reading import Reading, Scope, begun_reading, request_reading
from extproc.core.refusal import PATH_NOT_ALLOWED
from extproc.core.vocabulary import Headers
from extproc.core.whole_request import WholeRequest, parse_request, read_form


class RequestReader:
    """Reads one request. The path has been looked up: what is found by its headers and its body is added to that."""

    __slots__ = ("_context", "_inspection", "headers", "length")

    def __init__(self, context: Context) -> None:
        """Begin without headers."""
        self._context = context
        self._inspection = context.inspection
        self.headers: Headers = ()
        self.length = -1
        """The declared length of the body; -1 if none is declared."""

    def reading(self, end_of_stream: bool) -> Reading:
        """Return how the request is read, as far as its headers tell. `end_of_stream`: it has no body."""
        inspection = self._inspection
        if inspection.scope is Scope.KNOWN:
            return Reading.WHOLE
        if inspection.scope is Scope.NOTHING or end_of_stream:
            return Reading.UNREAD
        reading = request_reading(media_types(self.headers), self.length, self._context.limits.request_bytes)
        if reading is not Reading.UNDECIDED and reading is not Reading.UNREAD:
            inspection.adopt()
        return reading

    def read_nothing(self) -> None:
        """Choose dialect and profile of a request without a body."""
        inspection = self._inspection
        self._choose(b"")
        if inspection.policy.models and inspection.scope is not Scope.NOTHING:
            inspection.follow_models(model_names(None, self._context.path))

    def read(self, body: WholeRequest) -> None:
        """Find the texts of a whole body; raises ContentError.

        There are none if it is not to be read: no dialect is found for it, or the profile of its model reads nothing.
        """
        context, inspection = self._context, self._inspection
        if inspection.dialect is None or not body.buffer.size:
            return  # a body of white space, or none, of a type that does not say what it is
        if not inspection.choices:
            inspection.was_read = True
        plain = body.inflate(self.headers, context.limits)
        values = context.limits.values
        document = self._choose(plain)
        if inspection.scope is Scope.UNMATCHED and (known := read_known(plain, document, values)):
            document = known
            inspection.recognise(MCP)
        dialect = inspection.dialect
        if dialect is None or inspection.scope is Scope.NOTHING or context.is_refused:
            return
        inspection.was_read = True
        document = parse_request(dialect, plain, document, self.headers, values)
        if document is None:
            return
        if inspection.policy.models:
            names = () if inspection.is_stored else requested_models(document.root, context.path)
            if not inspection.follow_models(names):
                return
        if inspection.policy.answers_blocks:
            context.model = next(iter(model_names(document.root, context.path)), "")
        try:
            tools = Inspect.TOOLS in inspection.policy.inspect
            body.read(dialect, document, context.path, len(plain), tools=tools)
            context.asks_for_stream = body.asks_for_stream
        finally:
            inspection.dialect = body.after or dialect

    def _choose(self, plain: bytes) -> Document | None:
        """Choose the dialect by the body if the path has several; return the document if it was parsed.

        A body that belongs to none of them is read, passed or refused as on an unmatched path.
        """
        context, inspection = self._context, self._inspection
        if not inspection.choices:
            return None
        values = context.limits.values

        def form(dialect: Dialect) -> Document:
            return read_form(dialect, plain, self.headers, values)

        is_called_form = any(map(is_form, media_types(self.headers)))
        dialect, document = choose(inspection.choices, plain, values, form if is_called_form else None)
        inspection.settle(dialect)
        if dialect is None:
            context.emit(ReportUnmatched(dict(reversed(self.headers)).get(":method", ""), context.path))
        if inspection.scope is Scope.UNMATCHED:
            types = media_types(self.headers)
            reading = request_reading(types, len(plain), context.limits.request_bytes)
            if reading is Reading.UNDECIDED:
                reading = begun_reading(plain, is_all=True)
            if plain and reading is not Reading.UNREAD:
                inspection.adopt()
        elif dialect is None and inspection.unmatched is Unmatched.BLOCK:
            context.refuse(PATH_NOT_ALLOWED)
        return document

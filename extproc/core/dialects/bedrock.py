"""What the APIs of Amazon Bedrock's runtime share: their errors, and paths that say whether an answer is a stream.

Source: the service model of `bedrock-runtime` in botocore (API version 2023-09-30), and the Bedrock API reference.
"""

from __future__ import annotations

import json

from extproc.core.content.document import Document
from extproc.core.content.framing import Framing
from extproc.core.dialects.base import Dialect, endpoint
from extproc.core.refusal import Refusal
from extproc.core.vocabulary import Headers

ERROR_TYPE = "x-amzn-errortype"
"""The header by which AWS's SDKs choose the class of an exception."""

_ERRORS = {403: "AccessDeniedException", 503: "ServiceUnavailableException"}


class BedrockDialect(Dialect):
    """A dialect of Bedrock's runtime."""

    def streams(self, document: Document, path: str) -> bool:
        """Return whether the path asks for a stream. The body does not say it."""
        return endpoint(path).endswith("-stream")

    def stream_framing(self, path: str) -> Framing:
        """Return the framing of a stream."""
        return Framing.AWS_EVENT_STREAM

    def refuse(self, refusal: Refusal) -> bytes:
        """Return Bedrock's error object."""
        return json.dumps({"message": refusal.message}).encode()

    def refusal_headers(self, refusal: Refusal) -> Headers:
        """Return the header with the type of the error."""
        kind = "ValidationException" if refusal.status < 500 else "InternalServerException"
        return ((ERROR_TYPE, _ERRORS.get(refusal.status, kind)),)

    def refuse_stream(self, refusal: Refusal, sequence: int) -> bytes:
        """Return the error object as an event. Bedrock itself streams frames; see `refuse_frame`."""
        return b"data: " + self.refuse(refusal) + b"\n\n"

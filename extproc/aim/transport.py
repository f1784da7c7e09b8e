"""httpx's transport over an aiohttp session, with nothing between them that a question to Aim has no use for.

httpx-aiohttp's own translates for each request what clients of httpx offer: timeouts by phase, streamed bodies, httpx's
exceptions. Here deadlines are the caller's, bodies are bytes, and aiohttp's exceptions are left as they are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from multidict import CIMultiDict
from yarl import URL


class Transport(AiohttpTransport):
    """Sends requests whose body is at hand."""

    def __init__(self, connect: Callable[[], aiohttp.ClientSession], proxy: httpx.Proxy | None) -> None:
        """Send through the session that `connect` makes on first use, by way of `proxy`."""
        super().__init__(verify=False, client=connect)  # the session has its own TLS settings
        self._proxying: dict[str, Any] = {}
        if proxy is not None:
            self._proxying["proxy"] = URL(str(proxy.url))
            if proxy.auth is not None:
                self._proxying["proxy_auth"] = aiohttp.BasicAuth(*proxy.auth)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response as soon as its head is there.

        Raises aiohttp.ClientError and OSError.
        """
        if not isinstance(self.client, aiohttp.ClientSession):
            self.client = self.get_client()
        response = await self.client.request(
            request.method,
            URL(str(request.url)),
            headers=CIMultiDict((name.decode(), value.decode()) for name, value in request.headers.raw),
            data=request.read(),
            allow_redirects=False,
            **self._proxying,
        )
        return httpx.Response(response.status, headers=response.raw_headers, stream=_Body(response))


class _Body(httpx.AsyncByteStream):
    """The body of a response, as it comes."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._response.content.iter_any():
            yield piece

    async def aclose(self) -> None:
        """Give the connection back, or close it where something of the body is still to come."""
        self._response.release()

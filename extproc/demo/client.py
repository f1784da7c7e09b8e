"""The demo's client: sends one chat request through Envoy and records the answer and its times."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from extproc.core.vocabulary import CALL_ID_HEADER

ANSWER_SECONDS = 10.0
"""How long the demo model may take for an answer; usually it takes one second."""

PROVIDER_SECONDS = 120.0


@dataclass(slots=True)
class Answer:
    """An answer as the client received it.

    `chunks` holds its texts, one for each event of a stream. `error` is the error object of a body or an event.
    `problem` says why there is no complete answer, and is empty otherwise. `first_ms` is the time of the first text.
    """

    status: int = 0
    call_id: str = ""
    body: bytes = b""
    is_stream: bool = False
    chunks: list[str] = field(default_factory=list)
    error: dict[str, Any] | None = None
    is_ended: bool = False
    first_ms: float | None = None
    total_ms: float = 0.0
    problem: str = ""

    @property
    def text(self) -> str:
        """All text that the client received."""
        return "".join(self.chunks)


async def ask(
    http: httpx.AsyncClient,
    url: str,
    prompt: str,
    *,
    stream: bool,
    model: str,
    authorization: str,
    seconds: float = ANSWER_SECONDS,
) -> Answer:
    """Post one prompt and read the whole answer, for at most `seconds`; errors are recorded in the answer."""
    request: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    if stream:
        request["stream"] = True
    answer = Answer()
    began = time.perf_counter()
    headers = {"authorization": authorization} if authorization else {}
    try:
        async with (
            asyncio.timeout(seconds),
            http.stream("POST", url, json=request, headers=headers, timeout=seconds) as response,
        ):
            answer.status = response.status_code
            answer.call_id = response.headers.get(CALL_ID_HEADER, "")
            answer.is_stream = response.headers.get("content-type", "").startswith("text/event-stream")
            if answer.is_stream:
                await _read_events(response, answer, began)
            else:
                answer.body = await response.aread()
                _read_whole(answer)
    except TimeoutError:
        answer.problem = f"no complete answer within {seconds:g} s"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        answer.problem = f"the connection failed: {type(error).__name__}"
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        answer.problem = "the answer is not a chat completion"
    answer.total_ms = (time.perf_counter() - began) * 1000
    return answer


async def _read_events(response: httpx.Response, answer: Answer, began: float) -> None:
    async for line in response.aiter_lines():
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if answer.is_ended:
            answer.problem = "data came after [DONE]"
        elif data == "[DONE]":
            answer.is_ended = True
        else:
            event = json.loads(data)
            if event.get("error"):
                answer.error = _error(event["error"])
            for choice in event.get("choices") or ():
                if text := (choice.get("delta") or {}).get("content"):
                    if answer.first_ms is None:
                        answer.first_ms = (time.perf_counter() - began) * 1000
                    answer.chunks.append(str(text))


def _read_whole(answer: Answer) -> None:
    body = json.loads(answer.body)
    answer.is_ended = True
    if "error" in body:
        answer.error = _error(body["error"])
    else:
        answer.chunks = [str(choice["message"].get("content") or "") for choice in body["choices"]]


def _error(value: Any) -> dict[str, Any]:
    # Not every provider sends OpenAI's error object.
    return value if isinstance(value, dict) else {"code": None, "message": str(value)}

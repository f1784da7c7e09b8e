"""The wire formats of further provider APIs, written by hand like those in `tests.envoy.apis`."""

from __future__ import annotations

from typing import Any

from tests.envoy.apis import DONE, GEMINI, Anthropic, Api, Chat, Gemini, RequestOnly, asking, data, js, typed


class CohereErrors(Api):
    """An API with Cohere's error object."""

    def refusal(self, status: int, code: str, message: str) -> Any:
        return {"message": message}


class HuggingFaceErrors(Api):
    """An API with the error object of Hugging Face's servers."""

    def refusal(self, status: int, code: str, message: str) -> Any:
        return {"error": message, "error_type": {502: "backend", 503: "overloaded"}.get(status, "validation")}

    def message_in(self, said: Any) -> Any:
        return said["error"]


class OllamaErrors(Api):
    """An API with Ollama's error object."""

    def refusal(self, status: int, code: str, message: str) -> Any:
        return {"error": message}

    def message_in(self, said: Any) -> Any:
        return said["error"]


class MistralErrors(Api):
    """An API with Mistral's error object."""

    def refusal(self, status: int, code: str, message: str) -> Any:
        return {"object": "error", **super().refusal(status, code, message)["error"]}


class Cohere(CohereErrors):
    name = "cohere"
    path = "/v2/chat"
    head = 2
    tail = 2

    def request(self, *texts: str, stream: bool = False) -> bytes:
        body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": text} for text in texts]}
        return asking(body, stream=stream)

    def answer(self, *texts: str) -> bytes:
        content = [{"type": "text", "text": text} for text in texts]
        return js({"id": "c1", "finish_reason": "COMPLETE", "message": {"role": "assistant", "content": content}})

    def content(self, kind: str, **content: str) -> bytes:
        return typed(kind, index=0, delta={"message": {"content": content}})

    def events(self, *texts: str) -> list[bytes]:
        return [
            typed("message-start", id="c1", delta={"message": {"role": "assistant", "content": []}}),
            self.content("content-start", type="text", text=""),
            *(self.content("content-delta", text=text) for text in texts),
            typed("content-end", index=0),
            typed("message-end", delta={"finish_reason": "COMPLETE"}),
        ]

    def ending(self, status: int, code: str, message: str, sequence: int) -> bytes:
        return typed("message-end", delta={"finish_reason": "ERROR", "error": message})

    def message_in(self, said: Any) -> Any:
        return said["delta"]["error"] if "delta" in said else said["message"]


class Cohere1(Cohere):
    name = "cohere v1"
    path = "/v1/chat"
    stream_type = "application/stream+json"
    head = 1
    tail = 1

    def request(self, *texts: str, stream: bool = False) -> bytes:
        *before, last = texts
        body = {"model": "m", "chat_history": [{"role": "USER", "message": text} for text in before], "message": last}
        return asking(body, stream=stream)

    def answer(self, *texts: str) -> bytes:
        return js({"text": "".join(texts), "generation_id": "g1", "finish_reason": "COMPLETE"})

    @staticmethod
    def line(kind: str, **more: Any) -> bytes:
        return js({"is_finished": kind == "stream-end", "event_type": kind, **more}) + b"\n"

    def events(self, *texts: str) -> list[bytes]:
        response = {"text": "".join(texts), "generation_id": "g1"}
        return [
            self.line("stream-start", generation_id="g1"),
            *(self.line("text-generation", text=text) for text in texts),
            self.line("stream-end", finish_reason="COMPLETE", response=response),
        ]

    def ending(self, status: int, code: str, message: str, sequence: int) -> bytes:
        response = {"text": "", "finish_reason": "ERROR"}
        return self.line("stream-end", finish_reason="ERROR", response=response, error=message)

    def message_in(self, said: Any) -> Any:
        return said["error"] if "error" in said else said["message"]


class Cohere1Events(Cohere1):
    """Version 1 as server-sent events."""

    name = "cohere v1 in events"
    stream_type = "text/event-stream"

    @staticmethod
    def line(kind: str, **more: Any) -> bytes:
        return b"data: " + Cohere1.line(kind, **more) + b"\n"


class Ollama(OllamaErrors):
    name = "ollama"
    path = "/api/chat"
    stream_type = "application/x-ndjson"
    tail = 1

    def request(self, *texts: str, stream: bool = False) -> bytes:
        body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": text} for text in texts]}
        return js(body | ({} if stream else {"stream": False}))

    def line(self, text: str, *, done: bool = False) -> bytes:
        return js({"model": "m", "message": {"role": "assistant", "content": text}, "done": done})

    def answer(self, *texts: str) -> bytes:
        return self.line("".join(texts), done=True)

    def events(self, *texts: str) -> list[bytes]:
        return [*(self.line(text) + b"\n" for text in texts), self.line("", done=True) + b"\n"]

    def ending(self, status: int, code: str, message: str, sequence: int) -> bytes:
        return js({"error": message}) + b"\n"


class OllamaGenerate(Ollama):
    name = "ollama generate"
    path = "/api/generate"

    def request(self, *texts: str, stream: bool = False) -> bytes:
        keys = ("prompt", "suffix")
        body: dict[str, Any] = dict(zip(keys, texts, strict=False))
        return js(body | ({} if stream else {"stream": False}))

    def line(self, text: str, *, done: bool = False) -> bytes:
        return js({"model": "m", "response": text, "done": done})


class Interactions(Api):
    name = "interactions"
    path = "/v1beta/interactions"
    head = 2
    tail = 2

    def request(self, *texts: str, stream: bool = False) -> bytes:
        given = texts[0] if len(texts) == 1 else [{"type": "text", "text": text} for text in texts]
        return asking({"model": "m", "input": given}, stream=stream)

    def answer(self, *texts: str) -> bytes:
        steps = [{"type": "model_output", "content": [{"type": "text", "text": text}]} for text in texts]
        return js({"id": "v1_a", "object": "interaction", "status": "completed", "steps": steps})

    @staticmethod
    def event(kind: str, **more: Any) -> bytes:
        return data({**more, "event_type": kind}, kind)

    def events(self, *texts: str) -> list[bytes]:
        interaction = {"id": "v1_a", "object": "interaction"}
        step = {"type": "model_output", "content": [{"type": "text", "text": "".join(texts)}]}
        whole = interaction | {"status": "completed", "steps": [step]}
        return [
            self.event("interaction.created", interaction=interaction | {"status": "in_progress"}),
            self.event("step.start", index=0, step={"type": "model_output"}),
            *(self.event("step.delta", index=0, delta={"type": "text", "text": text}) for text in texts),
            self.event("step.stop", index=0),
            self.event("interaction.completed", interaction=whole),
        ]

    def refusal(self, status: int, code: str, message: str) -> Any:
        return GEMINI.refusal(status, code, message)

    def ending(self, status: int, code: str, message: str, sequence: int) -> bytes:
        named = self.refusal(status, code, message)["error"]["status"]
        return data({"event_type": "error", "error": {"code": named, "message": message}}, "error")


class Mistral(MistralErrors):
    name = "mistral"
    path = "/v1/conversations"
    head = 1
    tail = 1

    def request(self, *texts: str, stream: bool = False) -> bytes:
        given = texts[0] if len(texts) == 1 else [{"role": "user", "content": text} for text in texts]
        return asking({"model": "m", "inputs": given}, stream=stream)

    def answer(self, *texts: str) -> bytes:
        outputs = [{"type": "message.output", "role": "assistant", "content": text} for text in texts]
        return js({"object": "conversation.response", "conversation_id": "conv_1", "outputs": outputs})

    def events(self, *texts: str) -> list[bytes]:
        part = {"output_index": 0, "content_index": 0, "role": "assistant"}
        return [
            typed("conversation.response.started", conversation_id="conv_1"),
            *(typed("message.output.delta", **part, content=text) for text in texts),
            typed("conversation.response.done", usage={"total_tokens": 3}),
        ]

    def ending(self, status: int, code: str, message: str, sequence: int) -> bytes:
        return typed("conversation.response.error", message=message, code=status)


class Tgi(HuggingFaceErrors):
    name = "tgi"
    path = "/generate"
    tail = 1

    def path_of(self, *, stream: bool) -> str:
        return "/generate_stream" if stream else self.path

    def request(self, *texts: str, stream: bool = False) -> bytes:
        first, *others = texts
        return js({"inputs": first, "parameters": {"stop": others}})

    def answer(self, *texts: str) -> bytes:
        return js({"generated_text": "".join(texts), "details": {"finish_reason": "length", "generated_tokens": 9}})

    @staticmethod
    def event(text: str, whole: str | None = None) -> bytes:
        token = {"id": 7, "text": text, "logprob": -0.5, "special": False}
        return data({"index": 1, "token": token, "generated_text": whole, "details": None})

    def events(self, *texts: str) -> list[bytes]:
        return [*map(self.event, texts), self.event("", "".join(texts))]

    def ending(self, status: int, code: str, message: str, sequence: int) -> bytes:
        return data(self.refusal(status, code, message))


class TgiLines(Tgi):
    """The same behind a proxy that makes lines of events."""

    name = "tgi in lines"
    stream_type = "application/x-ndjson"

    @staticmethod
    def event(text: str, whole: str | None = None) -> bytes:
        return Tgi.event(text, whole).removeprefix(b"data: ").rstrip() + b"\n"

    def ending(self, status: int, code: str, message: str, sequence: int) -> bytes:
        return js(self.refusal(status, code, message)) + b"\n"


class Llama(Api):
    name = "llama.cpp"
    path = "/completion"
    tail = 1

    def request(self, *texts: str, stream: bool = False) -> bytes:
        prompt = texts[0] if len(texts) == 1 else list(texts)
        return asking({"prompt": prompt}, stream=stream)

    def answer(self, *texts: str) -> bytes:
        return js({"index": 0, "content": "".join(texts), "stop": True, "stop_type": "eos"})

    def events(self, *texts: str) -> list[bytes]:
        pieces = [{"index": 0, "content": text, "stop": False} for text in texts]
        return [*map(data, pieces), data({"index": 0, "content": "", "stop": True, "stop_type": "eos"})]

    def ending(self, status: int, code: str, message: str, sequence: int) -> bytes:
        return data(self.refusal(status, code, message))


class SGLang(Api):
    name = "sglang"
    path = "/generate"
    tail = 1

    def request(self, *texts: str, stream: bool = False) -> bytes:
        text = texts[0] if len(texts) == 1 else list(texts)
        return asking({"text": text}, stream=stream)

    def answer(self, *texts: str) -> bytes:
        return js({"text": "".join(texts), "meta_info": {"id": "a", "finish_reason": {"type": "stop"}}})

    def events(self, *texts: str) -> list[bytes]:
        pieces = [
            {"text": text, "output_ids": [7], "meta_info": {"id": "a", "completion_tokens": number}}
            for number, text in enumerate(texts, 2)
        ]
        return [*map(data, pieces), DONE]


class Threads(Api):
    name = "threads"
    path = "/v1/threads/runs"
    head = 2
    tail = 3

    def request(self, *texts: str, stream: bool = False) -> bytes:
        messages = [{"role": "user", "content": text} for text in texts]
        body: dict[str, Any] = {"assistant_id": "asst_1", "thread": {"messages": messages}}
        return asking(body, stream=stream)

    def message(self, *texts: str) -> Any:
        content = [{"type": "text", "text": {"value": text, "annotations": []}} for text in texts]
        return {"id": "msg_1", "object": "thread.message", "role": "assistant", "content": content}

    def answer(self, *texts: str) -> bytes:
        return js({"object": "list", "data": [self.message(text) for text in texts]})

    def events(self, *texts: str) -> list[bytes]:
        run = {"id": "run_1", "object": "thread.run", "status": "in_progress"}
        deltas = [
            {
                "id": "msg_1",
                "object": "thread.message.delta",
                "delta": {"content": [{"index": 0, "type": "text", "text": {"value": text}}]},
            }
            for text in texts
        ]
        return [
            data(run, "thread.run.created"),
            data(self.message(), "thread.message.created"),
            *(data(delta, "thread.message.delta") for delta in deltas),
            data(self.message("".join(texts)), "thread.message.completed"),
            data(run | {"status": "completed"}, "thread.run.completed"),
            b"event: done\ndata: [DONE]\n\n",
        ]

    def ending(self, status: int, code: str, message: str, sequence: int) -> bytes:
        return data(self.refusal(status, code, message), "error") + b"event: done\ndata: [DONE]\n\n"


class AnthropicComplete(Anthropic):
    name = "anthropic complete"
    path = "/v1/complete"
    head = 0
    tail = 1

    def request(self, *texts: str, stream: bool = False) -> bytes:
        first, *others = texts
        body: dict[str, Any] = {"model": "m", "prompt": first, "stop_sequences": others}
        return asking(body, stream=stream)

    @staticmethod
    def completion(text: str, stop: str | None) -> Any:
        return {"type": "completion", "id": "c1", "completion": text, "stop_reason": stop, "model": "m"}

    def answer(self, *texts: str) -> bytes:
        return js(self.completion("".join(texts), "stop_sequence"))

    def events(self, *texts: str) -> list[bytes]:
        pieces = [*((text, None) for text in texts), ("", "stop_sequence")]
        return [data(self.completion(*piece), "completion") for piece in pieces]


class CodeAssist(Gemini):
    name = "code assist"
    path = "/v1internal:generateContent"

    def path_of(self, *, stream: bool) -> str:
        return "/v1internal:streamGenerateContent?alt=sse" if stream else self.path

    def request(self, *texts: str, stream: bool = False) -> bytes:
        contents = [{"role": "user", "parts": [{"text": text}]} for text in texts]
        return js({"model": "m", "project": "p", "request": {"contents": contents}})

    def answer(self, *texts: str) -> bytes:
        candidates = [self.candidate(text, index) for index, text in enumerate(texts)]
        return js({"response": {"candidates": candidates}, "traceId": "t1"})

    def events(self, *texts: str) -> list[bytes]:
        documents = [{"response": {"candidates": [self.candidate(text)]}, "traceId": "t1"} for text in texts]
        return [data(document, end=b"\r\n\r\n") for document in documents]


class Invocations(Chat):
    name = "invocations"
    path = "/serving-endpoints/m/invocations"


class Portkey(Chat):
    name = "portkey"
    path = "/v1/prompts/pp-1/completions"

    def request(self, *texts: str, stream: bool = False) -> bytes:
        variables = {f"v{number}": text for number, text in enumerate(texts)}
        return asking({"variables": variables}, stream=stream)


class VertexMistral(Chat):
    name = "mistral on vertex"
    path = "/v1/projects/p/locations/l/publishers/mistralai/models/m:rawPredict"

    def path_of(self, *, stream: bool) -> str:
        return self.path.replace("rawPredict", "streamRawPredict") if stream else self.path


class Fim(Chat):
    name = "fim"
    path = "/v1/fim/completions"

    def request(self, *texts: str, stream: bool = False) -> bytes:
        body = dict(zip(("prompt", "suffix"), texts, strict=False))
        return asking(body, stream=stream)


class Unknown(Api):
    """An API that no dialect knows."""

    name = "generic"
    path = "/some/tool"
    tail = 1

    def request(self, *texts: str, stream: bool = False) -> bytes:
        asked = {f"text-{number}": text for number, text in enumerate(texts)}
        return js(asked | ({"stream": True} if stream else {}))

    def answer(self, *texts: str) -> bytes:
        return js({"id": "t-1", "result": {"said": "".join(texts)}})

    def events(self, *texts: str) -> list[bytes]:
        return [*(data({"id": "t-1", "said": text}) for text in texts), DONE]


UNKNOWN = Unknown()


class OfGoogle(RequestOnly):
    """An API with Google's error object, whose texts are at a place of its own."""

    def __init__(self, name: str, path: str, key: str) -> None:
        super().__init__(name, path, key)

    def request(self, *texts: str, stream: bool = False) -> bytes:
        return js({self._key: [{"content": {"parts": [{"text": text}]}} for text in texts]})

    def refusal(self, status: int, code: str, message: str) -> Any:
        return GEMINI.refusal(status, code, message)


class RealtimeSecrets(RequestOnly):
    """Secrets for a realtime session with instructions."""

    def request(self, *texts: str, stream: bool = False) -> bytes:
        first, *others = texts
        session: dict[str, Any] = {"type": "realtime", "instructions": first, "output_modalities": ["audio"]}
        return js({"session": session | ({"prompt": {"variables": {"a": others[0]}}} if others else {})})

    def answer(self, *texts: str) -> bytes:
        return js({"value": "ek_1", "expires_at": 9, "session": {"type": "realtime"}})


class OfMistral(MistralErrors, RequestOnly):
    pass


class OfCohere(CohereErrors, RequestOnly):
    pass


class OfHuggingFace(HuggingFaceErrors, RequestOnly):
    pass


class OfOllama(OllamaErrors, RequestOnly):
    pass


SGLANG = SGLang()
WITH_ANSWERS: tuple[Api, ...] = (
    Cohere(),
    Cohere1(),
    Cohere1Events(),
    Ollama(),
    OllamaGenerate(),
    Interactions(),
    Mistral(),
    Tgi(),
    TgiLines(),
    Llama(),
    SGLANG,
    Threads(),
    AnthropicComplete(),
    CodeAssist(),
    Invocations(),
    Portkey(),
    VertexMistral(),
    Fim(),
)

REQUESTS_ALONE: tuple[Api, ...] = (
    OfCohere("cohere rerank", "/v2/rerank", "documents", top_n=1),
    OfHuggingFace("tei rerank", "/rerank", "texts"),
    OfGoogle("vertex predict", "/v1/projects/p/locations/l/endpoints/1:predict", "instances"),
    RequestOnly("moderations", "/v1/moderations", "input"),
    RequestOnly("image edits", "/v1/images/edits", "prompt", size="512x512"),
    RequestOnly("videos", "/v1/videos", "prompt", seconds="8"),
    RealtimeSecrets("realtime secrets", "/v1/realtime/client_secrets", "session"),
    OfMistral("ocr", "/v1/ocr", "document_annotation_prompt"),
)

EMBEDDINGS: tuple[Api, ...] = (
    OfCohere("cohere embed", "/v2/embed", "texts"),
    OfHuggingFace("tei embed", "/embed", "inputs"),
    OfOllama("ollama embed", "/api/embed", "input"),
    OfGoogle("gemini embed", "/v1beta/models/m:batchEmbedContents", "requests"),
)

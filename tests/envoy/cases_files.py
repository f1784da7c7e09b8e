"""The rows of forms, transcripts, batches and files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tests.envoy.apis import ANTHROPIC, DONE, IMAGES, Api, data, js
from tests.envoy.case import ANY, BLOCKED, NEVER, TAGGED, Case, Ended, Refused, Said, blocked_request, blocks
from tests.envoy.cases_others import random_pieces, single_bytes
from tests.fakes.forms import PNG, form, part

FORM = (("content-type", "multipart/form-data; boundary=xYz-1"),)
WAV = b"RIFF$\x00\x00\x00WAVEfmt \x10\x00\x00\x00--xYz\r\n\xff" + bytes(range(256))
AUDIO = part("file", WAV, "Content-Type: audio/wav", more='; filename="a.wav"')
PICTURE = part("image", PNG, "Content-Type: image/png", more='; filename="a.png"')


def one_piece(body: bytes) -> Sequence[bytes]:
    """Leave the body whole."""
    return [body]


CUTS: dict[str, Callable[[bytes], Sequence[bytes]]] = {
    "whole": one_piece,
    "byte by byte": single_bytes,
    "in random pieces": random_pieces,
}


class Transcriptions(Api):
    """Forms with audio, and answers of four kinds."""

    name = "transcriptions"
    path = "/v1/audio/transcriptions"

    def request(self, *texts: str, stream: bool = False) -> bytes:
        options = [part("stream", b"true")] if stream else []
        return form(AUDIO, part("model", b"whisper-1"), *(part("prompt", text.encode()) for text in texts), *options)

    def answer(self, *texts: str) -> bytes:
        return js({"text": "".join(texts), "usage": {"type": "duration", "seconds": 2}})

    def events(self, *texts: str) -> list[bytes]:
        deltas = [{"type": "transcript.text.delta", "delta": text} for text in texts]
        return [*map(data, deltas), data({"type": "transcript.text.done", "text": "".join(texts)}), DONE]

    def subtitles(self, *texts: str) -> bytes:
        cues = (f"{n}\n00:00:0{n},000 --> 00:00:0{n},900\n{text}\n\n" for n, text in enumerate(texts))
        return "".join(cues).encode()


TRANSCRIPTIONS = Transcriptions()


def transcripts() -> list[Case]:
    """Return the rows for transcriptions."""
    api = TRANSCRIPTIONS
    ask, ask_stream = api.request("Hello"), api.request("Hello", stream=True)
    pre_call, plain = ("pre_call", "Hello"), "text/plain; charset=utf-8"
    srt = api.subtitles("One", "Hi Jane", "Two")
    rows = [
        blocked_request("a request is blocked", api, headers=FORM),
        Case(
            "an answer is blocked",
            api,
            ask,
            Said(b"a secret\n", plain),
            blocks("secret"),
            headers=FORM,
            status=400,
            client=BLOCKED,
            asked=[pre_call, ("output", "Hello", "a secret\n")],
        ),
        Case(
            "subtitles whose cues would move are refused",
            api,
            ask,
            Said(srt, plain),
            lambda aim: _joins_lines(aim),
            rig="firewall",
            headers=FORM,
            status=502,
            client=Refused("redaction_failed"),
            asked=ANY,
        ),
    ]
    rows.append(
        Case(
            "a stream is blocked at its first text",
            api,
            ask_stream,
            Said([api.stream("a secret", " and more")], api.stream_type),
            blocks("secret"),
            headers=FORM,
            status=400,
            client=BLOCKED,
            asked=ANY,
        )
    )
    for how, cut in CUTS.items():
        rows += [
            Case(
                f"a prompt is redacted, the audio stays {how}",
                api,
                cut(api.request("I am Jane")),
                Said(api.answer("Hi")),
                TAGGED,
                rig="firewall",
                headers=FORM,
                upstream=api.request("I am [NAME_1]"),
                asked=[("pre_call", "I am Jane"), ("output", "I am [NAME_1]", "Hi")],
            ),
            Case(
                f"an answer in JSON passes {how}",
                api,
                ask,
                Said(cut(api.answer("Hi"))),
                headers=FORM,
                asked=[pre_call, ("output", "Hello", "Hi")],
            ),
            Case(
                f"a plain text is redacted {how}",
                api,
                ask,
                Said(cut(b"Hi Jane, and more than thirty bytes of it\n"), plain),
                TAGGED,
                rig="firewall",
                headers=FORM,
                client=b"Hi [NAME_1], and more than thirty bytes of it\n",
                asked=[pre_call, ("output", "Hello", "Hi Jane, and more than thirty bytes of it\n")],
            ),
            Case(
                f"subtitles are redacted {how}",
                api,
                ask,
                Said(cut(srt), plain),
                TAGGED,
                rig="firewall",
                headers=FORM,
                client=api.subtitles("One", "Hi [NAME_1]", "Two"),
                asked=[pre_call, ("output", "Hello", srt.decode())],
            ),
            Case(
                f"subtitles pass {how}",
                api,
                ask,
                Said(cut(srt), "text/vtt"),
                headers=FORM,
                asked=[pre_call, ("output", "Hello", srt.decode())],
            ),
            Case(
                f"a stream passes {how}",
                api,
                ask_stream,
                Said(cut(api.stream("Hi ", "Jane", ", hi")), api.stream_type),
                headers=FORM,
                asked=[pre_call, ("stream", "Hi ", "Jane", ", hi")],
            ),
            Case(
                f"a stream is redacted, its repeat too {how}",
                api,
                ask_stream,
                Said(cut(api.stream("Hi ", "Jane", ", hi")), api.stream_type),
                TAGGED,
                rig="firewall",
                headers=FORM,
                client=api.stream("Hi ", "[NAME_1]", ", hi"),
                asked=[pre_call, ("stream", "Hi ", "Jane", ", hi")],
            ),
            Case(
                f"a stream is blocked in its midst {how}",
                api,
                ask_stream,
                Said(cut(api.stream("One", " secret", " three")), api.stream_type),
                blocks("secret"),
                headers=FORM,
                client=Ended(api.events("One")[0], "content_policy_violation", "Not that.", 1),
                asked=ANY,
            ),
        ]
    return rows


def _joins_lines(aim: Any) -> None:
    """Redact over the lines of subtitles."""
    TAGGED(aim)
    judge = aim.judge

    async def joined(question: Any) -> Any:
        answer = await judge(question)
        for message in (
            answer.get("redacted_chat", {}).get("all_redacted_messages", []) if question.hook == "output" else []
        ):
            message["content"] = message["content"].replace("\n\n", " ")
        return answer

    aim.judge = joined


def images() -> list[Case]:
    """Return the rows for forms with images and videos."""
    rows = []
    for path in ("/v1/images/edits", "/v1/videos"):

        def edit(text: str) -> bytes:
            return form(PICTURE, part("n", b"2"), part("size", b"512x512"), part("prompt", text.encode()))

        for how, cut in CUTS.items():
            rows.append(
                Case(
                    f"a prompt is redacted, the image stays, on {path} {how}",
                    IMAGES,
                    cut(edit("Draw Jane")),
                    aim=TAGGED,
                    path=path,
                    rig="firewall",
                    headers=FORM,
                    upstream=edit("Draw [NAME_1]"),
                    asked=[("pre_call", "Draw Jane")],
                )
            )
        rows += [
            Case(
                f"a form passes on {path}",
                IMAGES,
                edit("Hello"),
                path=path,
                headers=FORM,
                asked=[("pre_call", "Hello")],
            ),
            blocked_request(f"a form is blocked on {path}", IMAGES, edit("a secret"), path=path, headers=FORM),
        ]
    named = part(
        "image", PNG, "Content-ID: <1>", "Content-Transfer-Encoding: binary", more='; filename="n\udce9\\".png"'
    )
    latin = part("prompt", b"Hello", "Content-Type: text/plain; charset=ISO-8859-1", "Content-Transfer-Encoding: 8bit")
    rows += [
        Case(
            f"a form with an odd file name passes {how}",
            IMAGES,
            cut(form(named, latin)),
            path="/v1/images/edits",
            headers=(("content-type", "multipart/form-data; boundary=xYz-1; charset=ISO-8859-1"),),
            asked=[("pre_call", 'n\ufffd".png\nné".png', "Hello")],
        )
        for how, cut in CUTS.items()
    ]
    variation = form(PICTURE, part("n", b"2"))
    rows.append(Case("a form without text passes", IMAGES, variation, path="/v1/images/variations", headers=FORM))
    return rows


def records(*texts: str) -> bytes:
    """Return a batch of Anthropic's."""
    params = [{"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": text}]} for text in texts]
    return js({"requests": [{"custom_id": f"r-{n}", "params": each} for n, each in enumerate(params)]})


def lines(*texts: str) -> bytes:
    """Return the input of a batch of OpenAI's."""
    bodies = [{"model": "m", "messages": [{"role": "user", "content": text}]} for text in texts]
    urls = {"method": "POST", "url": "/v1/chat/completions"}
    return b"".join(js({"custom_id": f"r-{n}", **urls, "body": body}) + b"\n" for n, body in enumerate(bodies))


def upload(*texts: str) -> bytes:
    """Return an upload of such an input."""
    file = part("file", lines(*texts), "Content-Type: application/octet-stream", more='; filename="in.jsonl"')
    return form(part("purpose", b"batch"), file)


def batches() -> list[Case]:
    """Return the rows for batches, in JSON and in forms."""
    kinds: list[tuple[Api, str, Callable[..., bytes], Any]] = [
        (ANTHROPIC, "/v1/messages/batches", records, ()),
        (IMAGES, "/v1/files", upload, FORM),
    ]
    rows = []
    for api, path, made, headers in kinds:
        named = Refused("content_policy_violation", "Not that. (custom_id: r-1)")
        many = [f"Text {number}." for number in range(150)]
        rows += [
            Case(
                f"each record is asked about on {path}",
                api,
                made("Hello", "again", "Bye"),
                Said(js({"id": "batch-1", "type": "message_batch"})),
                path=path,
                rig="files",
                headers=headers,
                asked=[("pre_call", "Hello"), ("pre_call", "again"), ("pre_call", "Bye")],
            ),
            Case(
                f"a blocked record is named on {path}",
                api,
                made("Hello", "a secret", "Bye"),
                aim=blocks("secret"),
                path=path,
                rig="files",
                headers=headers,
                status=400,
                client=named,
                upstream=NEVER,
                asked=ANY,
            ),
            Case(
                f"a blocked record of many is found on {path}",
                api,
                made(*many[:71], "a secret", *many[71:]),
                aim=blocks("secret"),
                path=path,
                rig="files",
                headers=headers,
                status=400,
                client=Refused("content_policy_violation", "Not that. (custom_id: r-71)"),
                upstream=NEVER,
                asked=ANY,
            ),
            Case(
                f"a batch over the limit is refused on {path}",
                api,
                made(*many),
                path=path,
                rig="small files",
                headers=headers,
                status=413,
                client=Refused("request_too_large"),
                upstream=NEVER,
                has_id=False,
            ),
        ]
        rows += [
            Case(
                f"records are redacted on {path} {how}",
                api,
                cut(made("I am Jane", "Hello", "not Jane")),
                aim=TAGGED,
                path=path,
                rig="firewall files",
                headers=headers,
                upstream=made("I am [NAME_1]", "Hello", "not [NAME_1]"),
                asked=[("pre_call", "I am Jane"), ("pre_call", "Hello"), ("pre_call", "not Jane")],
            )
            for how, cut in CUTS.items()
        ]
    parts = "/v1/uploads/upload_1/parts"
    rows += [
        Case(
            f"a part of an upload is refused if it is text {how}",
            IMAGES,
            cut(form(part("data", lines("a secret")[40:], more='; filename="upload"'))),
            path=parts,
            rig="files",
            headers=FORM,
            status=400,
            client=Refused("upload_not_inspected"),
            upstream=NEVER,
        )
        for how, cut in CUTS.items()
    ]
    rows.append(
        Case(
            "a part of media passes",
            IMAGES,
            form(part("data", PNG, more='; filename="upload"')),
            Said(js({"id": "part_1", "object": "upload.part", "upload_id": "upload_1"})),
            path=parts,
            rig="files",
            headers=FORM,
        )
    )
    off = Case(
        "files pass unless the settings say so",
        IMAGES,
        upload("a secret"),
        aim=blocks("secret"),
        path="/v1/files",
        headers=FORM,
        is_inspected=False,
    )
    return [*rows, off]


def of_openai(*texts: str) -> bytes:
    """Return the output of a batch of OpenAI's."""
    answers = [{"object": "chat.completion", "choices": [{"index": 0, "message": {"content": text}}]} for text in texts]
    return b"".join(
        js({"custom_id": f"r-{n}", "response": {"status_code": 200, "body": answer}, "error": None}) + b"\n"
        for n, answer in enumerate(answers)
    )


def of_anthropic(*texts: str) -> bytes:
    """Return the results of a batch of Anthropic's."""
    answers = [{"type": "message", "content": [{"type": "text", "text": text}]} for text in texts]
    return b"".join(
        js({"custom_id": f"r-{n}", "result": {"type": "succeeded", "message": answer}}) + b"\n"
        for n, answer in enumerate(answers)
    )


class Lines(Api):
    """An API in whose lines a block is a line."""

    def __init__(self, name: str, shape: Api) -> None:
        self.name = name
        self._shape = shape

    def refusal(self, status: int, code: str, message: str) -> Any:
        return self._shape.refusal(status, code, message)

    def ending(self, status: int, code: str, message: str, sequence: int) -> bytes:
        return js(self.refusal(status, code, message)) + b"\n"


def results() -> list[Case]:
    """Return the rows for the results of batches."""
    kinds: list[tuple[Api, str, str, Callable[..., bytes]]] = [
        (Lines("file contents", IMAGES), "/v1/files/file-1/content", "application/octet-stream", of_openai),
        (
            Lines("batch results", ANTHROPIC),
            "/v1/messages/batches/msgbatch_1/results",
            "application/x-jsonl",
            of_anthropic,
        ),
    ]
    rows = []
    for api, path, kind, made in kinds:
        rows.append(
            Case(
                "results are blocked before their first line",
                api,
                None,
                Said([made("a secret", "more")], kind),
                blocks("secret"),
                method="GET",
                path=path,
                rig="files",
                status=400,
                client=BLOCKED,
                asked=ANY,
            )
        )
        for how, cut in CUTS.items():
            rows += [
                Case(
                    f"results pass {how}",
                    api,
                    None,
                    Said(cut(made("Hi ", "Jane", "Bye")), kind),
                    method="GET",
                    path=path,
                    rig="files",
                    asked=[("stream", "Hi ", "Jane", "Bye")],
                ),
                Case(
                    f"results are redacted {how}",
                    api,
                    None,
                    Said(cut(made("Hi ", "Jane", "Bye")), kind),
                    TAGGED,
                    method="GET",
                    path=path,
                    rig="firewall files",
                    client=made("Hi ", "[NAME_1]", "Bye"),
                    asked=[("stream", "Hi ", "Jane", "Bye")],
                ),
                Case(
                    f"results are blocked in their midst {how}",
                    api,
                    None,
                    Said(cut(made("One", "secret", "three")), kind),
                    blocks("secret"),
                    method="GET",
                    path=path,
                    rig="files",
                    client=Ended(made("One"), "content_policy_violation", "Not that."),
                    asked=ANY,
                ),
            ]
    return rows


ROWS = [*transcripts(), *images(), *batches(), *results()]

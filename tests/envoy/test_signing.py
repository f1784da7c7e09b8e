"""Envoy signs for AWS behind the sidecar, with the filter that docs/bedrock.md shows."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from tests.envoy.bedrock_apis import CONVERSE
from tests.envoy.case import redacts
from tests.fakes.envoy import needs_envoy
from tests.fakes.rig import Rig, manager_of, rig
from tests.fakes.sigv4 import is_signed
from tests.fakes.upstream import whole

pytestmark = needs_envoy

ROOT = Path(__file__).parents[2]
SECRET = "made-up-secret"
PATH = CONVERSE.path_of(stream=False)


def documented() -> list[Any]:
    """Return the filters that the page shows."""
    (block,) = re.findall(
        r"^```yaml\n(http_filters:.*?)^```", (ROOT / "docs/bedrock.md").read_text(), re.MULTILINE | re.DOTALL
    )
    filters: list[Any] = yaml.safe_load(block)["http_filters"]
    return filters


def sign(tree: Any) -> None:
    """Add the documented filter where the page shows it."""
    filters = manager_of(tree)["http_filters"]
    shown = documented()
    names = [each["name"] for each in shown]
    assert [each["name"] for each in filters] == [names[0], names[-1]]
    (signing,) = shown[1:-1]
    inline = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": SECRET}
    signing["typed_config"]["credential_provider"] = {"inline_credential": inline}
    filters.insert(1, signing)


@pytest_asyncio.fixture
async def chain() -> AsyncIterator[Rig]:
    async with rig(edit=sign, aim={"api": "firewall"}) as running:
        running.upstream.answer = whole(CONVERSE.answer("Hi"))
        yield running


@pytest.mark.parametrize("text", ["Hello", "I am Jane"])
async def test_envoy_signs_what_the_sidecar_releases(chain: Rig, text: str) -> None:
    redacts("Jane", "[NAME_1]")(chain.aim)
    sent = CONVERSE.request(text)
    answer = await chain.client.post(PATH, content=sent, headers={"content-type": "application/json"})
    assert answer.status_code == 200
    (request,) = chain.upstream.requests
    assert request.body == CONVERSE.request(text.replace("Jane", "[NAME_1]"))
    assert request.header("host") == "bedrock-runtime.us-east-1.amazonaws.com"
    assert is_signed(request, SECRET)
    request.body = CONVERSE.request("I am Joe")
    assert not is_signed(request, SECRET)


async def test_boto3_without_a_signature_of_its_own(chain: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    boto3, botocore = pytest.importorskip("boto3"), pytest.importorskip("botocore")
    config = pytest.importorskip("botocore.config")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    redacts("Jane", "[NAME_1]")(chain.aim)
    client = boto3.session.Session().client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=chain.envoy.url,
        config=config.Config(signature_version=botocore.UNSIGNED),
    )
    messages = [{"role": "user", "content": [{"text": "I am Jane"}]}]
    answer = await asyncio.to_thread(client.converse, modelId="a.b:0", messages=messages)
    client.close()
    assert answer["output"]["message"]["content"] == [{"text": "Hi"}]
    (request,) = chain.upstream.requests
    assert b"I am [NAME_1]" in request.body
    assert is_signed(request, SECRET)


async def test_signature_of_the_client_prevents_a_redaction(chain: Rig) -> None:
    redacts("Jane", "[NAME_1]")(chain.aim)
    signed = (
        "AWS4-HMAC-SHA256 Credential=AKID/20260101/us-east-1/bedrock/aws4_request, SignedHeaders=host, Signature=ab"
    )
    fields = {"content-type": "application/json", "authorization": signed}
    answer = await chain.client.post(PATH, content=CONVERSE.request("I am Jane"), headers=fields)
    assert answer.status_code == 400
    assert answer.headers["x-amzn-errortype"] == "ValidationException"
    assert json.loads(answer.content).keys() == {"message"}
    assert chain.upstream.requests == []

"""Bedrock's ApplyGuardrail and InvokeGuardrailChecks: texts that Bedrock assesses without a model.

Source: the service model of `bedrock-runtime` in botocore (API version 2023-09-30).
"""

from __future__ import annotations

from extproc.core.dialects.bedrock import BedrockDialect
from extproc.core.dialects.bedrock_converse import ASSESSMENT, FILES, speaker
from extproc.core.dialects.openai_requests import DataDialect
from extproc.core.dialects.rules import COMMON, below, inert, text
from extproc.core.dialects.table import Table


class BedrockGuardrails(DataDialect, BedrockDialect):
    """The dialect; see `extproc.core.dialects.base.Dialect`. An answer repeats the words that were found."""

    name = "bedrock-converse"
    request = Table(
        *COMMON,
        *FILES,
        text("content[].text.text"),
        text("messages[]", speaker=speaker),
        text("messages[].content[].text"),
        inert("source", "outputScope", "content[].text.qualifiers[]", "checks.*.categories[].category"),
    )
    answer = event = Table(
        *COMMON,
        text("outputs[].text"),
        *below("assessments[]", [ASSESSMENT]),
        inert("action", "results.*.results[].category"),
    )

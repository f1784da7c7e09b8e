"""Finds which models a request or an answer names: in the path where the API has the model there, else in the body."""

from __future__ import annotations

import re
from typing import Any

from extproc.core.content.document import fields
from extproc.core.dialects.paths import spellings
from extproc.core.errors import MalformedBody

_IN_PATH = re.compile(
    r"/(?:model/(?P<bedrock>.+)/(?:converse|converse-stream|invoke|invoke-with-response-stream|count-tokens)"
    r"|(?:models|tunedmodels)/(?P<google>[^/:]+):[^/]+"
    r"|(?:openai/deployments|engines)/(?P<azure>[^/]+)/.+"
    r"|serving-endpoints/(?P<databricks>[^/]+)/invocations"
    r"|endpoints/(?P<sagemaker>[^/:]+)/invocations(?:-response-stream)?)\Z",
    re.DOTALL,
)

_KEY, _FALLBACKS = "model", "models"
"""The keys of a body that name models. OpenRouter takes further ones, in case that the first is not available."""

_MOST_NAMES = 16
_LONGEST_NAME = 512
"""The most models of a body that are looked at, and the longest name in characters. Clients choose both."""


def model_names(root: Any, path: str = "") -> tuple[str, ...]:
    """Return the names of the models that a document names: a request to `path`, or an answer; none if it names none.

    `path` is the client's, with its encoding and query. It is read like the path that chooses the dialect: an odd
    spelling must not hide the model that an upstream finds in it. So a name in it is in lower case. Some APIs take
    several models, in the order of preference.
    """
    for form in spellings(path):
        found = _IN_PATH.search(form)
        named = next(filter(None, found.groups()), None) if found is not None else None
        if named is not None:
            return (named[:_LONGEST_NAME],)
    body = fields(root)
    names = [*_listed(body.get(_KEY)), *_listed(body.get(_FALLBACKS))][:_MOST_NAMES]
    return tuple([name for name in names if isinstance(name, str) and len(name) <= _LONGEST_NAME])


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def requested_models(root: Any, path: str) -> tuple[str, ...]:
    """Return the names of the models that a request names; see `model_names`.

    Raises MalformedBody for a key `model` in another letter case, which some servers read, and others do not.
    """
    if any(len(key) == len(_KEY) and key != _KEY and key.casefold() == _KEY for key in fields(root)):
        raise MalformedBody("a key in another letter case")
    return model_names(root, path)

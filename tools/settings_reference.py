"""Write the reference in docs/settings.md, a YAML file of all defaults, from the models in extproc/config.

    make docs

The comment of a setting is the string below its field, and the bounds of its number.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from extproc.config.address import Address
from extproc.config.model import Model
from extproc.config.settings import Settings
from extproc.core.identity import Source
from extproc.core.vocabulary import Hook

TARGET = Path(__file__).resolve().parents[1] / "docs" / "settings.md"

_BLOCK = re.compile(r"(?<=^```yaml\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
_COLUMN = 34
_WIDTH = 120
_NO_BREAK = "\N{NO-BREAK SPACE}"


def reference() -> str:
    """Return the YAML file."""
    return "\n".join(_lines(Settings(), "")) + "\n"


def _lines(model: BaseModel, indent: str) -> Iterator[str]:
    comments = _comments(type(model))
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if not indent and (isinstance(value, Model) or name == "profiles"):
            yield ""
        if isinstance(value, Model):
            yield from _commented(f"{indent}{name}:", comments[name])
            yield from _lines(value, indent + "  ")
        elif name == "profiles":
            yield from _commented(f"{name}:", comments[name])
            for profile, default in value.items():
                yield f"  {profile}:"
                yield from _lines(default, "    ")
        else:
            key = field.alias or name
            yield from _commented(f"{indent}{key}: {_shown(value)}".rstrip(), comments[name] + _bounds(field))


def _comments(model: type[BaseModel]) -> dict[str, str]:
    """Return the string below each field of `model`; raises KeyError if a field has none."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(text.replace("`", "").split())
    return {name: found[name] for name in model.model_fields}


def _bounds(field: FieldInfo) -> str:
    """Return the bounds of a number, in brackets."""
    bounds = {name: value for each in field.metadata for name, value in _constraints(each)}
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le")
    if low is None or high is None:
        return ""
    return f" ({f'over {low}, ' if 'gt' in bounds else f'{low} '}to {high})".replace(" ", _NO_BREAK)


def _constraints(metadata: Any) -> Iterator[tuple[str, Any]]:
    for name in ("ge", "gt", "le"):
        if (value := getattr(metadata, name, None)) is not None:
            yield name, value


def _shown(value: Any) -> str:
    match value:
        case None:
            return ""
        case SecretStr():
            return _shown(value.get_secret_value())
        case Address():
            return str(value)
        case frozenset() if all(isinstance(each, Hook) for each in value) and value:
            return f"[{', '.join(hook for hook in Hook if hook in value)}]"
        case frozenset():  # reasons
            return _shown(bool(value))
        case tuple():
            return "[" + ", ".join(f'"{each.kind}:{each.name}"' for each in value if isinstance(each, Source)) + "]"
        case float():
            return f"{value:g}"
        case "":
            return '""'
        case _:
            return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()


def _commented(line: str, comment: str) -> Iterator[str]:
    """Yield `line` with its comment, which continues on the following lines if it is long."""
    column = max(_COLUMN, len(line) + 3)
    words = textwrap.fill(comment, _WIDTH - column - 2).replace(_NO_BREAK, " ")
    first, *rest = words.split("\n")
    yield f"{line:{column}}# {first}"
    for more in rest:
        yield f"{'':{column}}# {more}"


if __name__ == "__main__":
    TARGET.write_text(_BLOCK.sub(lambda _: reference(), TARGET.read_text(), count=1))

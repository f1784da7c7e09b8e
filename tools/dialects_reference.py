"""Writes the tables of docs/dialects.md, from the rules and the paths in extproc/core/dialects.

make docs
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from extproc.core.dialects.base import Dialect
from extproc.core.dialects.endpoints import ALL, ENDPOINTS
from extproc.core.dialects.rules import COMMON, Holds, Rule
from extproc.core.dialects.table import Table

TARGET = Path(__file__).resolve().parents[1] / "docs" / "dialects.md"
END = "<!-- end -->"
NAMES_SECTION = "the common names"

DIALECTS: Mapping[str, Dialect] = ALL
"""The dialects and their variants, by the titles of their sections."""

_BLOCK = re.compile(r"^<!-- made by `make docs`: (.+?) -->$.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)

_LABELS = {
    Holds.MESSAGE: "messages",
    Holds.TEXT: "texts",
    Holds.ARGUMENTS: "tool arguments",
    Holds.TOOLS: "tool definitions",
    Holds.UNNAMED: "unnamed texts",
    Holds.UNREADABLE: "unreadable",
    Holds.TOKENS: "**not inspected**: tokens",
    Holds.SEAL: "**not inspected**: seals",
    Holds.INERT: "**not inspected**: inert",
    Holds.OPAQUE: "**not inspected**: opaque",
    Holds.URL: "**not inspected**: URL",
    Holds.MEDIA: "**not inspected**: media",
}
"""What the rows of a table are called, in their order."""

_FEWEST = 5
"""The fewest patterns within a place that is only referred to, because another one holds the same."""

Content = frozenset[tuple[str, Rule]]
"""What a place holds: patterns from there, and their rules."""


def tables(dialect: Dialect) -> dict[str, Table]:
    """Return the tables of a dialect by what they read. A table that reads two kinds of documents is there once."""
    found = {"requests": dialect.request, "answers": dialect.answer, "events": dialect.event}
    if dialect.answer is dialect.event:
        found = {"requests": dialect.request, "answers and events": dialect.answer}
    if dialect.request is dialect.answer is dialect.event:
        found = {"requests, answers and events": dialect.request}
    special = {
        name: table for name, table in vars(type(dialect)).items() if isinstance(table, Table) and name.startswith("_")
    }
    return found | {f"events ({name.strip('_').replace('_', ' ')})": table for name, table in special.items()}


def effective(rules: Iterable[Rule]) -> dict[str, Rule]:
    """Return the rule of each pattern. The last one counts; `[]` does not distinguish places."""
    found: dict[str, tuple[str, Rule]] = {}
    for rule in rules:
        for pattern in rule.patterns:
            key = pattern.replace("[]", "")
            other, _ = found.get(key, ("", rule))
            found[key] = (max(other, pattern, key=len), replace(rule, patterns=()))
    return dict(found.values())


def section(name: str) -> str:
    """Return the Markdown that is made for a dialect, or for the common names."""
    begin = f"<!-- made by `make docs`: {name} -->"
    if name == NAMES_SECTION:
        names = {pattern.removeprefix("**."): rule for pattern, rule in effective(COMMON).items()}
        lines = _table("keys at any depth", names)
    else:
        lines = _dialect(name)
    return "\n".join([begin, *lines, END])


def _dialect(name: str) -> Iterator[str]:
    dialect = DIALECTS[name]
    if name != dialect.name:
        yield f"A variant of `{dialect.name}`, under whose name it counts.\n"
    if dialect.opt_in is not None:
        yield f"Inspected only with `inspect.{dialect.opt_in}`.\n"
    listed = "; ".join(_paths(name))
    yield f"Paths: {listed}." if listed else "Paths: none of its own."
    for title, table in tables(dialect).items():
        known = effective(dialect.event.rules if title.startswith("events (") else COMMON)
        rules = {pattern: rule for pattern, rule in effective(table.rules).items() if known.get(pattern) != rule}
        yield ""
        if rules:
            others = _earlier(dialect, rules) if table is dialect.request else {}
            others |= _repeated(rules)
            yield from _table(title, {each: rule for each, rule in rules.items() if not _is_within(each, rule, others)})
            if others:
                yield f"\n{_not_repeated(others)}"
        else:
            yield f"In {title}: only the common names."


def _paths(name: str) -> Iterator[str]:
    """Yield the paths of a dialect with the same keys."""
    for each in ENDPOINTS:
        if each.dialect == name:
            listed = ", ".join(f"`{each.method} {pattern}`" for pattern in each.paths)
            keys = " or ".join(f"`{key}`" for key in each.keys)
            yield f"{listed}, if the body has {keys}" if keys else listed


def _table(title: str, rules: Mapping[str, Rule]) -> Iterator[str]:
    rows: dict[tuple[int, str], list[str]] = defaultdict(list)
    order = list(_LABELS)
    for pattern, rule in rules.items():
        remark = _remark(rule)
        label = _LABELS[rule.kind] + (f" ({remark})" if remark else "")
        rows[order.index(rule.kind), label].append(f"`{pattern}`")
    yield f"| {title} | places |"
    yield "|---|---|"
    for (_, label), patterns in sorted(rows.items()):
        yield f"| {label} | {', '.join(patterns)} |"


def _remark(rule: Rule) -> str:
    remarks = [f"role {rule.role}"] if rule.role else []
    remarks += ["the object decides the role"] * (rule.speaker is not None)
    remarks += ["cannot be redacted"] * rule.fixed + ["of any text"] * rule.everywhere
    return ", ".join(remarks)


def _contents(rules: Mapping[str, Rule]) -> dict[str, Content]:
    """Return what each place holds that has more places below it. Tokens do not count."""
    found: dict[str, set[tuple[str, Rule]]] = defaultdict(set)
    for pattern, rule in rules.items():
        if rule.kind is not Holds.TOKENS and not pattern.startswith("**."):
            steps = pattern.split(".")
            for at in range(1, len(steps)):
                found[".".join(steps[:at])].add((".".join(steps[at:]), rule))
    return {place: frozenset(content) for place, content in found.items() if len(content) >= _FEWEST}


def _repeated(rules: Mapping[str, Rule]) -> dict[str, str]:
    """Return the places that hold what another place of the table holds, each with that place."""
    alike: dict[Content, list[str]] = defaultdict(list)
    for place, content in _contents(rules).items():
        alike[content].append(place)
    found: dict[str, str] = {}
    for _, places in sorted(alike.items(), key=lambda each: -len(each[0])):
        first, *others = [place for place in places if not any(place.startswith(f"{each}.") for each in found)] or [""]
        found |= dict.fromkeys(others, f"as `{first}`")
    return found


def _earlier(dialect: Dialect, rules: Mapping[str, Rule]) -> dict[str, str]:
    """Return the places of a request that hold what they hold in the request of a dialect before."""
    contents = _contents(rules)
    found: dict[str, str] = {}
    for other in DIALECTS.values():
        if other is dialect:
            break
        same = _contents(effective(other.request.rules))
        for place, content in contents.items():
            if "." not in place and place not in found and same.get(place) == content:
                found[place] = f"as in {other.name}"
    return found


def _not_repeated(places: Mapping[str, str]) -> str:
    """Return the sentence about places that hold what others hold."""
    by_other: dict[str, list[str]] = defaultdict(list)
    for place, other in places.items():
        by_other[other].append(f"`{place}`")
    return "Not repeated: " + "; ".join(f"{', '.join(same)} ({other})" for other, same in by_other.items()) + "."


def _is_within(pattern: str, rule: Rule, places: Mapping[str, str]) -> bool:
    return rule.kind is not Holds.TOKENS and any(pattern.startswith(f"{place}.") for place in places)


def with_tables(page: str) -> str:
    """Return the page with its tables written anew, and with a section for each dialect that had none."""
    page = _BLOCK.sub(lambda found: section(found[1]), page)
    missing = [name for name in DIALECTS if f"\n## {name}\n" not in page]
    return page + "".join(f"\n## {name}\n\n{section(name)}\n" for name in missing)


if __name__ == "__main__":
    TARGET.write_text(with_tables(TARGET.read_text()))

"""The policies file: patterns, directions and actions.

The file is YAML and is validated as a whole: every problem is reported, unknown keys too. The package's own
`policies.yaml` is the default and documents each kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import regex
import yaml
from phonenumbers import SUPPORTED_REGIONS
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from extproc.local_aim.detector import Action, Detector, Direction
from extproc.local_aim.patterns import PatternName, one_of, well_known, words


class PoliciesError(Exception):
    """The policies file is invalid; `problems` holds a sentence for each problem and no secrets."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _has_a_word(text: str) -> str:
    if not any(char.isalnum() for char in text):
        raise ValueError("needs at least one letter or digit")
    return text


def _compiles(expression: str) -> str:
    try:
        compiled = regex.compile(expression)
    except regex.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    if compiled.match(""):
        raise ValueError("matches the empty text")
    return expression


def _is_region(region: str) -> str:
    if region not in SUPPORTED_REGIONS:
        raise ValueError("is not a two-letter country code such as US or DE")
    return region


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Words = Annotated[Text, AfterValidator(_has_a_word)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Policy(_Strict):
    name: Annotated[Text, StringConstraints(max_length=64)]
    action: Action
    direction: Direction | Literal["both"] = "both"
    message: str | None = None
    entity: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,31}$")] | None = None

    def _detector(self, expression: str, flags: int = 0, **details: Any) -> Detector:
        label = regex.sub(r"[^A-Z0-9]+", "_", self.name.upper()).strip("_")[:32] or "REDACTED"
        details.setdefault("entity", label)
        if self.entity is not None:
            details["entity"] = self.entity
        pattern = regex.compile(expression, flags)
        return Detector(self.name, self.action, pattern=pattern, message=self.message, **details)


class KeywordsPolicy(_Policy):
    """Whole words as written, ignoring case; spaces match any white space."""

    kind: Literal["keywords"]
    keywords: Annotated[list[Words], Field(min_length=1)]

    def detector(self) -> Detector:
        """Compile the policy."""
        # Alternatives are tried in order. The longest comes first, otherwise "night" would hide "night fall".
        return self._detector(one_of(words(item, r"\s{1,8}") for item in sorted(self.keywords, key=len)[::-1]))


class PhrasesPolicy(_Policy):
    """Words in order, ignoring case, with any spaces and punctuation between them."""

    kind: Literal["phrases"]
    phrases: Annotated[list[Words], Field(min_length=1)]

    def detector(self) -> Detector:
        """Compile the policy."""
        return self._detector(one_of(words(item, r"[\W_]{1,8}") for item in sorted(self.phrases, key=len)[::-1]))


class RegexPolicy(_Policy):
    """A regular expression of the `regex` package."""

    kind: Literal["regex"]
    regex: Annotated[str, AfterValidator(_compiles)]
    ignore_case: bool = False

    def detector(self) -> Detector:
        """Compile the policy."""
        return self._detector(self.regex, regex.IGNORECASE if self.ignore_case else 0)


class PatternPolicy(_Policy):
    """A well-known pattern by name."""

    kind: Literal["pattern"]
    pattern: PatternName
    region: Annotated[str, AfterValidator(_is_region)] = "US"

    def detector(self) -> Detector:
        """Compile the policy."""
        known = well_known(self.pattern, self.region)
        return self._detector(known.expression, entity=known.entity, refine=known.refine, canonical=known.canonical)


Policy = Annotated[KeywordsPolicy | PhrasesPolicy | RegexPolicy | PatternPolicy, Field(discriminator="kind")]


class _File(_Strict):
    api_keys: list[Annotated[str, StringConstraints(min_length=1)]] = []
    policies: Annotated[list[Policy], Field(min_length=1)]


class Policies:
    """Validated policies and their detectors. An empty `api_keys` accepts any key."""

    def __init__(self, policies: list[Policy], api_keys: tuple[str, ...] = ()) -> None:
        self.policies = tuple(policies)
        self.api_keys = api_keys
        self._detectors: dict[Direction, tuple[Detector, ...]] = {
            direction: tuple(p.detector() for p in self.policies if p.direction in (direction, "both"))
            for direction in ("input", "output")
        }

    def detectors(self, direction: Direction) -> tuple[Detector, ...]:
        """Return the detectors of one direction, in the order of the file."""
        return self._detectors[direction]


def parse(document: object) -> Policies:
    """Validate a decoded policies document. Raises PoliciesError."""
    problems = list(_repeated_names(document))
    try:
        file = _File.model_validate(document)
    except ValidationError as error:
        problems += [_sentence(problem["loc"], problem["type"], problem["msg"]) for problem in error.errors()]
        raise PoliciesError(problems) from None
    if problems:
        raise PoliciesError(problems)
    return Policies(file.policies, tuple(file.api_keys))


def load(path: Path | None = None) -> Policies:
    """Read a policies file, or the package's own. Raises PoliciesError."""
    try:
        if path is None:
            text = resources.files("extproc.local_aim").joinpath("policies.yaml").read_text(encoding="utf-8")
        else:
            text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise PoliciesError([f"{path}: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise PoliciesError([f"{path}: not UTF-8"]) from None
    try:
        document = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise PoliciesError([f"{where}not YAML: {error.problem or 'malformed'}"]) from None
    except yaml.YAMLError:
        raise PoliciesError(["not YAML: an unreadable character"]) from None
    return parse(document)


def _repeated_names(document: object) -> Iterator[str]:
    entries = document.get("policies") if isinstance(document, dict) else None
    if isinstance(entries, list):
        names = [entry.get("name") for entry in entries if isinstance(entry, dict)]
        counts = Counter(name for name in names if isinstance(name, str))
        yield from (f"policies: the name {name!r} is used {n} times" for name, n in counts.items() if n > 1)


def _sentence(location: tuple[int | str, ...], kind: str, message: str) -> str:
    """Return one of pydantic's problems in terms of the file."""
    if not location:
        return "the file: must be a mapping with the key policies"
    if location[0] == "policies":  # pydantic adds the policy's kind after its number; the file has no such level
        location = location[:2] + location[3:]
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location).lstrip(".")
    match kind:
        case "extra_forbidden":
            return f"{place}: unknown key"
        case "missing":
            return f"{place}: missing"
        case "model_attributes_type" | "model_type":
            return f"{place}: must be a mapping"
        case "union_tag_not_found":
            return f"{place}.kind: missing"
        case "union_tag_invalid":
            return f"{place}.kind: must be keywords, phrases, regex or pattern"
        case _:
            return f"{place}: {message.removeprefix('Value error, ')}"

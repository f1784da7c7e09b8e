"""The status page: its texts, the secrets that it masks, and the absence of scripts."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from extproc.admin import words
from extproc.admin.page import HEADERS, page
from extproc.config.described import described, without_login
from extproc.config.settings import Settings
from extproc.core.errors import Reason
from extproc.telemetry.snapshot import (
    Block,
    Ended,
    Failure,
    KeyUse,
    Minute,
    Phase,
    Reload,
    Snapshot,
    UnmatchedPath,
    Worker,
    step,
)

NOW = 1_800_000_000.0
HOSTILE = "</td><script>alert(1)</script><img src=x onerror=alert(1)>\"'&"


def snapshot(*workers: dict[str, Any], **parts: Any) -> Snapshot:
    usual = {"phase": Phase.SERVING, "started": NOW - 7260, "streams": 2, "sessions": 1, "held_bytes": 1536}
    usual |= {"is_breaker_open": False, "is_session_breaker_open": False}
    running = tuple(Worker(number, **{**usual, **each}) for number, each in enumerate(workers or ({},)))
    lists = ("minutes", "blocks", "failed_open", "failed", "refused", "ended", "unmatched", "keys")
    return Snapshot(NOW, running, **{**dict.fromkeys(lists, ()), "other_unmatched": 0, **parts})


def minute(back: int = 0, **more: Any) -> Minute:
    empty = {"outcomes": {}, "verdicts": {}, "waits": {}, "failed_open": 0, "detections": {}}
    return Minute(int(NOW // 60) - back, **{**empty, **more})


def block(*policies: str, profile: str = "default") -> Block:
    return Block(NOW - 5, "call-1", profile, "openai-chat", "request", "pre_call", policies, "content_policy_violation")


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") or name == "style" for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        if data.strip() and self.tags[-1] != "style":
            self.words.append(data.strip())


def parsed(text: str) -> _Text:
    parser = _Text()
    parser.feed(text)
    return parser


def text_of(shown: Snapshot | None = None, *, paused: bool = False, **settings: Any) -> str:
    made = page(shown or snapshot(), Settings(**settings), is_paused=paused)
    return " ".join(parsed(made).words).replace("\N{NO-BREAK SPACE}", " ")


class TestGlance:
    def test_quiet_sidecar_is_well(self) -> None:
        text = text_of()
        assert "All is well" in text
        assert "Serving" in text
        assert "up 2 h 1 min" in text
        assert "Nothing was blocked since the start." in text

    def test_figures_are_sums_over_workers(self) -> None:
        text = text_of(snapshot({}, {"streams": 5}), limits={"streams": 100})
        assert "2 workers" in text
        assert "Streams 7 of 200" in text
        assert "3 KiB" in text

    @pytest.mark.parametrize(
        ("phases", "said"),
        [
            ([Phase.DRAINING], "Draining"),
            ([Phase.SERVING, Phase.STARTING], "Starting (1 of 2 workers serve)"),
            ([Phase.SERVING, Phase.DRAINING], "Draining (1 of 2 workers serve)"),
            ([Phase.UNREADY], "Not ready: Aim cannot be reached"),
        ],
    )
    def test_phase_counts_all_workers(self, phases: list[Phase], said: str) -> None:
        assert said in text_of(snapshot(*({"phase": phase} for phase in phases)))

    @pytest.mark.parametrize(
        ("shown", "settings", "said"),
        [
            (snapshot(silent=1), {}, "1 worker of 2 did not answer"),
            (snapshot(keys=(KeyUse("default", True, NOW),)), {}, "refuses the key of profile default, last at"),
            (
                snapshot(keys=(KeyUse("default", True, NOW),)),
                {"aim": {"api_key_file": "/k"}},
                "refuses the key of profile default, or its file cannot be read or holds none, last at",
            ),
            (snapshot({"is_breaker_open": True}), {}, "breaker for detections is open: Aim"),
            (snapshot({}, {"is_session_breaker_open": True}), {}, "breaker for sessions is open in 1 of 2 workers"),
            (snapshot(minutes=(minute(failed_open=3),)), {}, "without a verdict 3 times in the last minutes"),
            (snapshot(minutes=(minute(3, verdicts={"error": 1}),)), {}, "Aim gave no verdict 1 time in"),
            (snapshot({"reload": Reload(NOW, ("x: bad",))}), {}, "The last change of the settings was refused"),
            (snapshot({"reload": Reload(NOW, (), ("workers",))}), {}, "A restart is needed for workers."),
            (snapshot(), {"aim": {"verify": False}}, "certificate is not verified"),
        ],
    )
    def test_trouble_is_named(self, shown: Snapshot, settings: dict[str, Any], said: str) -> None:
        text = text_of(shown, **settings)
        assert "Needs attention" in text
        assert said in text

    def test_old_failure_is_no_trouble(self) -> None:
        assert "All is well" in text_of(snapshot(minutes=(minute(15, failed_open=3),)))

    def test_refused_reload_of_one_worker_is_shown(self) -> None:
        reloads = ({"reload": Reload(NOW - 9, ("colour: unknown setting",))}, {"reload": Reload(NOW)})
        assert "colour: unknown setting" in text_of(snapshot(*reloads))

    def test_charts_have_a_summary_in_words(self) -> None:
        minutes = (
            minute(1, verdicts={"allow": 1200, "block": 2}, waits={step(0.04): 10}),
            minute(verdicts={"allow": 1}),
        )
        made = page(snapshot(minutes=minutes), Settings())
        assert (
            "Verdicts. 1,203 verdicts in 15 minutes: 1,201 allowed, 0 monitored, 0 redacted, 2 blocked, 0 no verdict."
        ) in made
        assert re.search(r"10 waits on the guard in 15 minutes, half of them within 4\d ms, 95 % within 4\d ms\.", made)
        heights = [float(found) for found in re.findall(r'class="allow"[^>]*height="([\d.]+)"', made)]
        assert heights == [pytest.approx(100 * 1200 / 1600), pytest.approx(100 / 1600, abs=0.01)]


class TestDetails:
    def test_block_is_shown_without_content(self) -> None:
        text = text_of(
            snapshot(blocks=(block("PII", "Secrets"), block(profile="trial"))), profiles={"trial": {"enforce": False}}
        )
        assert "call-1" in text
        assert "PII, Secrets" in text
        assert "content_policy_violation" in text
        assert "trial (dry run)" in text
        assert "not named" in text

    def test_failures_are_shown_by_reason(self) -> None:
        text = text_of(
            snapshot(failed_open=(Failure("request", "timeout", 3),), failed=(Failure("output", "session", 1234),))
        )
        assert re.search(r"request reason timeout count 3\b", text)
        assert re.search(r"output reason session count 1,234\b", text)

    def test_refusals_are_shown_by_code_and_reason(self) -> None:
        refused = (Failure("path_not_allowed", "", 2), Failure("guardrail_unavailable", "timeout", 1234))
        text = text_of(snapshot(refused=refused))
        assert re.search(
            r"guardrail_unavailable reason timeout count 1,234 .*path_not_allowed reason none count 2", text
        )
        assert "The sidecar refused nothing since the start." in text_of()

    def test_busiest_profiles_and_dialects_come_first(self) -> None:
        ended = (
            Ended("default", "openai-chat", "allowed", 2),
            Ended("trial", "openai-chat", "dry_run", 9000),
            Ended("trial", "gemini", "blocked", 3),
            Ended("trial", "gemini", "redacted", 1),
            Ended("default", "", "unmatched", 994),
            *(Ended(f"idle-{number}", "gemini", "allowed", 1) for number in range(10)),
        )
        text = text_of(snapshot(ended=ended), profiles={"trial": {"enforce": False}})
        assert (
            "trial (dry run) exchanges 9,004 share 90 % blocked 3 redacted 1 not inspected 0 "
            "default exchanges 996 share 10 % blocked 0 redacted 0 not inspected 994 "
            "idle-0 exchanges 1 share < 1 %"
        ) in text
        assert "idle-5" in text
        assert "idle-6" not in text
        assert "openai-chat exchanges 9,002 share 90 % blocked 0 redacted 0 not inspected 0 none exchanges 994" in text

    def test_latency_of_aim_is_shown_by_hook(self) -> None:
        shown = snapshot(
            minutes=(
                minute(1, detections={"pre_call": {step(0.01): 90}, "stream": {step(5): 1}}),
                minute(detections={"pre_call": {step(0.1): 8, step(2): 2}}),
                minute(15, detections={"moderation": {step(1): 1}}),
            )
        )
        text = text_of(shown)
        assert re.search(r"pre_call count 100 median 1\d ms 95 % 10\d ms 99 % 2.\d s", text)
        assert re.search(r"output, whole streams count 1 median 5.\d s", text)
        assert "output, whole answers" not in text
        assert "Aim was asked nothing in the last 15 minutes." in text_of()

    def test_unmatched_paths_are_shown_the_most_frequent_first(self) -> None:
        rows = (UnmatchedPath("GET", "/rare", "passed", 1), UnmatchedPath("POST", "/users/{id}", "inspected", 1200))
        text = text_of(snapshot(unmatched=rows, other_unmatched=1300))
        assert "/users/{id} method POST done inspected count 1,200 /rare method GET done passed count 1" in text
        assert "1,300 exchanges on other paths." in text
        assert "other paths" not in text_of(snapshot(unmatched=rows))
        assert "Every path was known to a dialect since the start." in text_of()

    def test_profiles_in_force_are_shown(self) -> None:
        keys = (KeyUse("default", False, NOW), KeyUse("tenant", True, NOW))
        profiles = {
            "tenant": {"enforce": False, "hooks": ["moderation"], "api_key_file": "/k", "failure_mode_allow": True},
            "lax": {"failure_mode_allow": {"request": ["timeout", "key_refused"]}, "unmatched": "block", "hooks": []},
        }
        text = text_of(snapshot(keys=keys), aim={"api_key": "k"}, profiles=profiles)
        assert "tenant mode dry run hooks moderation request fails open true response fails open true" in text
        assert "key refused or unreadable (its own), used at" in text
        assert "lax mode enforced hooks none request fails open key_refused, timeout response fails open false" in text
        assert "unmatched paths block key set, not used yet" in text
        assert "key not set" in text_of()


class TestSecrets:
    def test_no_secret_is_on_the_page(self) -> None:
        aim = {"api_key": "top-secret", "proxy": "http://user:hunter2@proxy:3128"}
        made = page(snapshot(), Settings.model_validate({"aim": aim}))
        assert "top-secret" not in made
        assert "hunter2" not in made
        assert "http://***@proxy:3128" in made

    def test_every_setting_is_described(self) -> None:
        listed = {
            each.name: each
            for each in described(Settings.model_validate({"profiles": {"a.b": {"block_message": "No."}}}))
        }
        documented = {"aim.breaker.open_seconds", "limits.streams", "profiles.a.b.inspect.tools", "tls.cert_file"}
        assert documented <= listed.keys()
        assert listed["profiles.a.b.block_message"].value == "No."
        assert not listed["profiles.a.b.block_message"].is_default
        assert listed["aim.api_key"].value == "not set"
        assert listed["profiles.default.user_email"].value == "header:x-aim-user-email"
        # A value of an unknown type would be masked.
        assert "***" not in {each.value for each in listed.values()}

    def test_reasons_with_key_refused_are_listed(self) -> None:
        settings = Settings.model_validate({"profiles": {"default": {"failure_mode_allow": list(Reason)}}})
        listed = {each.name: each.value for each in described(settings)}
        assert "key_refused" in listed["profiles.default.failure_mode_allow.request"]

    def test_url_without_a_login_is_unchanged(self) -> None:
        assert without_login("https://aim.example/x@y") == "https://aim.example/x@y"

    @pytest.mark.parametrize("scheme", ["http://", "HTTP://", ""])
    def test_login_in_a_malformed_url_is_masked(self, scheme: str) -> None:
        assert without_login(f"{scheme}user:p@ss@[host:99/x") == f"{scheme}***@[host:99/x"


class TestInert:
    def test_hostile_names_are_text(self) -> None:
        shown = snapshot(
            {"reload": Reload(NOW, (HOSTILE,))},
            blocks=(block(HOSTILE, profile=HOSTILE),),
            unmatched=(UnmatchedPath(HOSTILE, HOSTILE, "passed", 1),),
            ended=(Ended(HOSTILE, "", "refused", 1),),
        )
        made = parsed(page(shown, Settings()))
        assert not {"script", "img"} & set(made.tags)
        assert made.words.count(HOSTILE) == 6

    def test_content_security_policy_allows_only_the_style(self) -> None:
        made = page(snapshot(), Settings())
        (style,) = re.findall(r"<style>(.*?)</style>", made, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        policy = HEADERS["content-security-policy"]
        assert f"style-src 'sha256-{digest}'" in policy
        assert policy.startswith("default-src 'none';")

    def test_page_reloads_itself_unless_paused(self) -> None:
        running, paused = (page(snapshot(), Settings(), is_paused=is_paused) for is_paused in (False, True))
        assert 'http-equiv="refresh"' in running
        assert "Pause updates" in running
        assert 'http-equiv="refresh"' not in paused
        assert "Resume updates" in paused


class TestWords:
    @pytest.mark.parametrize(
        ("number", "said"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (20_971_520, "20 MiB"), (2**45, "32 TiB")]
    )
    def test_sizes(self, number: int, said: str) -> None:
        assert words.size(number) == said

    @pytest.mark.parametrize(
        ("time", "said"), [(0, "0 ms"), (0.0021, "2.1 ms"), (0.0512, "51 ms"), (1.24, "1.2 s"), (75, "75.0 s")]
    )
    def test_times(self, time: float, said: str) -> None:
        assert words.seconds(time) == said

    @pytest.mark.parametrize(
        ("part", "whole", "said"), [(0, 0, "0 %"), (0, 9, "0 %"), (1, 101, "< 1 %"), (1, 3, "33 %"), (9, 9, "100 %")]
    )
    def test_shares(self, part: int, whole: int, said: str) -> None:
        assert words.share(part, whole).replace("\N{NO-BREAK SPACE}", " ") == said

    @pytest.mark.parametrize(("time", "said"), [(59, "0 min 59 s"), (3661, "1 h 1 min"), (200_000, "2 d 7 h")])
    def test_durations(self, time: float, said: str) -> None:
        assert words.duration(time) == said

    @pytest.mark.parametrize(("value", "top"), [(0, 2), (3, 4), (8.1, 10), (11, 12), (205, 240), (1001, 1200)])
    def test_axes_end_at_a_number_with_a_round_half(self, value: float, top: int) -> None:
        assert words.round_up(value) == top

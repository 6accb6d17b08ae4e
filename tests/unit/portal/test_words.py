"""Both languages say everything: no key is missing, no sentence of an error stays English on a Chinese page."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from jinja2 import Environment, nodes

import beamdesk
from apikit import START
from beamdesk.domain import errors
from beamdesk.domain.desktop import Phase, Reason
from beamdesk.domain.events import EventKind
from beamdesk.domain.person import Role
from beamdesk.portal import say
from beamdesk.portal.i18n import negotiate, words_for
from beamdesk.portal.say import Say, error_text, message_pattern, remark
from beamdesk.ports.previews import Colours
from beamdesk.protocol.guest import StepName, StepState

PACKAGE = Path(beamdesk.__file__).parent
PORTAL = PACKAGE / "portal"
ENGLISH, CHINESE = words_for("en"), words_for("zh")
PLACEHOLDER = re.compile(r"\{(\w+)\}")


def test_both_languages_have_the_same_keys() -> None:
    assert ENGLISH.entries.keys() == CHINESE.entries.keys()


def test_both_languages_have_the_same_placeholders() -> None:
    for key, english in ENGLISH.entries.items():
        assert set(PLACEHOLDER.findall(CHINESE.entries[key])) <= set(PLACEHOLDER.findall(english)), key


def test_chinese_is_chinese() -> None:
    same = {key for key, english in ENGLISH.entries.items() if CHINESE.entries[key] == english and re.search(r"[a-z]{3}", english)}
    assert same <= {"preview.viridis", "preview.inferno", "offer.why_now"}


def constant_keys_of_templates() -> set[str]:
    environment, keys = Environment(), set()
    for path in (PORTAL / "templates").rglob("*.html"):
        for call in environment.parse(path.read_text()).find_all(nodes.Call):
            target, first = call.node, call.args[0] if call.args else None
            named = isinstance(target, nodes.Name) and target.name == "t"
            counted = (
                isinstance(target, nodes.Getattr)
                and target.attr == "count"
                and isinstance(target.node, nodes.Name)
                and target.node.name == "t"
            )
            if not (named or counted) or first is None:
                continue
            for constant in [first, *first.find_all(nodes.Const)] if not isinstance(first, nodes.Concat) else []:
                if isinstance(constant, nodes.Const) and "." in str(constant.value):
                    keys.add(f"{constant.value}.one" if counted else str(constant.value))
    return keys


def test_every_key_of_a_template_exists() -> None:
    keys = constant_keys_of_templates()
    assert len(keys) > 100
    assert not keys - ENGLISH.entries.keys()


def test_every_key_of_a_handler_exists() -> None:
    keys = set()
    for path in PORTAL.glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(call, ast.Call)
                and call.args
                and isinstance(call.args[0], ast.Constant)
                and isinstance(call.func, (ast.Name, ast.Attribute))
            ):
                name = call.func.id if isinstance(call.func, ast.Name) else call.func.attr
                if name == "words":
                    keys.add(call.args[0].value)
    assert len(keys) > 20
    assert not keys - ENGLISH.entries.keys()


@pytest.mark.parametrize(
    "key",
    [
        *(f"state.{phase}" for phase in Phase),
        *(f"reason.{reason}" for reason in Reason if reason),
        *(f"step.{step}" for step in ("queue", "server", *StepName)),
        *(f"step_state.{state}" for state in StepState),
        *(f"event.{kind.value.replace('.', '_')}" for kind in EventKind),
        *(f"role.{role}" for role in Role),
        *(f"lacking.{name}" for name in ("vcpus", "memory_mib", "disk_gib", "gpus", "desktops")),
        *(f"offer.{state}" for state in ("now", "wait", "quota", "never")),
        *(f"offer.why_{state}" for state in ("now", "wait", "quota", "never")),
        *(f"preview.{colours}" for colours in Colours),
        *(
            f"detail.{state}"
            for state in ("stopping", "stopped", "starting", "deleting", "repairing", "building", "booting", "queued")
        ),
        *(f"ask.{action}.{part}" for action in ("stop", "delete", "rename") for part in ("title", "button")),
        *(f"notice.{what}{form}" for what in ("stopped", "started", "extended", "renamed", "deleted") for form in ("", "_plain")),
    ],
)
def test_every_value_that_a_page_names_has_words(key: str) -> None:
    assert key in ENGLISH.entries


def all_errors() -> set[type[errors.BeamdeskError]]:
    found, waiting = set(), [errors.BeamdeskError]
    while waiting:
        kind = waiting.pop()
        found.add(kind)
        waiting += kind.__subclasses__()
    return {kind for kind in found if kind.__module__ == errors.__name__}


def test_every_error_code_has_words() -> None:
    assert {f"error.{kind.code}" for kind in all_errors()} <= ENGLISH.entries.keys()


def sentences_of_errors() -> list[str]:
    """Return the English sentences that use cases and the portal raise, with `{}` where values stand."""
    kinds = {kind.__name__ for kind in all_errors()}
    modules = [
        PACKAGE / "app" / f"{name}.py" for name in ("connections", "data", "desktops", "events", "logins", "offers", "screens")
    ]
    found = []
    for path in [*modules, PACKAGE / "ports" / "files.py", PACKAGE / "adapters" / "sql" / "desktops.py", *PORTAL.glob("*.py")]:
        tree = ast.parse(path.read_text())
        constants = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in kinds and call.args:
                argument = call.args[0]
                argument = constants.get(argument.id, argument) if isinstance(argument, ast.Name) else argument
                choices = [argument.body, argument.orelse] if isinstance(argument, ast.IfExp) else [argument]
                found += [sentence for choice in choices if (sentence := plain(choice))]
    return found


def plain(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return ""


def test_every_sentence_of_an_error_is_translated() -> None:
    sentences = sentences_of_errors()
    assert len(sentences) > 40
    missing = [sentence for sentence in sentences if not any(pattern.fullmatch(sentence) for pattern, _ in say._messages("zh"))]
    assert missing == []


def test_translations_of_errors_use_the_values_that_there_are() -> None:
    for pattern, translation in say._messages("zh"):
        assert translation.format(*("x" for _ in range(pattern.groups)))


def test_a_quota_error_is_wholly_chinese() -> None:
    error = errors.QuotaExceeded(
        "This would exceed your quota: number of desktops and memory. Stop or delete a desktop, or choose a smaller size."
    )
    assert error_text(CHINESE, error) == "这会超出您的配额：桌面数量、内存。请停止或删除一个桌面，或选择较小的规格。"  # noqa: RUF001


def test_an_unknown_sentence_falls_back_to_its_code() -> None:
    assert error_text(CHINESE, errors.Conflict("Never said before.")) == CHINESE("error.conflict")
    assert error_text(ENGLISH, errors.Conflict("Never said before.")) == "Never said before."


def sentences_of_previews() -> list[str]:
    """Return the notes that a preview may carry: f-strings of the module that end with a full stop and are no refusals."""
    tree = ast.parse((PACKAGE / "adapters" / "preview" / "arrays.py").read_text())
    refusals = {id(part) for call in ast.walk(tree) if isinstance(call, ast.Call) for part in call.args}
    return [
        plain(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr) and id(node) not in refusals and plain(node).endswith(".")
    ]


def test_every_note_of_a_preview_is_translated() -> None:
    notes = sentences_of_previews()
    assert len(notes) == 4
    assert [note for note in notes if not remark(CHINESE, note)] == []


def test_several_notes_are_translated_one_by_one() -> None:
    notes = "Row 5 of 10. 1000 of 90000 points are shown."
    assert remark(CHINESE, notes) == "第 5 行，共 10 行。显示了 90000 个点中的 1000 个。"  # noqa: RUF001
    assert remark(ENGLISH, notes) == notes
    assert remark(CHINESE, "Never said before.") == ""


def test_patterns_of_messages_match_literally() -> None:
    assert message_pattern("Wait {} s (at most).").fullmatch("Wait 5 s (at most).")
    assert not message_pattern("Wait {} s.").fullmatch("Wait 5 sx")


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("de-DE,de;q=0.9,en;q=0.5,zh;q=0.3", "en"),
        ("en;q=0.2, zh-Hans;q=0.7", "zh"),
        ("fr, de", None),
        ("zh;q=0, en", "en"),
        ("", None),
        ("zh;q=nonsense", None),
        (",;;q=,,=" * 200, None),
    ],
)
def test_the_browser_says_which_language(header: str, language: str | None) -> None:
    assert negotiate(header) == language


@pytest.mark.parametrize(
    ("seconds", "english", "chinese"),
    [
        (59, "less than a minute left", "剩余 不到一分钟"),
        (8 * 3600, "8 hours left", "剩余 8 小时"),
        (3725, "1 h 2 min left", "剩余 1 小时 2 分"),
        (90000, "1 d 1 h left", "剩余 1 天 1 小时"),
        (-1, "time is over", "时间已到"),
    ],
)
def test_time_left_reads_well(seconds: int, english: str, chinese: str) -> None:
    from datetime import timedelta

    until = START + timedelta(seconds=seconds)
    assert Say(ENGLISH, START).left(until) == english
    assert Say(CHINESE, START).left(until) == chinese


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (188743680, "180.0 MiB"), (2**60, "1024.0 PiB")]
)
def test_sizes_are_short(size: int, text: str) -> None:
    assert Say(ENGLISH, START).size(size) == text

"""YAML as the Hub answers it in JSON, and the worst YAML of its size, refused before it costs anything."""

from __future__ import annotations

import json

import pytest

from deployments.local_hub import yaml_values
from deployments.local_hub.cards import card_data, front_matter
from deployments.local_hub.yaml_values import TEXT_LIMIT, read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2024-01-05", "2024-01-05T00:00:00.000Z"), ("2001-12-14t21:59:43.10-05:00", "2001-12-15T02:59:43.100Z"),
        ("2024-13-45", "2024-13-45"), ("'2024-01-05'", "2024-01-05"), ("0001-01-01T00:00:00+10:00", None),
        (".nan", None), ("-.inf", None), ("1e999", None), ("0x" + "f" * 390, None), ("~", None), ("", None),
        ("no", "no"), ("on", "on"), ("true", True), ("False", False), ("1:30:00", "1:30:00"), ("0x", "0x"), ("-", None),
        ("12", 12), ("0o17", 15), ("0x1F", 31), ("1_000", 1000), ("1e3", 1000), ("1.5", 1.5), ("9" * 500, "9" * 500),
        ("!!str 5", "5"), ("! 5", "5"), ("!!float 5", 5), ("!!binary aGk=", "aGk="), ("[1, [2]]", [1, [2]]),
        ("{a: 1, 2024-01-05: b}", {"a": 1, "2024-01-05": "b"}), ("{<<: {a: 1, b: 1}, a: 2}", {"a": 2, "b": 1}),
        ("{<<: [{a: 1}, {a: 2, b: 2}]}", {"a": 1, "b": 2}), ("[&x {a: 1}, *x]", [{"a": 1}, {"a": 1}]),
    ],
)  # fmt: skip
def test_a_value_is_what_javascript_makes_of_it(text: str, value: object) -> None:
    if text == "-":
        assert read("- ") == [None]
    elif text.startswith("0001"):
        assert read(text) == text  # before the first year that there is here
    else:
        assert read(text) == value
    assert json.dumps(read(f"a: {text}" if not text.startswith("-") else "a: 1"), allow_nan=False)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{a: 1, a: 2}", "twice"), ("[a: !thing 5]", "tag"), ("{[1]: 2}", "key"), ("{? {a: 1} : 2}", "key"),
        ("[*a]", "stands for nothing"), ("&a [*a]", "stands for nothing"), ("a: 1\n--- \nb: 2", "more than one"),
        ("a: [", "expected"), ("{<<: 5}", "mapping"), ("\x00", "character"),
    ],
)  # fmt: skip
def test_what_has_no_value_in_json_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read(text)


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [" + "x," * 9 + "]"]
    lines += [f"a{level}: &a{level} [" + f"*a{level - 1}," * 9 + "]" for level in range(1, levels)]
    return "\n".join(lines)


WORST = {
    "aliases": bomb(9),
    "a long text by alias": "a: &a " + "x" * 100_000 + "\nb: [" + "*a," * 50_000 + "]",
    "flow": "[" * TEXT_LIMIT,
    "blocks": "\n".join(" " * depth + "a:" for depth in range(900)),
    "lists": "a: [" + "[]," * (TEXT_LIMIT // 3 - 10) + "]",
    "numbers": "a: [" + "1," * (TEXT_LIMIT // 2 - 10) + "]",
    "sexagesimal": "a: " + "1:" * (TEXT_LIMIT // 2 - 10) + "1",
    "digits": "a: " + "9" * (TEXT_LIMIT - 10),
    "merged again and again": "a: &a {" + "".join(f"k{n}: 1," for n in range(2000)) + "}\n" + "b: {<<: [" + "*a," * 99,
    "many small merges": "e: &e {}\nb:\n  <<: [" + "*e," * 40_000 + "]\n" + "".join(f"  {n}:\n" for n in range(15_000)),
    "equal keys": "".join(f"{n * (2**61 - 1)}: \n" for n in range(20_000)),
    "anchors": "".join(f"- &a{n} x\n" for n in range(30_000)),
    "too long": "a" * (TEXT_LIMIT + 1),
}  # fmt: skip


@pytest.mark.parametrize("name", WORST)
def test_the_worst_of_its_size_is_read_or_refused_and_its_answer_is_small(name: str) -> None:
    text = WORST[name]
    try:
        answer = json.dumps(read(text), allow_nan=False)
    except ValueError:
        answer = ""
    assert len(answer) <= 2 * yaml_values.WEIGHT_LIMIT


@pytest.mark.parametrize(
    ("text", "block", "rest"),
    [
        ("---\na: 1\n---\nText", "a: 1\n", "Text"), ("\n\ufeff---  \n---\n", "", ""), ("---\na: 1\n", None, None),
        ("Text\n---\na: 1\n---\n", None, None), ("---\r\na: 1\r\n---\r\nText", "a: 1\r\n", "Text"),
        ("----\na\n---\n", None, None), ("---\na: |\n  --- x\n---", "a: |\n  --- x\n", ""),
    ],
)  # fmt: skip
def test_the_block_at_the_top_of_a_card_is_found(text: str, block: str | None, rest: str | None) -> None:
    assert front_matter(text) == (block, text if rest is None else rest)


def test_a_card_of_blank_lines_and_dashes_costs_nothing() -> None:
    assert card_data("---\n" + "\n" * 20_000_000 + "x") == {}
    assert card_data("--- \n" + "-- \n" * 3_000_000) == {}

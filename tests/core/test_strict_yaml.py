"""The YAML that a project file may use: what each value becomes, and what is refused with its place."""

from __future__ import annotations

import pytest

from tunesmith.core.strict_yaml import MAX_BYTES, MAX_DEPTH, read, read_value


def value_of(text: str) -> object:
    node, problems = read(text.encode(), "t.yaml")
    assert not problems, problems
    assert node is not None
    return node.plain()


def complaint(text: str | bytes) -> str:
    _, problems = read(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"), "t.yaml")
    return "\n".join(str(p) for p in problems)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("1e-4", 1e-4), ("1e-3", 1e-3), ("1E5", 1e5), (".5", 0.5), ("-2.", -2.0), ("+3", 3), ("0", 0), ("-7", -7),
        ("no", "no"), ("NO", "NO"), ("yes", "yes"), ("on", "on"), ("y", "y"), ("true", True), ("False", False),
        ("null", None), ("~", None), ("12:30", "12:30"), ("1.2.3", "1.2.3"), ('"1"', "1"), ("'no'", "no"),
        ("!", None), ("nan", "nan"), ("inf", "inf"), ("a b", "a b"), ("'2024-01-01'", "2024-01-01"), ("1_a", "1_a"),
        ("0ba6b0ca6441", "0ba6b0ca6441"), ("0b2", "0b2"), ("0xfg", "0xfg"),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text: str, want: object) -> None:
    if text == "!":
        assert "tag" in complaint("a: ! x")
        return
    got = value_of(f"a: {text}")
    assert got == {"a": want}
    assert type(got["a"]) is type(want)  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3", "t.yaml:3:1: a is set twice; first on line 1"),
        ("s: {k: 1, k: 2}", "t.yaml:1:11: k is set twice; first on line 1"),
        ("a: 2024-01-01", "t.yaml:1:4: 2024-01-01 looks like a date"),
        ("a: 2024-1-1 10:00:00", "looks like a date"),
        ("a: 1_000", 't.yaml:1:4: 1_000 looks like a number\n  fix:   write 1000, or "1_000" for text'),
        ("a: 0x1F", "0x1F looks like a number"),
        ("a: 0o17", "0o17 looks like a number"),
        ("a: 0b11", "0b11 looks like a number"),
        ("a: 007", '007 has a leading zero\n  fix:   write 7, or "007" for text'),
        ("a: 123456789012345678901", "too large a whole number"),
        ("a: .nan", ".nan is not a finite number"),
        ("a: -.inf", "-.inf is not a finite number"),
        ("a: 1e999", "1e999 is not a finite number"),
        ("a: !!str 3", "t.yaml:1:4: tag !!str is not allowed"),
        ("a: !!python/object:os.system x", "tag !!python/object:os.system is not allowed"),
        ("a: !x {b: 1}", "is not allowed"),
        ("a: &x 1\nb: *x", "t.yaml:1:4: anchor &x is not allowed"),
        ("a: &x 1\nb: *x", "t.yaml:2:4: alias *x is not allowed"),
        ("a: 1\n---\nb: 2", "t.yaml:2:1: a second document starts here"),
        ("%YAML 1.1\n---\na: no", "directives (%YAML, %TAG) are not allowed"),
        ("%TAG ! tag:x,2000:\n---\na: no", "directives (%YAML, %TAG) are not allowed"),
        ("? [a, b]\n: 1", "t.yaml:1:3: a key must be plain text"),
        ("a:\n\t- b", "t.yaml:2:1: not valid YAML: found character '\\t' that cannot start any token\n  fix:   indent"),
        ("a: b: c", "t.yaml:1:5: not valid YAML: mapping values are not allowed here\n  fix:   quote a value"),
        ("a: [1,", "not valid YAML"),
        ("a: 'x", "not valid YAML"),
        ("a: [1, 2}", "not valid YAML"),
        ("a: \x07", "t.yaml:1:4: control character U+0007 is not allowed"),
        ("a: x\x85b: 1", "control character U+0085"),
        ("a: x\u2028b: 1", "control character U+2028"),
        ("a: 1\nb: x\x00", "t.yaml:2:5: control character U+0000 is not allowed"),
        ('a: "\\0"', "t.yaml:1:4: character U+0000 is not allowed in a value"),
        ('a: "\\ud800"', "character U+D800 is not allowed in a value"),
        ('a: "\\e[31m"', "character U+001B is not allowed in a value"),
        ('"a\\n": 1', "'a\\n' cannot be a key"),
        (": 1", "t.yaml:1:1: '' cannot be a key"),
        (b"a: \xff", "t.yaml:1:4: byte 0xff is not UTF-8\n  fix:   save the file as UTF-8"),
        (b"a: 1\r\nb: \xc3", "t.yaml:2:4: byte 0xc3 is not UTF-8"),
        (b"a: \xed\xa0\x80", "is not UTF-8"),
        (b"\xff\xfea\x00:\x00", "byte 0xff is not UTF-8"),
    ],
)  # fmt: skip
def test_what_surprises_is_refused_where_it_stands(text: str | bytes, says: str) -> None:
    assert says in complaint(text)


def test_a_byte_order_mark_and_crlf_change_nothing() -> None:
    plain = "a: 1\nb: [x, y]\ntext: |\n  one\n  two\n"
    assert value_of("\ufeff" + plain.replace("\n", "\r\n")) == value_of(plain)
    assert complaint("\ufeffa: 1\r\na: 2\r\n").startswith("t.yaml:2:1: a is set twice")


def test_every_problem_is_reported_at_once() -> None:
    said = complaint("a: 1_0\na: !!str 2\nb: .nan\nc: &x 2024-02-03\n")
    assert [line.split(" ")[0] for line in said.splitlines() if line.startswith("t.yaml")] == [
        "t.yaml:1:4:", "t.yaml:2:4:", "t.yaml:2:1:", "t.yaml:3:4:", "t.yaml:4:4:", "t.yaml:4:4:",
    ]  # fmt: skip


def test_a_huge_or_deep_file_is_refused_at_once() -> None:
    assert f"a settings file may have {MAX_BYTES:,}" in complaint("a: " + "x" * MAX_BYTES)
    assert f"nested more than {MAX_DEPTH} deep" in complaint("a: " + "[" * 100_000)
    assert f"nested more than {MAX_DEPTH} deep" in complaint("a: " + "{b: " * 50_000)


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "\ufeff"])
def test_an_empty_file_is_no_tree(text: str) -> None:
    node, problems = read(text.encode(), "t.yaml")
    assert not problems
    assert node is None or node.value is None


def test_places_are_one_based_lines_and_columns_of_characters() -> None:
    node, _ = read("é: {b: 'ü', c: [1, x]}\n".encode(), "t.yaml")
    assert node is not None
    inner = node.value["é"].value
    assert str(inner["c"].value[1].place) == "t.yaml:1:20"
    assert str(inner["c"].key) == "t.yaml:1:13"
    assert inner["c"].place.origin == "t.yaml:1"


def test_a_value_from_the_command_line_is_read_the_same_way() -> None:
    node, problems = read_value("[1e-4, no, {a: 2}]", "--set x=...")
    assert not problems
    assert node is not None
    assert node.plain() == [1e-4, "no", {"a": 2}]
    assert str(node.place) == "--set x=..."
    assert read_value("1_000", "--set x=1_000")[1][0].where == "--set x=1_000"
    assert "U+DCFF" in read_value("\udcff", "--set x")[1][0].what

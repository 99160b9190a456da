"""Templates that can only lay out words: checked when they are read, so that none can loop, grow or reach for more.

A template may show fields, ask whether one is there, and go through a list. It may not compute, call, assign or
include, so its output is bounded by its own length and the fields'. Jinja2's immutable sandbox runs it all the same.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from churnkit.errors import SettingsError, did_you_mean

LONGEST = 20_000
"""The most characters that a template, or what comes of it, may have."""

LISTS = frozenset({"about", "why", "lately", "steps", "also", "source"})
"""The fields that are lists."""
BRIEF = LISTS | {"name", "segment", "says", "act", "why_label", "against", "changed", "lately_label", "steps_label",
                 "ask", "avoid", "also_label", "answers"}
TITLE = frozenset({"act", "says", "why", "renewal"})
WORDIEST = 60
"""The most words of its own that a template may have, beside the fields'."""
FIELDS: Mapping[str, frozenset[str]] = {
    "brief.md.j2": BRIEF, "brief.txt.j2": BRIEF, "brief.html.j2": BRIEF, "title.j2": TITLE}
"""Each template's fields."""

_FILTERS = frozenset({"join", "first", "last", "length", "upper", "lower", "capitalize", "trim"})
_PLAIN = (nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.CondExpr, nodes.And, nodes.Or, nodes.Not,
          nodes.Compare, nodes.Operand)
_TAG = re.compile(r"</?(?:p|ul|ol|li|strong)>|</a>|<a href=\"(?:\x00|https?://[^\s\"<>\x01]+)\">")
_OF_LOOP, _OF_LINE = frozenset({"index", "first", "last"}), frozenset({"text", "url"})


def _environment(*, html: bool) -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=html, trim_blocks=True,
                                         lstrip_blocks=True, keep_trailing_newline=False)


_ENVIRONMENTS = {html: _environment(html=html) for html in (False, True)}


def compiled(text: str, file: Path) -> Template:
    """A template, ready to run, after its check; the file's name says which one it is.

    Raises:
        SettingsError: If it is broken or does more than lay out words; names file, line and mend.
    """
    html, mend = file.name == "brief.html.j2", "Mend that line, or delete the file to get churnkit's own template back."
    if len(text) > LONGEST:
        raise SettingsError(f"{file}: has {len(text):,} characters; a template may have {LONGEST:,}. Shorten it.")
    environment = _ENVIRONMENTS[html]
    try:
        tree = environment.parse(text)
        _Check(file, FIELDS[file.name], mend).tree(tree, html=html)
        return environment.from_string(tree)
    except TemplateSyntaxError as error:
        raise SettingsError(f"{file}, line {error.lineno}: {error.message}. {mend}") from None
    except (RecursionError, SyntaxError):  # Python's own limits on how deep a thing may be nested
        raise SettingsError(f"{file}: is nested too deeply. {mend}") from None


def rendered(template: Template, fields: Mapping[str, Any]) -> str:
    """What comes of a template: without trailing blanks, and with no more than one empty line in a row."""
    lines: list[str] = []
    for line in map(str.rstrip, template.render(fields).strip().splitlines()):
        if line or (lines and lines[-1]):
            lines.append(line)
    return "\n".join(lines)


@dataclass(frozen=True)
class _Check:
    """Goes through a template's tree and refuses all that is not layout."""

    file: Path
    fields: Collection[str]
    mend: str

    def tree(self, tree: nodes.Template, *, html: bool) -> None:
        self.node(tree, {}, 0)
        own = sum(len(_TAG.sub(" ", data.data).split()) for data in tree.find_all(nodes.TemplateData))
        if own > WORDIEST:
            raise self.fail(tree, f"has {own} words of its own; a brief is short, so write up to {WORDIEST}")
        if html:
            self.html(tree)

    def fail(self, node: nodes.Node, what: str) -> SettingsError:
        return SettingsError(f"{self.file}, line {node.lineno}: {what}. {self.mend}")

    def node(self, node: nodes.Node, names: Mapping[str, str], depth: int) -> None:
        """`names` are what the loops around this node have named: lines or loop."""
        if isinstance(node, nodes.For):
            self.loop(node, names, depth)
            return
        if isinstance(node, nodes.Name):
            self.name(node, names)
        elif isinstance(node, nodes.Getattr):
            self.attribute(node, names)
        elif isinstance(node, nodes.Filter):
            self.filter(node)
        elif isinstance(node, nodes.Const):
            if not isinstance(node.value, int | str | bool | None) or len(str(node.value)) > 200:
                raise self.fail(node, "a value is too long; write up to 200 characters")
        elif not isinstance(node, _PLAIN):
            raise self.fail(node, f"'{type(node).__name__.lower()}' is more than a template may do; it may show "
                                  "fields, ask whether one is there (if), and go through a list (for)")
        for child in node.iter_child_nodes():
            self.node(child, names, depth)

    def loop(self, node: nodes.For, names: Mapping[str, str], depth: int) -> None:
        plain = isinstance(node.target, nodes.Name) and not (node.test or node.recursive)
        if not plain or not isinstance(node.iter, nodes.Name) or node.iter.name not in LISTS & set(self.fields):
            known = ", ".join(sorted(LISTS & set(self.fields)))
            raise self.fail(node, f"a loop goes plainly through one of the lists: {known or 'here are none'}")
        if depth:
            raise self.fail(node, "a loop may not stand inside another one")
        target = str(node.target.name) if isinstance(node.target, nodes.Name) else ""
        if target in {*self.fields, "loop"}:
            raise self.fail(node, f"'{target}' is a field already; call the loop's value something else")
        kind = "lines" if node.iter.name == "lately" else "line"
        for child in (*node.body, *node.else_):
            self.node(child, {**names, target: kind, "loop": "loop"}, depth + 1)

    def name(self, node: nodes.Name, names: Mapping[str, str]) -> None:
        if node.ctx != "load" or (node.name not in self.fields and node.name not in names):
            raise self.fail(node, f"there is no field '{node.name}'.{did_you_mean(node.name, self.fields)} "
                                  f"There are: {', '.join(sorted(self.fields))}")

    def attribute(self, node: nodes.Getattr, names: Mapping[str, str]) -> None:
        kind = names.get(node.node.name, "") if isinstance(node.node, nodes.Name) else ""
        if node.attr not in {"loop": _OF_LOOP, "lines": _OF_LINE}.get(kind, frozenset()):
            raise self.fail(node, f"'.{node.attr}' cannot be asked for; a line of 'lately' has .text and .url, a loop "
                                  ".index, .first and .last")

    def filter(self, node: nodes.Filter) -> None:
        if node.name not in _FILTERS:
            raise self.fail(node, f"the filter '{node.name}' cannot be used; there are {', '.join(sorted(_FILTERS))}")
        given = [*node.args, *node.kwargs, *[one for one in (node.dyn_args, node.dyn_kwargs) if one]]
        if node.name != "join":
            if given:
                raise self.fail(node, f"the filter '{node.name}' takes nothing in brackets here")
            return
        short = len(given) == 1 and isinstance(given[0], nodes.Const) and len(str(given[0].value)) <= 20
        if not short or not isinstance(node.node, nodes.Name) or node.node.name not in LISTS:
            raise self.fail(node, "'join' takes one of the lists and a short text to put between, as in "
                                  '{{ about|join(" ") }}')

    def html(self, tree: nodes.Template) -> None:
        """Only the tags that a CRM's body may have, whole and with nothing in them but a plain address."""
        pieces = list(_pieces(tree))
        left = _TAG.sub("", "".join(text for text, _ in pieces))
        if "<" not in left and ">" not in left:
            return
        for text, node in pieces:
            rest = _TAG.sub("", text)
            rest = rest.removesuffix('<a href="').removeprefix('">')
            if "<" in rest or ">" in rest:
                number = node.lineno + text[: text.find("<")].count("\n")
                raise SettingsError(f"{self.file}, line {number}: only <p>, <ul>, <ol>, <li>, <strong> and "
                                    '<a href="{{ line.url }}"> may stand here, without other attributes. '
                                    f"{self.mend}")
        raise self.fail(tree, "a tag is broken by a field or a condition")


def _pieces(node: nodes.Node) -> Iterator[tuple[str, nodes.Node]]:
    """A template's own text in its order, with one sign for an address that is put in and one for other values."""
    if isinstance(node, nodes.TemplateData):
        yield node.data, node
    elif isinstance(node, nodes.Output):
        for child in node.nodes:
            address = isinstance(child, nodes.Getattr) and child.attr == "url"
            yield child.data if isinstance(child, nodes.TemplateData) else "\x00" if address else "\x01", child
    else:
        for below in node.iter_child_nodes():
            yield from _pieces(below)

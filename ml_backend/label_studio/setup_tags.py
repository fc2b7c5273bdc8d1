"""The tags of a labeling setup, as its XML names them and as the page reads them: whatever their case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from ml_backend.errors import LabelConfigError

MAX_CONFIG_CHARS = 1_000_000
"""254 labels with long names take some 50 kB; anything near this was not written for people."""

MAX_DEPTH = 50
"""Setups for people nest some ten tags. Tags are sought below tags: time grows with depth times length."""


@dataclass(frozen=True)
class Tag:
    """One XML element; kinds and attribute names in lower case, because the page ignores their case."""

    kind: str
    attributes: Mapping[str, str]
    element: Element

    @property
    def name(self) -> str:
        return self.attributes.get("name", "")

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(part.strip() for part in self.attributes.get("toname", "").split(",") if part.strip())

    @property
    def text(self) -> str:
        """What results will hold for a label or choice: its alias, else its value."""
        return self.alias or self.value

    @property
    def alias(self) -> str:
        return self.attributes.get("alias", "")

    @property
    def value(self) -> str:
        return self.attributes.get("value", "")

    def is_called(self, text: str) -> bool:
        """Whether value or alias is `text`, in any case."""
        return text.casefold() in (self.value.strip().casefold(), self.alias.strip().casefold())

    def within(self, *kinds: str) -> tuple[Tag, ...]:
        return tuple(tag for tag in _iter_tags(self.element) if tag.kind in kinds)


def read_tags(xml: str) -> tuple[Tag, ...]:
    """All tags of a labeling setup in their order; raises `LabelConfigError` where it is no safe XML."""
    return tuple(_iter_tags(_parse_xml(xml)))


def _parse_xml(xml: str) -> Element:
    if len(xml) > MAX_CONFIG_CHARS:
        raise LabelConfigError(
            f"the labeling setup has {len(xml)} characters; the limit is {MAX_CONFIG_CHARS}"
        )
    try:
        root: Element = fromstring(xml, forbid_dtd=True)
    except DefusedXmlException:
        raise LabelConfigError("the labeling setup must not contain <!DOCTYPE> or <!ENTITY>") from None
    except (ParseError, ValueError) as error:  # ValueError: text that UTF-8 cannot hold
        raise LabelConfigError(f"the labeling setup is not XML: {error}") from None
    _check_depth(root)
    return root


def _check_depth(root: Element) -> None:
    level, depth = [root], 1
    while level:
        if depth > MAX_DEPTH:
            raise LabelConfigError(f"the labeling setup nests its tags deeper than {MAX_DEPTH}")
        level, depth = [child for element in level for child in element], depth + 1


def _iter_tags(root: Element) -> Iterator[Tag]:
    for element in root.iter():
        if isinstance(element.tag, str):  # comments have a function here
            attributes = {key.lower(): value for key, value in element.attrib.items()}
            yield Tag(element.tag.lower(), attributes, element)

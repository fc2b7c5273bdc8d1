"""What MkDocs is told besides `mkdocs.yml`: the list of decisions, so that nobody has to keep one."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

PLACE = "<!-- list of decisions -->"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put a link to each decision where a page asks for the list."""
    if PLACE not in markdown:
        return markdown
    sources = sorted(
        (file for file in files.documentation_pages() if file.src_uri.startswith("decisions/0")),
        key=lambda file: file.src_uri,
    )
    rows = [f"* [{_title(file.content_string)}]({file.src_uri.split('/')[-1]})" for file in sources]
    return markdown.replace(PLACE, "\n".join(rows))


def _title(text: str) -> str:
    return text.splitlines()[0].lstrip("# ")

"""A field of Label Studio's JSON in the words of its pages: `tasks.0.data` is the data of task 12."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

ROWS = ("task", "annotation", "project")
"""What people know by a number; the field has the same name, or its plural."""

WORDS = {
    "action": "the name of the event",
    "annotation": "the annotation",
    "annotations": "the annotations",
    "completed_by": "the person who annotated",
    "created_at": "the time of creation",
    "data": "the data of the task",
    "id": "the number",
    "label_config": "the labeling setup",
    "parent_annotation": "the annotation it was copied from",
    "parent_prediction": "the prediction it was made from",
    "project": "the project",
    "result": "the regions",
    "schema": "the labeling setup",
    "task": "the task",
    "tasks": "the tasks",
    "title": "the title",
    "updated_at": "the time of the last change",
    "was_cancelled": "whether it was skipped",
}


def describe_field(path: Sequence[str | int], body: object) -> str:
    """What a person calls the field at `path` of a body, with the path in parentheses behind it.

    Of the body it repeats nothing but the numbers of rows.

    Examples
    --------
    >>> describe_field(["tasks", 0, "data"], {"tasks": [{"id": 12}]})
    'task 12: the data of the task (tasks.0.data)'
    >>> describe_field(["params", "context"], {})
    'params.context'
    """
    rows = _name_rows(path, body)
    field = next((step for step in reversed(path) if isinstance(step, str) and step in WORDS), None)
    said = ": ".join(part for part in (", ".join(rows), WORDS[field] if field else "") if part)
    dotted = ".".join(map(str, path))
    return f"{said} ({dotted})" if said else dotted


def name_field(annotation_id: int, place: str, field: str) -> str:
    """What a person calls a field of an annotation that stands at `place` of a body.

    Examples
    --------
    >>> name_field(5, "annotation.0", "updated_at")
    'annotation 5: the time of the last change (annotation.0.updated_at)'
    """
    return f"annotation {annotation_id}: {WORDS[field]} ({place}.{field})"


def _name_rows(path: Sequence[str | int], body: object) -> list[str]:
    """The rows that the path leads through, from the outside in."""
    rows: list[str] = []
    node, kind = body, ""
    for step in path[:-1]:
        if isinstance(step, str):
            kind = step.removesuffix("s")
            # The complaint names the first of two names that the field may have.
            names = (step, kind, f"{kind}s")
            node = next((node[n] for n in names if n in node), None) if isinstance(node, Mapping) else None
        elif isinstance(node, list):
            node = node[step] if step < len(node) else None
        if kind in ROWS and isinstance(node, Mapping):
            rows += _name_row(kind, node)
            kind = ""
    return rows


def _name_row(kind: str, row: Mapping[str, object]) -> list[str]:
    """`annotation 5`, with its task where that is told by number."""
    named = [(kind, row.get("id"))]
    if kind == "annotation":
        named.insert(0, ("task", row.get("task")))
    return [f"{what} {number}" for what, number in named if type(number) is int and 0 < number < 2**63]

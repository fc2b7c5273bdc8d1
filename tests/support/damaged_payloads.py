"""Bodies of Label Studio's calls, damaged in as many ways as one can think of."""

from __future__ import annotations

import copy
import json
import time

PATHS = {"setup": "/setup", "predict": "/predict", "webhook": "/webhook"}
SEEDS = (
    "setup",
    "setup_basic_auth_extra_params",
    "predict_open_task",
    "predict_batch",
    "predict_localfiles",
    "predict_interactive",
    "webhook_ANNOTATION_CREATED",
    "webhook_ANNOTATION_CREATED_skipped",
    "webhook_ANNOTATION_UPDATED",
    "webhook_ANNOTATIONS_CREATED",
    "webhook_ANNOTATIONS_DELETED",
    "webhook_TASKS_CREATED",
    "webhook_TASKS_DELETED",
    "webhook_PROJECT_UPDATED",
    "webhook_START_TRAINING",
)
ODD_VALUES = (
    None, True, False, 0, -1, 1, 2**31, 2**63 - 1, 2**63, 10**30, -(10**400), 0.5, -0.0, 1e308,
    "", " ", "\ufeff", "x" * 10_000, "0", "1.", ".1", "1.1795331929", "-1.0", "1e9.0", "٣.1", "9" * 400,
    "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00+23:59", "2026-13-01", "<View/>",
    "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "$image", "../../etc/passwd",
    "\U0001f58c", "\u202e", "'; DROP TABLE projects; --", "{{ 7 * 7 }}", "%s%n",
    [], {}, [[]], [None], [{}], {"": ""}, {"id": 1}, [{"id": 1}], {"id": "1"}, [1, "a", None, {"b": [2.5]}],
)  # fmt: skip


def find_places(value, path=()):
    """Paths of all values below `value`."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from find_places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(min(len(value), 3)):
            yield from find_places(value[index], (*path, index))


def pick_odd_value(rng):
    return copy.deepcopy(rng.choice(ODD_VALUES))


def mutate_value(body, rng):
    """Replace, remove, double or nest one value anywhere in the body."""
    places = [place for place in find_places(body) if place]
    if not places:
        return pick_odd_value(rng)
    *way, last = rng.choice(places)
    holder = body
    for step in way:
        holder = holder[step]
    action = rng.randrange(5)
    if action == 0:
        del holder[last]
    elif action == 1:
        holder[last] = [holder[last], holder[last]]
    elif action == 2:
        holder[last] = {"value": holder[last]}
    elif action == 3 and isinstance(holder, dict):
        holder[rng.choice(["id", "task", "project", "annotation", "__class__", "x" * 50])] = holder.pop(last)
    else:
        holder[last] = pick_odd_value(rng)
    return body


def mutate_bytes(text, rng):
    """Damage the text itself: cut, flip, repeat, insert."""
    data = bytearray(text)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        action = rng.randrange(5)
        if action == 0:
            del data[at:]
        elif action == 1 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif action == 2:
            data[at:at] = data[at : at + rng.randint(1, 200)]
        elif action == 3:
            data[at:at] = rng.choice(
                [b"\x00", b"\\u0000", b"\\ud800", b"\xff", b"{", b"[" * 300, b"NaN", b"1e999", b'"']
            )
        else:
            del data[at : at + rng.randint(1, 50)]
    return bytes(data)


def make_payload(seeds, rng):
    """A path and a damaged body; sometimes the body of another call."""
    name = rng.choice(SEEDS)
    path = PATHS[name.split("_")[0]] if rng.random() < 0.9 else rng.choice(list(PATHS.values()))
    body = json.loads(seeds[name])
    for _ in range(rng.choice([0, 1, 1, 2, 5])):
        body = mutate_value(body, rng) if isinstance(body, (dict, list)) else body
    text = json.dumps(body).encode()
    return path, mutate_bytes(text, rng) if rng.random() < 0.4 else text


def post_many(client, recorded, n_payloads, rng):
    """Post damaged payloads; returns how often each status came, and the slowest answer."""
    seeds = {name: json.dumps(recorded(name)["body"]) for name in SEEDS}
    statuses = dict.fromkeys((200, 201, 400, 422), 0)
    slowest = 0.0
    for _ in range(n_payloads):
        path, body = make_payload(seeds, rng)
        began = time.monotonic()
        answer = client.post(path, data=body, content_type="application/json")
        slowest = max(slowest, time.monotonic() - began)
        assert answer.status_code in statuses, (path, body[:2000], answer.text)
        statuses[answer.status_code] += 1
        document = json.loads(answer.data)
        if answer.status_code >= 400:
            assert set(document) == {"error", "id"}
            assert 0 < len(document["error"]) < 1000
        elif path == "/predict":
            assert all(entry is not None for entry in document["results"])
    return statuses, slowest

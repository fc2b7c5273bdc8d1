"""Print what the environment of a Python has installed, as a constraints file.

Local version suffixes are left out (a CPU build of torch is the same release), and packages that
do not run on the oldest Python that Brushloop supports are pinned for the newer ones only.
"""

from __future__ import annotations

import json
import subprocess
import sys

from packaging.specifiers import SpecifierSet

OLDEST_PYTHON = "3.10.0"

LIST_INSTALLED = """
import importlib.metadata as m, json
print(json.dumps([[d.name, d.version, d.metadata.get("Requires-Python") or ""] for d in m.distributions()]))
"""

LEFT_OUT = {"pip", "brushloop"}

NO_OLD_WHEELS = {"onnxruntime"}
"""They claim to run on the oldest Python, and ship nothing for it."""


def main(python: str) -> None:
    answer = subprocess.run([python, "-c", LIST_INSTALLED], check=True, capture_output=True, text=True)  # noqa: S603
    for name, version, requires in sorted(json.loads(answer.stdout), key=lambda row: row[0].casefold()):
        if name in LEFT_OUT:
            continue
        old_too = name not in NO_OLD_WHEELS and SpecifierSet(requires).contains(OLDEST_PYTHON)
        marker = "" if old_too else ' ; python_version >= "3.11"'
        sys.stdout.write(f"{name}=={version.partition('+')[0]}{marker}\n")


if __name__ == "__main__":
    main(sys.argv[1])

"""Make a virtual environment with pinned packages: by uv in seconds where it can be had, else by pip.

Usage: python .ci/environment.py [--shared NAME] FOLDER CONSTRAINTS REQUIREMENT...

An environment that holds nothing of this checkout may be shared by all clones: it then lies in the user's
cache below a key of all that decides what is in it, and FOLDER is a link to it.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

DONE = ".installed"
"""Written last, with the key: what an interrupted installation left behind is made anew."""

FROM_PIP = {
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_CERT": "SSL_CERT_FILE",
}
"""Who told pip where packages are, has told uv."""


def main(arguments: Sequence[str]) -> int:
    """Returns 0, or what the installer ended with."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shared", metavar="NAME", help="share it between clones under this name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("constraints", type=Path)
    parser.add_argument("requirements", nargs="+")
    options = parser.parse_args(arguments)
    key = key_of(options.constraints, options.requirements)
    home = shared_home(options.shared, key, os.environ) if options.shared else None
    try:
        make(options.folder, home, key, options.constraints, options.requirements)
    except subprocess.CalledProcessError as error:
        tell(f"{error.cmd[0]} ended with code {error.returncode}")
        return int(error.returncode)
    return 0


def make(folder: Path, home: Path | None, key: str, constraints: Path, requirements: Sequence[str]) -> None:
    """Install, or find what another clone installed, and have `folder` be it or lead to it."""
    target = home or folder
    with locked(target):
        # Only a shared one is known by its key alone: in a clone's own, make has found something newer.
        if home and is_done(target, key):
            tell(f"{folder}: shared with other clones, {target}")
        else:
            install(target, folder, constraints, requirements)
        (target / DONE).write_text(key)  # newer than the locks again, which is what make looks at
    if home:
        lead_to(folder, home)


def key_of(constraints: Path, requirements: Sequence[str]) -> str:
    """Changes with everything that decides what is installed: the lock, the wishes, the interpreter."""
    parts = (constraints.read_text(), *requirements, sys.executable, sys.version, platform.machine())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def shared_home(name: str, key: str, environment: Mapping[str, str]) -> Path | None:
    """Where the shared environment lies; None when somebody wants none, or there is no place to write."""
    if environment.get("SHARE_ENVIRONMENTS") == "0":
        return None
    home = cache_folder(environment) / f"{name}-{key}"
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return home if os.access(home.parent, os.W_OK) else None


def cache_folder(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "brushloop"


def is_done(home: Path, key: str) -> bool:
    try:
        return (home / DONE).read_text() == key and (home / "bin" / "python").exists()
    except OSError:
        return False


def lead_to(folder: Path, home: Path) -> None:
    """Make `folder` a link to the environment; one that was installed here before gives way."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)
    folder.symlink_to(home)


def install(target: Path, folder: Path, constraints: Path, requirements: Sequence[str]) -> None:
    started = time.monotonic()
    if target == folder and folder.is_symlink():
        folder.unlink()  # a shared one is not ours to change
    (target / DONE).unlink(missing_ok=True)
    pinned = ["-c", str(constraints), *requirements]
    uv = find_uv()
    if uv:
        tell(f"{folder}: installing with uv")
    if not uv or not install_with_uv(uv, target, pinned):
        tell(f"{folder}: uv cannot install it here, so pip does, which takes minutes")
        install_with_pip(target, pinned)
    tell(f"{folder}: installed in {time.monotonic() - started:.0f} s")


def install_with_uv(uv: Sequence[str], target: Path, pinned: Sequence[str]) -> bool:
    """Whether uv could do it: it does not read pip's own configuration file, only what the shell says."""
    environment, python = uv_environment(os.environ), target / "bin" / "python"
    try:
        if not (target / "bin" / "pip").exists():  # seeded: people find pip in it too
            venv = ["venv", "--quiet", "--seed", "--clear", "--python", sys.executable, str(target)]
            run([*uv, *venv], environment)
        run([*uv, "pip", "install", "--quiet", "--python", str(python), *pinned], environment)
    except subprocess.CalledProcessError:
        return False
    return True


def install_with_pip(target: Path, pinned: Sequence[str]) -> None:
    if not (target / "bin" / "pip").exists():
        create_venv(target)
    pip = [str(target / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run([*pip, "install", *pinned])


def find_uv() -> list[str] | None:
    """The command that runs uv: where it is there, or as a package of its own in the user's cache."""
    if os.environ.get("WITHOUT_UV"):
        return None
    own = cache_folder(os.environ) / f"uv-{platform.python_version()}" / "bin" / "python"
    for command in (["uv"], [sys.executable, "-m", "uv"], [str(own), "-m", "uv"]):
        if runs([*command, "--version"]):
            return command
    with locked(own.parents[1]):
        get_it = [str(own), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv"]
        got = runs([sys.executable, "-m", "venv", str(own.parents[1])]) and runs(get_it)
    return [str(own), "-m", "uv"] if got else None


def uv_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment, with what it tells pip told to uv."""
    told = {FROM_PIP[name]: value for name, value in environment.items() if name in FROM_PIP}
    return {**told, **environment}


def create_venv(target: Path) -> None:
    """A fresh Debian has no module venv: it is in a package of its own."""
    make_venv = [sys.executable, "-m", "venv", "--clear", str(target)]
    if not runs(make_venv):
        run([str(Path(__file__).with_name("system-packages")), "python3-venv"])
        run(make_venv)


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    subprocess.run(command, check=True, env=environment)  # noqa: S603 - our own command, no shell


def runs(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603
    except OSError:
        return False


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Two clones, or make -j, may want the same one at once."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What to do where the system refuses a file, a connection or memory, by its error number."""

from __future__ import annotations

import errno

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = "give the user of this process the right to read and write it"
_TOO_MANY = "raise the limit of open files (`ulimit -n`, `LimitNOFILE`), or start fewer processes"
_TEMPORARY = "free its disk, or name another one (TMPDIR)"
REMEDIES = {
    errno.EMFILE: _TOO_MANY,
    errno.ENFILE: _TOO_MANY,
    errno.EROFS: "mount the disk of DATA_DIR for writing; it may have been turned read-only for its errors",
    errno.EACCES: f"see DATA_DIR, and {_FORBIDDEN}",
    errno.EPERM: f"see DATA_DIR, and {_FORBIDDEN}",
    errno.EIO: "see the kernel's log, and the disk of DATA_DIR",
    errno.ENOMEM: "give the machine more memory, or stop what takes it",
}
"""What to do about failures of files; about all others, to see DATA_DIR and its disk."""


def describe_file(error: OSError) -> str:
    """Say that a file or folder of the data cannot be used, and what to do."""
    if error.errno in FULL_DISK:
        return "the disk is full: free some space below DATA_DIR"
    remedy = REMEDIES.get(error.errno or 0, "see DATA_DIR and its disk")
    return f"a file or folder cannot be used ({error.strerror or error}): {remedy}"


def describe_temporary(error: OSError) -> str:
    """The same of a temporary file.

    Examples
    --------
    >>> describe_temporary(OSError(errno.ENOSPC, "No space left on device"))
    'no temporary file can be written (No space left on device): free its disk, or name another one (TMPDIR)'
    """
    remedy = _TOO_MANY if error.errno in (errno.EMFILE, errno.ENFILE) else _TEMPORARY
    return f"no temporary file can be written ({error.strerror or error}): {remedy}"

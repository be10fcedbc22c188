"""URIs as they may be shown: without the credentials in them."""

import re

_USER_INFO = re.compile(r"://[^\s\"'!]*@")
_NAMED = re.compile(r"(?i)([\w-]*(?:user|usr|pass|pw|token|key|auth|secret)[\w-]*)=(\"[^\"]*\"|'[^']*'|[^&\s!;,]*)")


def redact(uri: str) -> str:
    """`rtsp://me:secret@host/x?pwd=1` as `rtsp://***@host/x?pwd=***`; also inside a GStreamer pipeline.

    It would rather hide too much: everything from `://` to the last `@` of a word.
    """
    return _NAMED.sub(r"\1=***", _USER_INFO.sub("://***@", uri))

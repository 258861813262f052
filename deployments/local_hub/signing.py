"""Signed claims: short-lived permissions that travel in a URL or as a Xet token.

The client sends LFS bodies without its token (as to S3), and Xet has tokens of its own: both carry what they permit,
until when, by whose token (its digest), and an HMAC over it with the Hub's secret. What is signed is never more than
what that token may do when it is used (`call`): it ends with the token.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from typing import Any


class Signer:
    """Makes and checks claims with one secret."""

    def __init__(self, secret: bytes):
        self._secret = secret

    def sign(self, purpose: str, lifetime: float, **claims: Any) -> str:
        """A text for URLs and headers that carries `claims`, good for one purpose and `lifetime` seconds."""
        payload = json.dumps({**claims, "for": purpose, "exp": int(time.time() + lifetime)}, separators=(",", ":"))
        body = base64.urlsafe_b64encode(payload.encode()).rstrip(b"=")
        return (body + b"." + self._mac(body)).decode()

    def check(self, purpose: str, signed: str) -> dict[str, Any] | None:
        """The claims, or None if the text is forged, cut, meant for something else, or expired."""
        try:
            body, _, mac = signed.encode("ascii").partition(b".")
            if not hmac.compare_digest(mac, self._mac(body)):
                return None
            claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + b"=" * (-len(body) % 4)))
        except (ValueError, binascii.Error):
            return None
        return claims if claims.get("for") == purpose and claims.get("exp", 0) > time.time() else None

    def _mac(self, body: bytes) -> bytes:
        return base64.urlsafe_b64encode(hmac.digest(self._secret, body, hashlib.sha256)).rstrip(b"=")

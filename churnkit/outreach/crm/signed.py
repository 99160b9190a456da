"""Signed messages, out and in: the one door to standardwebhooks."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from collections.abc import Mapping

from standardwebhooks import Webhook, WebhookVerificationError

from churnkit.errors import OutreachError, SettingsError
from churnkit.outreach.crm.secret import Secret, secret

NAME = "CHURNKIT_WEBHOOK_SECRET"
SHORTEST, LONGEST = 24, 64
"""Bytes that a signing key has."""
TOLERANCE = dt.timedelta(minutes=5)
"""A message signed longer ago, or as far ahead, is refused; the library's own figure."""
_PREFIX = "whsec_"
_MAKE = ('''python -c "import base64, secrets; print('whsec_' + base64.b64encode(secrets.token_bytes(32)).decode())"''')


class SignatureError(OutreachError):
    """A message is not signed by a key that is known, or not lately."""


class Keys:
    """The signing keys of one partner: the first one signs, all of them verify, so that a key can be replaced.

    Args:
        held: One or several keys as `whsec_` and base64, separated by spaces.

    Raises:
        SettingsError: If one of them is no signing key.

    >>> Keys(Secret("whsec_" + "c2VjcmV0" * 4))
    Keys(1)
    """

    __slots__ = ("_held", "_signers")

    def __init__(self, held: Secret) -> None:
        self._held, self._signers = held, tuple[Webhook, ...]()
        signers = _signers(held)
        if isinstance(signers, int):
            raise SettingsError(f"{NAME}: key {signers} of those given is no signing key: 'whsec_' and base64 of "
                                f"{SHORTEST} to {LONGEST} bytes. Copy it once more, or make one: {_MAKE}")
        self._signers = signers

    def headers(self, message_id: str, body: bytes, at: dt.datetime) -> dict[str, str]:
        """The three headers of a message that is sent at that time."""
        return {"webhook-id": message_id, "webhook-timestamp": str(int(at.timestamp())),
                "webhook-signature": self._signers[0].sign(message_id, at, body.decode())}

    def verify(self, body: bytes, headers: Mapping[str, str]) -> str:
        """The message's id, if one of the keys has signed these very bytes in the last five minutes.

        Args:
            body: What came.
            headers: With it; the case of their names counts for nothing.

        Raises:
            SignatureError: If not; the words say no more than the sender may know.
        """
        named = {name.lower(): value for name, value in headers.items()}
        if len(named) < len(headers):  # else one of them could be verified, and the other one believed
            raise SignatureError("a header stands there twice")
        why = ""
        for signer in self._signers:
            why = _refused(signer, body, named)
            if not why:
                return named["webhook-id"]
        raise SignatureError(why)

    def hidden(self, text: str) -> str:
        """A text in which the keys, should they be there, are covered."""
        for one in self._held.reveal().split():
            text = text.replace(one, "***").replace(one.removeprefix(_PREFIX), "***")
        return text

    def __repr__(self) -> str:
        """How many there are, and no more."""
        return f"Keys({len(self._signers)})"


def keys() -> Keys:
    """The workspace's own, from CHURNKIT_WEBHOOK_SECRET or the file that CHURNKIT_WEBHOOK_SECRET_FILE names.

    Raises:
        SettingsError: If they are missing, or are no signing keys.
    """
    return Keys(secret(NAME, "the webhook's signing key"))


def _signers(held: Secret) -> tuple[Webhook, ...] | int:
    """One for each key, or the place of the first that is none; nothing is raised where a key stands in a variable."""
    made = []
    for place, one in enumerate(held.reveal().split(), start=1):
        bare = one.removeprefix(_PREFIX)
        try:
            key = base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
        except (binascii.Error, ValueError):
            return place
        if not SHORTEST <= len(key) <= LONGEST:
            return place
        made.append(Webhook(key))
    return tuple(made) or 1


def _refused(signer: Webhook, body: bytes, headers: dict[str, str]) -> str:
    """Why a message is refused, or nothing.

    The library compares in constant time. Of a header that is not of the right form it makes a ValueError of its own or
    of base64's.
    """
    try:
        signer.verify(body, headers, json_parse=False)
    except WebhookVerificationError as error:
        said = str(error)
        return _WORDS.get(said, _WORDS[""])
    except ValueError:
        return _WORDS[""]
    return ""


_WORDS: Mapping[str, str] = {
    "Missing required headers": "webhook-id, webhook-timestamp and webhook-signature are needed",
    "Invalid Signature Headers": "webhook-timestamp is no number of seconds",
    "Message timestamp too old": "the message was signed more than five minutes ago: sign it again as it is sent",
    "Message timestamp too new": "the message is signed ahead of time: set the sender's clock",
    "": "no signature fits"}
"""What the library says = what the sender is told."""

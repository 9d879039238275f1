"""What a credential looks like in text that should hold none.

Credential ids are random letters of the same alphabet: three letters of a token's beginning stand in one of them every
few thousand runs, so what is looked for is as much of a token as no id has by chance.
"""

from __future__ import annotations

import re

_HEADERS = ("eyJhbGci", "eyJ0eXAi")
"""How `{"alg"` and `{"typ"` begin in base64: each JWT, of ours and of the server's, begins with one of them."""
_SHAPE = re.compile(rf"(?:{'|'.join(_HEADERS)})[\w.-]*|(?:ak|jt|rt)_[a-z2-7]{{16}}_[a-z2-7]{{8,}}")


def tokens_in(text: str) -> list[str]:
    """The JWTs, API keys, join and refresh tokens of which more than the public part stands in a text."""
    return _SHAPE.findall(text)

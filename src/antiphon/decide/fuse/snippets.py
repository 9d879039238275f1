"""Title and snippet (T3): BM25 counted on what people will read, own rank and node prior; trusts no node's counts."""

from __future__ import annotations

from collections.abc import Sequence

from antiphon.decide.evidence import judge
from antiphon.decide.fuse.evidence import mix
from antiphon.decide.fusing import Fusing, NodeReply, Question

KEEPS_NODE_ORDER = False


def fuse(question: Question, replies: Sequence[NodeReply]) -> Fusing:
    """Score every hit by the text tier, whatever counts it carries."""
    return mix(judge(question, replies, texts_only=True), replies)

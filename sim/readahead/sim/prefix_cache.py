"""Prompts that begin alike: which of their KV an engine still has."""

from __future__ import annotations

from collections import OrderedDict

from readahead.sim.engine_leg import Prefix

Node = tuple[int, str]
"""A segment after a chain of others: the chain's number and the segment's key."""


class PrefixCache:
    """Chains of segments, the least recently used forgotten first.

    A segment counts as a whole. A hit is copied into blocks of the request's own, which a real
    engine shares instead: compute is saved as there, memory is judged a little scarcer. What is
    kept lies in blocks that are free, so that it costs no one any; when fewer are free, less is
    kept.
    """

    def __init__(self, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._nodes: OrderedDict[Node, tuple[int, int]] = OrderedDict()
        self._last = 0
        self.tokens = 0
        """That are kept."""

    def match(self, prefix: Prefix, *, most: int) -> int:
        """Tokens at the head of this prompt that need not be computed: whole blocks, `most` at
        the most."""
        chain, tokens = 0, 0
        path: list[Node] = []
        for key, _ in prefix:
            found = self._nodes.get((chain, key))
            if found is None:
                break
            path.append((chain, key))
            chain = found[0]
            tokens += found[1]
        self._use(path)
        tokens = min(tokens, most)
        return tokens - tokens % self._block_tokens

    def insert(self, prefix: Prefix) -> None:
        """A prompt has been computed."""
        chain = 0
        path: list[Node] = []
        for key, tokens in prefix:
            node = (chain, key)
            found = self._nodes.get(node)
            if found is None:
                self._last += 1
                found = self._nodes[node] = (self._last, tokens)
                self.tokens += tokens
            path.append(node)
            chain = found[0]
        self._use(path)

    def shrink(self, *, blocks_max: int) -> None:
        """Forgets the oldest until so many blocks hold the rest."""
        while self.tokens > blocks_max * self._block_tokens and self._nodes:
            _, (_, tokens) = self._nodes.popitem(last=False)
            self.tokens -= tokens

    def _use(self, path: list[Node]) -> None:
        """The end of a chain is of no use without its head, so it is the older of the two."""
        for node in reversed(path):
            self._nodes.move_to_end(node)

"""How well a chunk fits a query: BM25, and what stands there word for word. Pure.

BM25 (Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework", section 3.2), with two choices of ours:
- The usual length of a chunk is a constant, so that what a term weighs in a chunk (its *impact*) never changes. It can
  be stored, and a chunk that is scanned gets the very score that it would have from the index.
- How rare a term is counts in the spaces that are searched, not in all of the home: memories of others never move a
  ranking (and so tell nothing), and small spaces are ranked as well as large ones.
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

from mains.search.terms import Query, Terms, line_of, worded

K1 = 1.2
B = 0.4  # chunks are bounded, so a long one is not a document on many things; with 0.75 `bench facts` loses a fifth
USUAL_TERMS = 300  # of a chunk; a full one of English has some 330
IMPACT_BITS = 6
LEVELS = 1 << IMPACT_BITS  # of an impact
_COUNT_MAX = 1_000  # of a term in one chunk; more make no difference
# In what all terms of the query weigh together. No chunk gets more than K1 + 1 of that for its terms alone, so the
# exact wording comes before everything without it.
WORDING_WEIGHT = K1 + 1
PAIRS_WEIGHT = 0.5  # of all neighbours of the query being neighbours here, too


def impacts(terms: Terms) -> dict[str, int]:
    """What each term weighs in a chunk with these terms: 1 to LEVELS - 1."""
    long = K1 * (1 - B + B * len(terms.line) / USUAL_TERMS)
    counts = Counter(terms.line)
    counts.update(terms.inner)
    most = min(_COUNT_MAX, max(counts.values(), default=0))
    levels = [max(1, round((LEVELS - 1) * count / (count + long))) for count in range(most + 1)]
    return {term: levels[count if count < most else most] for term, count in counts.items()}


def rarity(found: int, chunks: int) -> float:
    """What a term weighs that stands in `found` of `chunks` chunks (never negative)."""
    return math.log(1 + (chunks - found + 0.5) / (found + 0.5))


def weights(found: int, chunks: int) -> list[float]:
    """The score for each level of impact of a term."""
    step = rarity(found, chunks) * (K1 + 1) / (LEVELS - 1)
    return [level * step for level in range(LEVELS)]


def is_worded(query: Query, text: str) -> bool:
    """Whether a text has the query word for word."""
    return bool(query.wording) and query.wording in worded(text)


def wording(query: Query, text: str) -> float:
    """How much of the query's wording stands in a text: 0 to WORDING_WEIGHT + PAIRS_WEIGHT."""
    exact = WORDING_WEIGHT if is_worded(query, text) else 0.0
    if not query.pairs:
        return exact
    near = query.pairs.intersection(pairwise(line_of(text)))
    return exact + PAIRS_WEIGHT * len(near) / len(query.pairs)

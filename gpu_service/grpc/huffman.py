"""HPACK's Huffman code, decoded four bits at a time.

The code is canonical: the lengths of its codewords say everything. Source: RFC 7541, section 5.2 and appendix B.
"""

from functools import cache

# By symbol: the 256 bytes; the end of the string (30 bits) follows.
# fmt: off
_LENGTHS = (
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
)
# fmt: on
_END_OF_STRING = 256
_LONGEST_PADDING = 7

# By state and four bits: the next state and the symbol that ended, if any. A state is an inner node of the code's tree.
_Table = list[tuple[tuple[int, bytes] | None, ...]]


def decode(data: bytes) -> bytes:
    """The string; ValueError if the code is broken or does not end in at most seven ones."""
    table, padding = _machine()
    state = 0
    symbols: list[bytes] = []
    for byte in data:
        for nibble in (byte >> 4, byte & 15):
            step = table[state][nibble]
            if step is None:
                raise ValueError("a Huffman string holds the symbol that must not occur")
            state, symbol = step
            if symbol:
                symbols.append(symbol)
    if state not in padding:
        raise ValueError("a Huffman string ends inside a symbol")
    return b"".join(symbols)


@cache
def _machine() -> tuple[_Table, frozenset[int]]:
    """The table, and the states in which a string may end: after nothing but ones, fewer than eight."""
    nodes = _tree()
    table: _Table = [tuple(_walk(nodes, state, nibble) for nibble in range(16)) for state in range(len(nodes))]
    padding = {0}
    node = 0
    for _ in range(_LONGEST_PADDING):
        node = nodes[node][1]
        padding.add(node)
    return table, frozenset(padding)


def _tree() -> list[list[int]]:
    """Inner nodes: their two successors, an inner node from 0 on, or ~symbol."""
    nodes = [[0, 0]]
    code, before = 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate((*_LENGTHS, 30))):
        code <<= length - before
        before = length
        node = 0
        for shift in range(length - 1, 0, -1):
            bit = code >> shift & 1
            if not nodes[node][bit]:
                nodes[node][bit] = len(nodes)
                nodes.append([0, 0])
            node = nodes[node][bit]
        nodes[node][code & 1] = ~symbol
        code += 1
    return nodes


def _walk(nodes: list[list[int]], node: int, nibble: int) -> tuple[int, bytes] | None:
    found = b""  # no codeword has fewer than five bits: four of them end at most one
    for shift in (3, 2, 1, 0):
        node = nodes[node][nibble >> shift & 1]
        if node < 0:
            if ~node == _END_OF_STRING:
                return None
            found, node = bytes((~node,)), 0
    return node, found

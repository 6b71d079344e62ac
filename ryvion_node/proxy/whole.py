"""An answer that is sent as one."""

from __future__ import annotations

from ryvion_node.market.interface import Piece, Placement


class WholeAnswer:
    """Collects the pieces of an answer."""

    def __init__(self, placement: Placement) -> None:
        self.placement = placement
        self.pieces: list[Piece] = []

    async def taken(self, placement: Placement) -> None:
        """Note who answers."""
        self.placement = placement

    async def piece(self, piece: Piece) -> None:
        """Take in a piece."""
        self.pieces.append(piece)

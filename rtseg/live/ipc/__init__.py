"""How the processes of a feed share frames, counts and messages: rings, a board, links and wake-ups."""

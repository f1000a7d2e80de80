"""What the operator's side of a peer sends to its worker, which echoes it."""

from bench.results import LOADS

PAYLOAD = bytes(128)
"""What is echoed: about as long as a change of one key."""

SWITCHES = {load.encode(): load for load in LOADS}
"""To train in this way from now on."""

END = b"end"
"""To leave, and the broker with it."""

CHANGES, OUTCOMES = "changes", "outcomes"
"""Where a peer that has names for it publishes what the operator sends, and what comes back."""

"""What zloom costs: round trips beside plain ZeroMQ in the same run, and what a step of training pays.

`python -m bench` measures and saves, `python -m bench report FILE.json` writes docs/performance.md.
"""

"""What holds for all tests: how many threads torch takes, and how many examples Hypothesis tries."""

import os

from hypothesis import Phase, settings

# Before torch is imported, and for every process that a test starts: the threads of several ranks would
# spend their time waiting for each other on the few cores that there are.
os.environ["OMP_NUM_THREADS"] = "1"

# The suite tries the same examples each time. It does not shrink one that fails, which for a state machine
# takes longer than a test may: `--hypothesis-profile=soak` does, and tries many more.
settings.register_profile(
    "suite", derandomize=True, deadline=None, database=None, phases=[Phase.explicit, Phase.generate]
)
settings.register_profile("soak", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile("suite")

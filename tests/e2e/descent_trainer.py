"""A trainer whose loss explodes when its learning rate is too high: noisy gradient descent on a parabola.

Below 2 / curvature it converges, above it diverges, by arithmetic alone. It appends `{"step", "value"}` to a
file for each learning rate that was set.
"""

import argparse
import json
import random
import time
from pathlib import Path
from typing import Annotated

import zloom

CURVATURE = 4.0
STEP_SECONDS = 0.002


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("broker")
    parser.add_argument("log", type=Path)
    arguments = parser.parse_args()
    rate, weight, going = 0.05, 3.0, True
    weavelet = zloom.Weavelet("descent", broker=arguments.broker, attempt="one")

    @weavelet.on_config("learning_rate", initial=rate)
    def set_learning_rate(value: Annotated[float, zloom.Meta(gt=0, le=1)]) -> None:
        nonlocal rate
        rate = value
        with arguments.log.open("a") as log:
            log.write(json.dumps({"step": weavelet.step, "value": value}) + "\n")

    @weavelet.on_command("stop")
    def stop() -> None:
        nonlocal going
        going = False

    noise = random.Random(1)
    with weavelet:
        while going:
            weavelet.tick()
            weight -= rate * (CURVATURE * weight + noise.gauss(0, 0.1))
            weavelet.report(loss=CURVATURE * weight * weight / 2 + 0.01)
            time.sleep(STEP_SECONDS)  # the step's work


if __name__ == "__main__":
    main()

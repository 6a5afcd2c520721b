"""A pytest plugin: the quickest tests first, for a fault is found by the first of them.

If one case of a test does not notice a fault, its other cases seldom do, so they come
later. FAULTS_TIMES names JSON files of seconds by test; if there is none yet, it is
written. Otherwise only the first tests run, which together take FAULTS_SECONDS.
"""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import Phase, settings

PATHS = [Path(path) for path in os.environ["FAULTS_TIMES"].split(os.pathsep)]
KNOWN = PATHS[0].exists()
times: dict[str, float] = {}
# that an example fails is enough: it need not be the simplest
settings.register_profile(
    "faults", phases=[Phase.explicit, Phase.generate], derandomize=True, database=None
)
settings.load_profile("faults")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if KNOWN:
        known = {k: v for p in PATHS for k, v in json.loads(p.read_text()).items()}
        cases = Counter[str]()

        def key(item: pytest.Item) -> float:
            function = item.nodeid.partition("[")[0]
            cases[function] += 1
            return cases[function] * known.get(item.nodeid, 0)

        items.sort(key=key)
        left = float(os.environ["FAULTS_SECONDS"])
        for i, item in enumerate(items):
            left -= known.get(item.nodeid, 0)
            if left < 0 and i > 0:  # with no test left pytest fails, as with a fault
                del items[i:]
                break


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    times[report.nodeid] = times.get(report.nodeid, 0) + report.duration


def pytest_sessionfinish(exitstatus: int) -> None:
    if exitstatus == 0 and not KNOWN:
        PATHS[0].write_text(json.dumps(times))

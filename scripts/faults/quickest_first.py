"""A pytest plugin: the quickest tests first, for a fault is found by the first of them.

FAULTS_TIMES is a JSON file of seconds by test. Where there is none yet, it is written.
"""

import json
import os
from pathlib import Path

import pytest
from hypothesis import Phase, settings

PATH = Path(os.environ["FAULTS_TIMES"])
times: dict[str, float] = {}
# that an example fails is enough: it need not be the simplest
settings.register_profile(
    "faults", phases=[Phase.explicit, Phase.generate], derandomize=True, database=None
)
settings.load_profile("faults")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if PATH.exists():
        known = json.loads(PATH.read_text())
        items.sort(key=lambda item: known.get(item.nodeid, 0))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    times[report.nodeid] = times.get(report.nodeid, 0) + report.duration


def pytest_sessionfinish(exitstatus: int) -> None:
    if exitstatus == 0 and not PATH.exists():
        PATH.write_text(json.dumps(times))

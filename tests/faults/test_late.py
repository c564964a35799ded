"""A worker process that wakes up late: it was frozen with a job in hand, and another finished that job meanwhile.

It must see at its next write that the job is not its own any more.  Without that check, which is taken out of the worker's
code here, the same round turns red.
"""

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.disk.uploads import orders, send, sent
from tests.faults.gate import Gate
from tests.faults.oracle import judge
from tests.faults.site import TODAY, Setting, Site
from tests.harness.guard import find
from tests.harness.waiting import until

SEED = 1
#: Rules by which nobody may submit anything.
REFUSING = "allow = []\n"
#: Python imports a module of this name when it starts.
HOOK = "sitecustomize.py"
#: The gate of every owner's write, without the comparison.
UNCHECKED = """
from pacifica.ingest import store
from pacifica.ingest.tables import JobRow
def own(self, claim, /, **changes):
    JobRow.update(heartbeat=JobRow.heartbeat + 1, **changes).where(JobRow.job_id == claim.job_id).execute()
assert store.SqlJobStore._own
store.SqlJobStore._own = own
"""


@pytest.mark.parametrize("checked", [True, False], ids=["with the check", "without it"])
def test_a_worker_that_wakes_up_late_does_no_harm_and_the_round_notices_when_it_does(
    tmp_path: Path, *, checked: bool
) -> None:
    (tmp_path / HOOK).write_text("" if checked else UNCHECKED)
    setting = Setting(name="late", code=replace(TODAY, sources=[tmp_path, *TODAY.sources]))
    site = Site(tmp_path / "site", setting)
    rules = site.folder / "service" / "policy.toml"
    rules.parent.mkdir()
    gate = Gate(rules)
    with site:
        gate.close()
        wanted = next(orders(SEED))
        told = sent(wanted, send(site.url, wanted))
        until(gate.reached, "a worker to hold the job")
        (number,) = site.owners()
        late = find(number)
        assert late is not None
        late.send(signal.SIGSTOP)
        # What it reads when it wakes up refuses the job, which others find free to go on and bring to its end.
        gate.open(REFUSING)
        until(site.taken_over, "another to take the job over")
        site.settled()
        assert judge(site.evidence([told])) == []
        late.send(signal.SIGCONT)
        if checked:
            until(lambda: "another worker has the job now" in site.server.log.read_text(), "the late worker to see it")
            assert judge(site.evidence([told])) == []
        else:
            until(lambda: judge(site.evidence([told])), "the judge to notice")

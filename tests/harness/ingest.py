"""What a test says to an ingest service, ours or the original: send, ask, wait."""

from typing import Any

from tests.harness.waiting import until
from tests.harness.web import request

__all__ = ["IngestCalls"]


class IngestCalls:
    """Adds the documented calls to whatever has a `url`."""

    url: str

    def post(self, body: bytes, address: str = "/upload") -> int:
        """Send a body that must be accepted; returns the job's number."""
        reply = request("POST", self.url + address, body, headers={"Content-Type": "application/octet-stream"})
        assert reply.status == 200, reply.body
        return int(reply.json()["job_id"])

    def state(self, job_id: int) -> dict[str, Any]:
        """Return what a client is told of a job."""
        answer: dict[str, Any] = request("GET", f"{self.url}/get_state?job_id={job_id}").json()
        return answer

    def end(self, job_id: int) -> dict[str, Any]:
        """Return what a client is told when the job has ended."""
        until(lambda: self.state(job_id)["complete"], f"job {job_id} to end")
        return self.state(job_id)

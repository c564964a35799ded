"""Ask which locked packages have known vulnerabilities: `make audit`.

pip-audit asks the package index, and says that nothing is known also when the index knew none of the packages, as a mirror
does.  Silence is no good answer here: it is told apart.

Exit codes: 0 nothing is known of any package, 1 something is known, 3 not every package could be asked about (0 with
`--may-be-silent`, for where the network does not let it ask).
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).parents[1] / "requirements.lock"
CLEAN, FOUND, SILENT = 0, 1, 3
#: How long pip-audit may take, in seconds.
PATIENCE_S = 300


def judge(report: str) -> tuple[int, list[str]]:
    """The exit code and the lines for people, of pip-audit's report in JSON, or of none."""
    try:
        packages = json.loads(report)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return SILENT, ["NOT AUDITED: the database of vulnerabilities cannot be reached from here."]
    known = [
        f"{package['name']} {package['version']}: {', '.join([flaw['id'], *flaw.get('aliases', [])])}; "
        f"mended in {', '.join(flaw.get('fix_versions', [])) or 'no release'}"
        for package in packages
        for flaw in package.get("vulns", [])
    ]
    unasked = sorted(package["name"] for package in packages if "skip_reason" in package)
    lines = list(known)
    if unasked or not packages:
        lines.append(
            f"NOT AUDITED: {len(unasked)} of {len(packages)} packages are not known where it asked: {', '.join(unasked)}"
        )
    if known:
        return FOUND, lines
    return (SILENT, lines) if lines else (CLEAN, [f"Nothing is known against {len(packages)} packages."])


def _ask() -> str:
    """What pip-audit reports; empty when it cannot."""
    command = [sys.executable, "-m", "pip_audit", "--require-hashes", "--disable-pip", "--requirement", str(LOCK)]
    try:
        done = subprocess.run(  # noqa: S603 (no word of it comes from outside)
            [*command, "--format", "json", "--progress-spinner", "off"],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
    except subprocess.TimeoutExpired:
        return ""
    if not done.stdout:
        print(done.stderr[-500:], file=sys.stderr)  # noqa: T201 (a command)
    return done.stdout


def main() -> int:
    """Ask and tell; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make audit", description=__doc__)
    parser.add_argument("--may-be-silent", action="store_true", help="exit with 0 where nobody answers")
    asked = parser.parse_args()
    code, lines = judge(_ask())
    print("\n".join(lines))  # noqa: T201 (a command)
    return CLEAN if code == SILENT and asked.may_be_silent else code


if __name__ == "__main__":
    sys.exit(main())

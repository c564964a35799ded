"""Installed beside the other Pacifica packages, ours leaves their namespace whole."""

from pathlib import Path

from tests.harness import beside_env, run

ROOT = Path(__file__).parents[2]


def test_all_pacifica_packages_import_beside_ours() -> None:
    names = [
        "ingest",
        "ingest.config",
        "ingest.core",
        "uniqueid",
        "policy",
        "archiveinterface",
        "metadata",
        "uploader",
        "cli",
    ]
    imports = "; ".join(f"import pacifica.{name}" for name in names)
    env = beside_env(ROOT)
    said = run([env.python, "-c", f"{imports}; print(pacifica.ingest.__file__, pacifica.metadata.__file__)"])
    assert str(env.site_packages) in said
